"""What the controller deletes from the disk and what it tells of it, on memory adapters and a real folder."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.controller.housekeeping import Housekeeping
from service.domain.errors import StorageAway
from service.domain.events import EventKind
from service.domain.history import History
from service.domain.ports import Change, Store, TrialStore
from service.domain.stored import Footprint, Stored, StoredKind
from service.domain.study import StudyReason
from service.domain.trial import TrialReason
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study, a_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"
SIZE = 100_000


class CountedTrials:
    """Trials whose whole history was read so many times."""

    def __init__(self, trials: TrialStore) -> None:
        self._trials = trials
        self.reads = 0

    def history(self, study_id: str) -> History:
        self.reads += 1
        return self._trials.history(study_id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trials, name)


class _Late:
    """Checkpoints as they were when they were listed."""

    def __init__(self, checkpoints: LocalCheckpointStore, stored: Sequence[Stored]) -> None:
        self._checkpoints = checkpoints
        self._stored = stored

    def stored(self, _: str) -> Sequence[Stored]:
        return self._stored

    def __getattr__(self, name: str) -> Any:
        return getattr(self._checkpoints, name)


class House:
    """A study whose trials leave checkpoints of `SIZE` bytes behind, and who tidies up."""

    def __init__(self, root: Path, gigabytes: float | None = None, keep: int = 5) -> None:
        self.clock = FakeClock(datetime.now(UTC))  # files have the disk's time
        store = memory_store(self.clock)
        self.trials = CountedTrials(store.trials)
        counted: Any = self.trials
        self.store: Store = replace(store, trials=counted)
        self.root = root / "checkpoints"
        self.checkpoints = LocalCheckpointStore(self.root)
        self.forgotten: list[str] = []
        self.keeper = Housekeeping(self.store, self.checkpoints, self.clock, root / "prepared", self.forgotten.append)
        study = self.store.studies.add(a_study(checkpoints={"keep": keep, "max_total_gb": gigabytes}))
        self.store.studies.save(study.running(self.clock.now()))
        assert self.store.leases.acquire(STUDY, "driver-1-1", NOW, timedelta(days=10_000))

    def trains(self, number: int, accuracy: float, reason: TrialReason | None = None) -> None:
        """One report of a new trial, and the end of it."""
        trial, report = a_trial(number).started(NOW), a_report(1, accuracy)
        trial = trial.reported(report, a_study().definition.objective, 0)
        self.store.trials.record("driver-1-1", [Change(trial.ended(reason, NOW) if reason else trial, report)])
        folder = TrialFolder(self.root, STUDY, number)
        folder.save_export(1, lambda to: _write(to / "model.safetensors"))
        folder.save_resume([{}], lambda to: _write(to / "state.pt"))

    def ends(self, number: int, reason: TrialReason = TrialReason.EPOCHS_DONE) -> None:
        ended = self.store.trials.get(STUDY, number).ended(reason, NOW)
        self.store.trials.record("driver-1-1", [Change(ended)])

    def tidies(self, seconds: float = 20) -> None:
        self.clock.pass_seconds(seconds)
        self.keeper.tidy(STUDY, self.store.studies.get(STUDY))

    def lists(self, stored: Sequence[Stored]) -> None:
        """The next listing is as old as this one."""
        late: Any = _Late(self.checkpoints, stored)
        self.keeper = Housekeeping(self.store, late, self.clock, self.root.parent / "prepared", self.forgotten.append)

    def left(self) -> list[tuple[int, str]]:
        return [(one.trial, one.kind.value) for one in self.checkpoints.stored(STUDY)]

    def told(self, kind: EventKind) -> list[dict[str, Any]]:
        return [dict(event.payload) for event in self.store.events.after(STUDY, 0) if event.kind is kind]

    def footprint(self) -> Footprint | None:
        return self.store.footprints.of([STUDY]).get(STUDY)


def _write(path: Path) -> None:
    path.write_bytes(bytes(SIZE))


@pytest.fixture
def house(tmp_path: Path) -> Callable[..., House]:
    return lambda **rules: House(tmp_path, **rules)


def test_each_deletion_is_told_with_what_it_was_and_why(house: Callable[..., House]) -> None:
    here = house(keep=1)
    here.trains(0, 0.5, TrialReason.EPOCHS_DONE)
    here.trains(1, 0.9, TrialReason.EPOCHS_DONE)
    here.tidies()
    told = here.told(EventKind.CHECKPOINT_DELETED)
    assert [(one["trial"], one["kind"], one["report"], one["because"]) for one in told] == [
        (0, "export", 1, "not_kept"), (0, "resume", 1, "ended"), (1, "resume", 1, "ended"),
    ]  # fmt: skip
    assert all(SIZE < one["bytes"] < SIZE + 1_000 for one in told)
    assert here.left() == [(1, "export")]
    here.tidies()
    assert here.told(EventKind.CHECKPOINT_DELETED) == told


def test_a_long_history_is_not_read_again_for_each_trial_that_ends(house: Callable[..., House]) -> None:
    here = house()
    for number in range(200):
        here.store.trials.record("driver-1-1", [Change(a_trial(number).ended(TrialReason.TRAINER_ERROR, NOW))])
    here.tidies()
    before = here.trials.reads
    for number in range(200, 203):
        here.trains(number, 0.5, TrialReason.EPOCHS_DONE)
        here.tidies(seconds=0.5)
    assert here.trials.reads == before + 1
    here.trains(203, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies(seconds=5)
    assert here.trials.reads == before + 2


def test_the_study_knows_what_its_checkpoints_take(house: Callable[..., House]) -> None:
    here = house()
    here.tidies()
    here.trains(0, 0.5)
    here.tidies()
    footprint = here.footprint()
    assert footprint is not None
    assert footprint.bytes == sum(one.bytes for one in here.checkpoints.stored(STUDY)) > 2 * SIZE
    assert (footprint.detail, footprint.missing) == (None, ())


def test_the_budget_is_kept_while_trials_train_and_the_history_is_only_read_where_it_is_not(house: Callable[..., House]) -> None:
    here = house(gigabytes=(4.5 * SIZE + 2_000) / 1e9)
    for number in range(2):
        here.trains(number, 0.5 + number / 10, TrialReason.TARGET_REACHED)
    here.tidies()
    assert len(here.left()) == 4
    reads = here.trials.reads
    here.tidies(3)
    assert here.trials.reads == reads
    here.trains(2, 0.1)  # it runs on, and will write another checkpoint
    here.tidies(3)
    assert here.left() == [(1, "export"), (2, "export"), (2, "resume")]
    assert {one["because"] for one in here.told(EventKind.CHECKPOINT_DELETED)} == {"budget"}


def test_a_study_that_needs_more_than_its_budget_goes_on_and_says_so_once(house: Callable[..., House]) -> None:
    here = house(gigabytes=1e-6)
    here.trains(0, 0.5)
    for _ in range(3):
        here.tidies()
    (told,) = here.told(EventKind.CHECKPOINT_BUDGET)
    footprint = here.footprint()
    assert footprint is not None
    assert footprint.detail == told["detail"]
    assert "max_total_gb" in told["detail"]
    assert (told["bytes"] > 2 * SIZE, told["max_bytes"]) == (True, 1_000)
    assert here.left() == [(0, "export"), (0, "resume")]
    here.ends(0)
    here.tidies()
    assert here.left() == [(0, "export")], "the best one stays"


def test_the_warning_goes_when_there_is_room_again_and_comes_back_with_the_need(house: Callable[..., House]) -> None:
    here = house(gigabytes=(1.5 * SIZE) / 1e9)
    here.trains(0, 0.5)
    here.tidies()
    here.ends(0)
    here.tidies()
    footprint = here.footprint()
    assert footprint is not None
    assert footprint.detail is None
    here.trains(1, 0.4)
    here.tidies()
    assert len(here.told(EventKind.CHECKPOINT_BUDGET)) == 2


def test_a_model_that_is_gone_from_the_disk_is_told_once(house: Callable[..., House]) -> None:
    here = house()
    here.trains(0, 0.9, TrialReason.EPOCHS_DONE)
    here.checkpoints.drop(STUDY, [one for one in here.checkpoints.stored(STUDY) if one.kind is StoredKind.EXPORT])
    here.tidies()
    here.trains(1, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies()
    (told,) = here.told(EventKind.STUDY_REPAIRED)
    assert told["what"] == "export"
    assert "trial 0" in told["detail"]
    footprint = here.footprint()
    assert footprint is not None
    assert footprint.missing == (0,)


def test_what_a_killed_writer_left_of_a_paused_trial_goes_after_a_while(house: Callable[..., House]) -> None:
    here = house()
    here.trains(0, 0.5)
    here.store.trials.record("driver-1-1", [Change(here.store.trials.get(STUDY, 0).paused())])
    (here.root / STUDY / "000000" / ".resume-000002.99").mkdir()
    here.trains(1, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies()
    assert (0, "unfinished") in here.left()
    here.clock.pass_seconds(601)
    here.trains(2, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies()
    assert (0, "unfinished") not in here.left()


def test_a_folder_of_a_trial_that_the_store_does_not_know_goes_after_a_while(house: Callable[..., House]) -> None:
    here = house()
    TrialFolder(here.root, STUDY, 9).save_resume([{}], None)
    here.trains(0, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies()
    assert (9, "resume") in here.left()
    here.clock.pass_seconds(601)
    here.trains(1, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies()
    assert here.left() == [(0, "export"), (1, "export")]


def test_a_study_that_has_ended_is_tidied_whole_and_forgotten(house: Callable[..., House]) -> None:
    here = house()
    here.trains(0, 0.5, TrialReason.TARGET_REACHED)
    study = here.store.studies.save(here.store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
    here.store.studies.save(study.ended(NOW))
    here.tidies()
    assert here.left() == [(0, "export")]
    assert here.forgotten == [STUDY]


def test_nothing_is_told_of_a_look_that_found_nothing_new(house: Callable[..., House]) -> None:
    here = house(gigabytes=1.0)
    here.trains(0, 0.5, TrialReason.EPOCHS_DONE)
    here.tidies()
    before, events = here.footprint(), _all(here)
    for _ in range(5):
        here.tidies()
    assert (here.footprint(), _all(here)) == (before, events)


def _all(here: House) -> Sequence[Any]:
    return here.store.events.after(STUDY, 0)


def test_a_model_that_was_exported_since_the_listing_is_not_missing(house: Callable[..., House]) -> None:
    here = house()
    here.trains(0, 0.5)
    before = here.checkpoints.stored(STUDY)
    trial, report = here.store.trials.get(STUDY, 0), a_report(2, 0.9)
    better = trial.reported(report, a_study().definition.objective, 0).ended(TrialReason.EPOCHS_DONE, NOW)
    here.store.trials.record("driver-1-1", [Change(better, report)])
    TrialFolder(here.root, STUDY, 0).save_export(2, lambda to: _write(to / "model.safetensors"), before=1)
    here.lists(before)
    here.tidies()
    assert here.told(EventKind.STUDY_REPAIRED) == []
    assert here.checkpoints.manifest(STUDY, 0, 2)


def test_a_storage_that_is_away_is_left_alone_for_a_while_and_then_tidied(house: Callable[..., House]) -> None:
    class Away:
        asked = 0

        def stored(self, study_id: str) -> Sequence[Stored]:
            self.asked += 1
            raise StorageAway("s3://models", "no answer", "nobody listens")

        def studies(self) -> Any:
            return self.stored("")

    here, away = house(keep=1), Away()
    here.trains(0, 0.5, TrialReason.EPOCHS_DONE)
    store: Any = away
    here.keeper = Housekeeping(here.store, store, here.clock, here.root.parent / "prepared", here.forgotten.append)
    for _ in range(3):
        here.tidies(seconds=4)
    here.keeper.sweep(here.clock.now(), lambda *_: None)
    assert away.asked == 2, "once for the study, once for what is left behind"
    store.stored = here.checkpoints.stored
    store.drop = here.checkpoints.drop
    here.tidies(seconds=20)
    assert here.left() == [(0, "export")]
