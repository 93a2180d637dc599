"""The demo's test rows and what a bag of words makes of them: run as a child, so that its imports cost the search nothing.

python -m service.demo.held_out HOME  ->  one JSON object on stdout
"""

import json
import sys
from pathlib import Path

import yaml

from service.catalog.baseline import bag_of_words_accuracy
from service.catalog.catalog import open_catalog
from service.demo.story import STUDY
from service.domain.definition import parse_definition
from service.settings import Settings
from trainers.configs import LabelledText


def main() -> None:
    definition = parse_definition(yaml.safe_load(STUDY.read_text(encoding="utf-8")))
    rows = definition.trainer.data
    assert isinstance(rows, LabelledText)  # noqa: S101 - the demo's study is a text classification
    sources = open_catalog(Settings(home=Path(sys.argv[1]))).fetch(definition).sources
    train, test = sources[rows.train], sources[rows.test or rows.train]
    answer = {"test": str(test), "text": rows.text, "label": rows.label, "accuracy": bag_of_words_accuracy(train, test)}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
