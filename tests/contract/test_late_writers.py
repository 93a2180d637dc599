"""Two attempts of one trial at work at once, as the first was given up and does not know it yet.

Who writes late destroys nothing newer.
"""

from pathlib import Path

import pytest

from service.checkpoints.names import CheckpointName, name_of
from service.execution.place import Folder
from tests.contract.checkpoint_places import STUDY, OnDisk, Place


def train(folder: Folder, report: int, content: str, *, midway: bool = False) -> None:
    def write(to: Path) -> None:
        (to / "state.json").write_text(content)

    folder.save_resume([{"number": number} for number in range(1, report + 1)], write, midway=midway)


def export(folder: Folder, report: int, content: str, before: int | None = None) -> None:
    folder.save_export(report, lambda to: _write(to / "config.json", content), before)


def _write(path: Path, content: str) -> None:
    path.write_text(content)


def resumed(place: Place, attempt: int = 9) -> tuple[int, str] | None:
    """What another attempt goes on from, on a node that has nothing yet."""
    found = place.trial(0, attempt=attempt).resume()
    return None if found is None or found.state is None else (found.number, (found.state / "state.json").read_text())


def exported(place: Place, report: int) -> str:
    with place.store.open(STUDY, 0, report, "config.json") as file:
        return file.read().decode()


def names(place: Place, kind: str = "") -> list[str]:
    return sorted({name.split("/")[2] for name in place.files() if name.split("/")[2].startswith(kind)})


@pytest.mark.parametrize("late", [3, 4, 5, 6, 7])
def test_who_writes_late_destroys_nothing_newer(place: Place, late: int) -> None:
    first, second = place.trial(0, attempt=1), place.trial(0, attempt=2)
    train(first, late - 1, "first's")
    for report in (5, 6):
        train(second, report, f"second's {report}")
    train(first, late, "too late")
    assert resumed(place) == (6, "second's 6")


def test_what_was_written_late_is_tidied_up_by_who_goes_on(place: Place) -> None:
    first, second = place.trial(0, attempt=1), place.trial(0, attempt=2)
    train(second, 6, "second's")
    train(first, 7, "too late")
    train(second, 7, "second's")
    kept = ["resume-000007-a2"] if isinstance(place, OnDisk) else ["resume-000006-a2", "resume-000007-a2"]
    assert names(place) == kept


def test_who_writes_late_drops_nothing_of_a_state_that_is_on_its_way(place: Place) -> None:
    train(place.trial(0, attempt=2), 6, "second's")
    whole = {name: size for name, size in place.files().items() if "resume-000006-a2" in name}
    for name in [name for name in whole if name.endswith("reports.json")]:
        place.lose(name)
    train(place.trial(0, attempt=1), 5, "too late")
    train(place.trial(0, attempt=1), 7, "too late")
    assert {name for name in whole if not name.endswith("reports.json")} <= place.files().keys()


def test_an_export_that_comes_late_takes_no_others_place(place: Place) -> None:
    first, second = place.trial(0, attempt=1), place.trial(0, attempt=2)
    export(first, 2, "first's")
    export(second, 4, "second's", before=2)
    export(first, 4, "too late", before=2)
    export(first, 5, "too late", before=4)
    assert (exported(place, 4), exported(place, 2)) == ("second's", "first's")


def test_an_export_that_fails_late_leaves_the_others_whole(place: Place) -> None:
    def fails(_: Path) -> None:
        raise OSError("the worker is killed here")

    export(place.trial(0, attempt=2), 4, "second's")
    with pytest.raises(OSError, match="killed"):
        place.trial(0, attempt=1).save_export(4, fails)
    assert exported(place, 4) == "second's"


def test_an_export_of_the_same_report_by_a_later_attempt_is_the_one(place: Place) -> None:
    export(place.trial(0, attempt=1), 2, "first's")
    export(place.trial(0, attempt=2), 2, "second's")
    assert (exported(place, 2), names(place)) == ("second's", ["export-000002-a2"])


def test_what_an_attempt_had_left_midway_counts_until_the_next_one_has_come_further(place: Place) -> None:
    first, second = place.trial(0, attempt=1), place.trial(0, attempt=2)
    train(first, 2, "two")
    train(first, 2, "two and a half", midway=True)
    assert resumed(place) == (2, "two and a half")
    train(second, 3, "three")
    assert resumed(place) == (3, "three")


def test_what_an_earlier_release_left_is_gone_on_from_read_and_tidied_up(place: Place) -> None:
    earlier = place.trial(0, attempt=0)
    train(earlier, 3, "three")
    export(earlier, 1, "one")
    export(earlier, 3, "three", before=1)
    assert names(place) == ["export-000001", "export-000003", "resume-000003"]
    assert (resumed(place), exported(place, 3)) == ((3, "three"), "three")
    now = place.trial(0, attempt=4)
    for report in (4, 5):
        train(now, report, f"now {report}")
    export(now, 4, "now", before=3)
    assert resumed(place) == (5, "now 5")
    assert "resume-000003" not in names(place)
    assert names(place, "export") == ["export-000003", "export-000004-a4"]


def test_a_copy_is_no_attempts_and_gives_way_to_the_first(place: Place) -> None:
    train(place.trial(0, attempt=3), 2, "the parent's")
    assert place.store.fork(STUDY, 0, 5, 2) == 2
    for report in (3, 4):
        train(place.trial(5, attempt=1), report, "the copy's")
    assert not [name for name in place.files() if "/000005/resume-000002" in name]


@pytest.mark.parametrize(
    "name",
    [
        CheckpointName("resume", 3), CheckpointName("resume", 3, 2), CheckpointName("resume", 3, 2, midway=True),
        CheckpointName("export", 12), CheckpointName("export", 12, 10), CheckpointName("resume", 1_234_567, 1),
    ],
)  # fmt: skip
def test_a_name_is_read_as_it_is_written(name: CheckpointName) -> None:
    assert name_of(str(name)) == name
