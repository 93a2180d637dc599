"""docs/trainers.md names every setting that there is, and none that there is not."""

import re

import yaml
from pydantic import BaseModel

from service.domain.definition import parse_definition
from tests.builders import a_definition
from tests.docs.test_readme import ROOT
from trainers.configs import CONFIGS, SimulatedConfig, TrainingConfig, metrics_of

PAGE = re.sub(r"^```.*?^```$", "", (ROOT / "docs" / "trainers.md").read_text(), flags=re.MULTILINE | re.DOTALL)


def words() -> set[str]:
    return {word for code in re.findall(r"`([^`]+)`", PAGE) for word in re.findall(r"[a-z][a-z0-9_]*", code)}


def keys(config: type[BaseModel]) -> set[str]:
    return set(config.model_fields) - {"kind", "data"}


def test_every_setting_of_every_trainer_is_named() -> None:
    wanted = set().union(*(keys(config) for config in CONFIGS.values()))
    rows = [config.model_fields.get("data") for config in CONFIGS.values()]
    sections = set().union(*(set(section.annotation.model_fields) for section in rows if section))  # type: ignore[union-attr]
    assert (wanted | sections) - words() == set()


def test_every_task_is_named() -> None:
    table = PAGE.partition("## Tasks")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \| ", table, re.MULTILINE)) - {"kind"} == set(CONFIGS)


def test_settings_that_are_named_for_all_are_those_of_all() -> None:
    assert keys(TrainingConfig) <= words()


def test_the_example_of_a_simulation_is_one() -> None:
    page = (ROOT / "docs" / "trainers.md").read_text().partition("## Training nothing")[2]
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    study = parse_definition(yaml.safe_load(example))
    assert isinstance(study.trainer, SimulatedConfig)
    assert set(study.trainer.fails.conditions) <= words()


def test_the_example_of_trials_that_share_a_gpu_is_one() -> None:
    page = (ROOT / "docs" / "trainers.md").read_text().partition("## Several trials on a GPU")[2].partition("\n## ")[0]
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert a_definition(**yaml.safe_load(example)).resources.is_packed


def test_every_metric_is_named() -> None:
    found = set[str]()
    for kind, config in ((kind, config) for kind, config in CONFIGS.items() if "model" in config.model_fields):
        for problem in ({"problem": name} for name in ("single-label", "multi-label", "regression")):
            extra = problem if kind == "text-classification" else {"generated_rows": 5} if kind == "seq2seq" else {}
            document = {"kind": kind, "model": "m", "data": {"train": "dataset://a/b.csv"}, **extra}
            found |= metrics_of(config.model_validate(document))
    assert {name.partition("/")[2] for name in found} <= words()
