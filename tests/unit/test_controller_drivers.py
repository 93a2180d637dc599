"""What is known of drivers is on disk, and a disk may hold anything after a power cut."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.controller import drivers
from service.controller.drivers import Drivers
from service.settings import write_private
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


def test_a_driver_that_cannot_be_written_down_is_ended_as_nobody_would_know_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned: list[subprocess.Popen[bytes]] = []

    def full(path: Path, _: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    class Seen(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **named: Any) -> None:
            super().__init__(*arguments, **named)
            spawned.append(self)

    monkeypatch.setattr(drivers, "write_private", full)
    monkeypatch.setattr(subprocess, "Popen", Seen)
    fleet = Drivers(tmp_path / "run", tmp_path / "logs", lambda _: ([sys.executable, "-c", "import time; time.sleep(600)"], {}))
    with pytest.raises(OSError, match="No space"):
        fleet.start("intents-abc123", NOW, 0)
    assert spawned[0].wait(60) == -signal.SIGKILL
    assert fleet.launched() == {}


def test_a_file_that_finds_no_room_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_private(tmp_path / "file", "before")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_private(tmp_path / "file", "after")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("file", "before")]


def test_the_end_of_a_drivers_log_begins_with_a_whole_line(tmp_path: Path) -> None:
    fleet = a_fleet(tmp_path)
    fleet.log("intents-abc123").parent.mkdir(parents=True)
    fleet.log("intents-abc123").write_text("one\ntwo\n")
    assert fleet.log_tail("intents-abc123") == "one\ntwo\n"
    fleet.log("intents-abc123").write_text("first " * 10_000 + "\nlast\n")
    assert fleet.log_tail("intents-abc123") == "last\n"
