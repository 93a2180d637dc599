"""What is known of drivers is on disk, and a disk may hold anything after a power cut."""

import json
from pathlib import Path

import pytest

from service.controller.drivers import Drivers
from tests.builders import NOW

RECORD = {"pid": 2**22 + 1, "created": 0.0, "at": NOW.isoformat(), "reports": 0, "fruitless": 1}


def a_fleet(root: Path) -> Drivers:
    return Drivers(root / "run", root / "logs", lambda *_: ([], {}))


@pytest.mark.parametrize("content", ["", "{", "null", "{}", json.dumps({**RECORD, "at": "noon"}), "\x00" * 20])
def test_a_record_that_cannot_be_read_is_dropped_and_the_others_still_count(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "run" / "drivers"
    folder.mkdir(parents=True)
    (folder / "intents-abc123.json").write_text(json.dumps(RECORD))
    (folder / "broken-abc123.json").write_text(content)
    launched = a_fleet(tmp_path).launched()
    assert {study_id: (found.alive, found.fruitless) for study_id, found in launched.items()} == {"intents-abc123": (False, 1)}
    assert [path.name for path in folder.iterdir()] == ["intents-abc123.json"]
