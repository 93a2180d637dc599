"""How much room a checkpoint needs, and when a study that had none may go on."""

import errno
from pathlib import Path

import pytest

from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.checkpoints.space import MARGIN_BYTES, free_bytes, is_full
from service.domain.errors import NoSpace

STUDY = "intents-abc123"
SIZE = 10 * 1024**2
NEEDED = MARGIN_BYTES + int(1.2 * SIZE)


class Disk:
    """A disk with so much free."""

    def __init__(self, free: int = 10 * MARGIN_BYTES) -> None:
        self.free = free

    def __call__(self, _: Path) -> int:
        return self.free


def write(folder: Path) -> None:
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(SIZE)


def save(root: Path, disk: Disk, trial: int = 0, report: int = 1) -> None:
    TrialFolder(root, STUDY, trial, disk).save_resume([{}] * report, write)


def test_a_state_needs_a_little_more_than_the_last_one_took(tmp_path: Path) -> None:
    disk = Disk()
    save(tmp_path, disk)
    disk.free = NEEDED + 100  # the reports beside it
    save(tmp_path, disk, report=2)
    disk.free = NEEDED - 1
    with pytest.raises(NoSpace, match=r"has 281\.0 MB free, and needs 10 B more: make room there\. The study goes on by itself"):
        save(tmp_path, disk, report=3)


def test_a_trials_first_state_is_as_large_as_another_trials(tmp_path: Path) -> None:
    disk = Disk()
    save(tmp_path, disk)
    disk.free = NEEDED - 1
    with pytest.raises(NoSpace):
        save(tmp_path, disk, trial=1)


def test_an_export_is_measured_by_exports(tmp_path: Path) -> None:
    disk = Disk()
    save(tmp_path, disk)
    disk.free = MARGIN_BYTES
    TrialFolder(tmp_path, STUDY, 0, disk).save_export(1, write)
    with pytest.raises(NoSpace):
        TrialFolder(tmp_path, STUDY, 0, disk).save_export(2, write, before=1)


def test_whatever_fails_on_a_disk_that_has_nothing_left_fails_for_that(tmp_path: Path) -> None:
    disk = Disk()

    def fill(folder: Path) -> None:
        disk.free = 0
        raise RuntimeError(f"cannot write {folder.name}")

    with pytest.raises(NoSpace):
        TrialFolder(tmp_path, STUDY, 0, disk).save_resume([{}], fill)
    disk.free = 10 * MARGIN_BYTES
    with pytest.raises(ZeroDivisionError):
        TrialFolder(tmp_path, STUDY, 0, disk).save_resume([{}], lambda _: divmod(1, 0) and None)


def test_a_study_waits_until_there_is_clearly_more_than_it_needed(tmp_path: Path) -> None:
    disk = Disk()
    store = LocalCheckpointStore(tmp_path, disk)
    save(tmp_path, disk)
    disk.free = 0
    with pytest.raises(NoSpace):
        save(tmp_path, disk, report=2)
    for free, is_enough in ((NEEDED, False), (int(1.4 * NEEDED), False), (int(1.6 * NEEDED), True)):
        disk.free = free
        assert store.has_room(STUDY) is is_enough


def test_a_write_that_filled_the_disk_is_waited_for_with_more_than_it_had(tmp_path: Path) -> None:
    disk = Disk(2 * MARGIN_BYTES)

    def fill(folder: Path) -> None:
        write(folder)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(NoSpace):
        TrialFolder(tmp_path, STUDY, 0, disk).save_resume([{}], fill)
    assert list((tmp_path / STUDY / "000000").iterdir()) == []
    disk.free = int(1.5 * (MARGIN_BYTES + 2 * SIZE))
    assert not LocalCheckpointStore(tmp_path, disk).has_room(STUDY)


def test_a_study_of_which_nothing_is_known_waits_for_a_little_room(tmp_path: Path) -> None:
    disk = Disk(MARGIN_BYTES)
    store = LocalCheckpointStore(tmp_path, disk)
    assert not store.has_room("other-abc123")
    disk.free = 2 * MARGIN_BYTES
    assert store.has_room("other-abc123")
    (tmp_path / STUDY).mkdir()
    (tmp_path / STUDY / ".needed").write_text("{")
    assert store.has_room(STUDY)


def test_the_room_of_a_folder_that_is_not_there_yet_is_that_of_the_one_above(tmp_path: Path) -> None:
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_a_full_disk_is_known_by_what_lies_behind_an_error() -> None:
    behind = RuntimeError("cannot save")
    behind.__cause__ = OSError(errno.EDQUOT, "over quota")
    assert is_full(behind)
    assert not is_full(OSError(errno.EACCES, "not allowed"))
    assert not is_full(None)
