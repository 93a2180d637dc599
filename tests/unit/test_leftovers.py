"""What is deleted because nobody uses it any more."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.controller.leftovers import Entry, Leftovers, old_logs, old_sessions, unfinished_records, unused_tune_folders
from tests.builders import NOW

MINUTE = timedelta(minutes=1)
OLD, NEW = NOW - 11 * MINUTE, NOW - 9 * MINUTE
MEGABYTE = 1024**2


def test_tunes_folders_of_studies_without_a_driver_go_after_a_while() -> None:
    entries = [Entry("old", OLD), Entry("new", NEW), Entry("driven", OLD)]
    assert unused_tune_folders(entries, {"driven"}, NOW) == ["old"]


def test_the_present_session_of_ray_stays_and_one_before_it() -> None:
    entries = [Entry(name, NOW - age * MINUTE) for name, age in [("now", 99), ("before", 100), ("older", 200), ("oldest", 300)]]
    assert old_sessions(entries, "now", NOW) == ["older", "oldest"]
    assert old_sessions(entries, None, NOW) == [], "nobody knows which one is in use"
    assert old_sessions([Entry("now", NEW), Entry("before", NEW), Entry("older", NEW)], "now", NOW) == []


def test_logs_of_studies_that_are_over_go_oldest_first_when_all_of_them_take_too_much() -> None:
    entries = [Entry(f"s{age}.log", NOW - age * 11 * MINUTE, 100 * MEGABYTE) for age in (1, 2, 3)]
    assert old_logs(entries[:2], (), NOW) == []
    assert old_logs(entries, (), NOW) == ["s3.log"]
    assert old_logs([*entries, Entry("s9.log.1", OLD, 100 * MEGABYTE)], {"s3", "s9"}, NOW) == []
    assert old_logs([Entry(f"n{n}.log", NEW, 150 * MEGABYTE) for n in range(3)], (), NOW) == [], "they may still be written"


def test_what_a_killed_writer_of_records_left_goes() -> None:
    entries = [Entry(".study.json.99", OLD), Entry(".study.json.98", NEW), Entry("study.json", OLD)]
    assert unfinished_records(entries, NOW) == [".study.json.99"]


def test_a_sweep_deletes_what_is_unused_and_says_whose_it_was_and_comes_again_after_a_while(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    def lies(path: str, age_minutes: float, size: int = 1) -> Path:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(size))
        for one in (file, file.parent):
            os.utime(one, (now.timestamp() - 60 * age_minutes,) * 2)
        return file

    tune, driven = lies("ray/tune/left/params.json", 20), lies("ray/tune/driven/params.json", 20)
    sessions = [lies(f"ray/session_{name}/logs", age) for name, age in (("c", 20), ("b", 30), ("a", 40))]
    (tmp_path / "ray" / "session_latest").symlink_to(tmp_path / "ray" / "session_c")
    fits = [lies(f"ray/session_c/artifacts/{time}/{study}/state", 20) for time, study in (("t1", "left"), ("t2", "driven"))]
    record, kept = lies("run/drivers/.x.json.7", 20), lies("run/drivers/x.json", 20)
    lies("logs/drivers/x.log", 20)
    leftovers = Leftovers(tmp_path / "ray", tmp_path / "logs", tmp_path / "run")
    assert leftovers.sweep({"driven"}, {"driven"}, now) == ["left"]
    everything = [tune.parent, driven, *sessions, record, kept]
    assert [path.exists() for path in everything] == [False, True, True, True, False, False, True]
    assert [path.parents[1].exists() for path in fits] == [False, True]
    lies("ray/tune/again/params.json", 20)
    assert leftovers.sweep(set(), set(), now + 4 * MINUTE) == []
    assert leftovers.sweep({"driven"}, set(), now + 5 * MINUTE) == ["again"]


def test_a_home_without_any_of_it_is_swept_without_harm(tmp_path: Path) -> None:
    assert Leftovers(tmp_path / "ray", tmp_path / "logs", tmp_path / "run").sweep((), (), NOW) == []
