"""The converter of SNIPS requests: what is published in, rows of words and tags out."""

import json
from pathlib import Path

import pytest

from benchmarks.snips import convert

_REQUEST = {"data": [{"text": "Play "}, {"text": "New  Order", "entity": "artist"}, {"text": ", please"}, {"text": "\n"}]}


def write(folder: Path, rows: int = 1) -> Path:
    folder.mkdir()
    (folder / "train_PlayMusic_full.json").write_bytes(
        json.dumps({"PlayMusic": [_REQUEST] * rows}).encode().replace(b"Play ", b"Pl\xffay ")
    )
    (folder / "validate_PlayMusic.json").write_text(json.dumps({"PlayMusic": [_REQUEST]}))
    return folder


def test_a_slots_words_begin_and_go_on_and_words_end_with_their_piece(tmp_path: Path) -> None:
    convert(write(tmp_path / "published"), tmp_path / "rows")
    (line,) = (tmp_path / "rows" / "test.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "tokens": ["Play", "New", "Order", ",", "please"],
        "tags": ["O", "B-artist", "I-artist", "O", "O"],
        "text": "Play New  Order, please",
        "intent": "PlayMusic",
    }


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    convert(write(tmp_path / "published"), tmp_path / "rows")
    row = json.loads((tmp_path / "rows" / "train.jsonl").read_text(encoding="utf-8"))
    assert row["tokens"][0] == "Pl\ufffday"


def test_so_many_training_rows_are_kept_as_are_asked_for(tmp_path: Path) -> None:
    convert(write(tmp_path / "published", rows=5), tmp_path / "rows", rows=3)
    assert len((tmp_path / "rows" / "train.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def test_a_folder_without_requests_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="name the folder with the files of all intents"):
        convert(tmp_path, tmp_path / "rows")
