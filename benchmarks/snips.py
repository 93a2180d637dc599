"""The SNIPS requests as rows of words, tags and an intent: `python -m benchmarks.snips FOLDER INTO [--rows ROWS]`.

FOLDER holds `train_*_full.json` and `validate_*.json` of Coucke et al. 2018, section 5 (github.com/sonos/nlu-benchmark, folder
2017-06-custom-intent-engines, CC0). INTO gets `train.jsonl` and `test.jsonl`, one request a line:
`{"tokens": ["rain", "in", "Rome"], "tags": ["O", "O", "B-city"], "text": "rain in Rome", "intent": "GetWeather"}`.
So `tokens` and `tags` are for token classification, `text` and `intent` for text classification.
"""

import argparse
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

_SPLITS = {"train": "train_*_full.json", "test": "validate_*.json"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the downloaded files, in it or in folders in it")
    parser.add_argument("into", type=Path, help="folder to write to")
    parser.add_argument("--rows", type=int, help="only so many training rows, drawn from all of them")
    asked = parser.parse_args()
    try:
        convert(asked.folder, asked.into, rows=asked.rows)
    except FileNotFoundError as error:
        parser.error(str(error))


def convert(folder: Path, into: Path, *, rows: int | None = None) -> None:
    """Write `train.jsonl` and `test.jsonl`, each in an order that mixes the intents. Raises FileNotFoundError."""
    found = {split: sorted(folder.rglob(pattern)) for split, pattern in _SPLITS.items()}
    for split, paths in found.items():
        if not paths:
            raise FileNotFoundError(f"there is no {_SPLITS[split]} in {folder}: name the folder with the files of all intents")
    into.mkdir(parents=True, exist_ok=True)
    for split, paths in found.items():
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for path in paths for row in read(path)]
        random.Random(0).shuffle(lines)  # noqa: S311 - an order, no secret
        kept = lines[:rows] if split == "train" else lines
        (into / f"{split}.jsonl").write_text("".join(kept), encoding="utf-8")
        print(f"{into / split}.jsonl: {len(kept)} rows of {len(paths)} intents")


def read(path: Path) -> Iterator[Mapping[str, Any]]:
    """The requests of one file; its key is their intent. A few bytes of the training files are no UTF-8."""
    for intent, requests in json.loads(path.read_bytes().decode("utf-8", errors="replace")).items():
        for request in requests:
            tagged = words(request["data"])
            yield {
                "tokens": [word for word, _ in tagged],
                "tags": [tag for _, tag in tagged],
                "text": "".join(piece["text"] for piece in request["data"]).strip(),
                "intent": intent,
            }


def words(pieces: Sequence[Mapping[str, str]]) -> list[tuple[str, str]]:
    """Words with their BIO tags. A piece is a slot's value where it has an `entity`; words end with their piece."""
    found = []
    for piece in pieces:
        slot = piece.get("entity")
        for at, word in enumerate(piece["text"].split()):
            found.append((word, "O" if slot is None else f"{'I' if at else 'B'}-{slot}"))
    return found


if __name__ == "__main__":
    main()
