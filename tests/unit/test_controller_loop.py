"""The reconciling loop on memory adapters, with drivers that are only remembered."""

import io
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.catalog.datasets import LocalDatasetStore
from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.controller.allocation import SharingRules
from service.controller.decide import LAUNCHES_WITHOUT_PROGRESS, EndStudy, Launched, PauseStudy
from service.controller.loop import Controller
from service.controller.quotas import ProjectQuotas
from service.controller.retention import kept
from service.controller.room import Capacity
from service.domain.access import Project, Quotas
from service.domain.errors import CheckpointNotFound
from service.domain.history import History
from service.domain.ports import Change, Store
from service.domain.share import Share
from service.domain.stored import Footprint
from service.domain.study import StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, TrialReason, TrialState
from service.domain.waiting import WaitingCause
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study, a_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"


class FakeDrivers:
    """Remembers what was started; a test decides what lives."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.running: dict[str, Launched] = {}

    def launched(self) -> Mapping[str, Launched]:
        return self.running

    def start(self, study_id: str, now: datetime, reports: int) -> None:
        self.started.append(study_id)
        self.running[study_id] = Launched(alive=True, at=now)

    def forget(self, study_id: str) -> None:
        self.running.pop(study_id, None)

    def known(self) -> frozenset[str]:
        return frozenset(self.running)

    def log_tail(self, study_id: str) -> str:
        return "RuntimeError: the cluster is on fire"


def _write_something(folder: Path) -> None:
    (folder / "config.json").write_text("{}")


class House:
    """A controller with all it needs."""

    def __init__(self, root: Path) -> None:
        self.store: Store = memory_store()
        self.drivers = FakeDrivers()
        self.clock = FakeClock(datetime.now(UTC))  # files have the disk's time
        self.root = root
        self.free_bytes = 10**12
        self.checkpoints = LocalCheckpointStore(root / "checkpoints", lambda _: self.free_bytes)
        self.capacity: Capacity | None = Capacity(cpus=2, gpus=0)
        self.controller = self.a_controller()

    def a_controller(self, rules: SharingRules | None = None) -> Controller:
        prepared = self.root / "prepared"
        return Controller(self.store, self.checkpoints, self.clock, self.drivers, lambda: self.capacity, prepared, rules)

    def slots(self) -> Mapping[str, int]:
        return {study_id: share.slots for study_id, share in self.store.shares.all().items()}

    def loses(self, number: int) -> None:
        """A trial's attempt ends, and the trial will go on."""
        assert self.store.leases.acquire(STUDY, "driver-1", NOW, timedelta(hours=1))
        self.store.trials.record("driver-1", [Change(trial=self.store.trials.get(STUDY, number).interrupted())])
        self.store.leases.release(STUDY, "driver-1")

    def with_trial(self, number: int, accuracy: float, reason: TrialReason | None = None, attempt: Attempt | None = None) -> None:
        study = self.store.studies.get(STUDY)
        trial = a_trial(number).started(NOW)
        report = a_report(1, accuracy)
        trial = trial.reported(report, study.definition.objective, 0)
        trial = trial.ended(reason, NOW) if reason else trial
        assert self.store.leases.acquire(STUDY, "driver-1", NOW, timedelta(hours=1))
        self.store.trials.record("driver-1", [Change(trial=trial, report=report, attempt=attempt)])
        self.store.leases.release(STUDY, "driver-1")
        self.writes(number)

    def writes(self, number: int) -> None:
        """What a worker leaves behind at a report."""
        folder = TrialFolder(self.root / "checkpoints", STUDY, number)
        folder.save_export(1, _write_something)
        folder.save_resume([{}], _write_something)

    def ends(self) -> None:
        study = self.store.studies.save(self.store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
        self.store.studies.save(study.ended(NOW))

    def exported(self, number: int) -> bool:
        try:
            self.checkpoints.manifest(STUDY, number, 1)
        except CheckpointNotFound:
            return False
        return True

    def resumable(self, number: int) -> bool:
        return TrialFolder(self.root / "checkpoints", STUDY, number).resume() is not None


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


def test_a_queued_study_gets_a_driver_once(house: House) -> None:
    house.store.studies.add(a_study())
    house.controller.turn()
    house.controller.turn()
    assert house.drivers.started == [STUDY]


def test_a_study_has_its_slots_when_its_driver_starts(house: House) -> None:
    house.store.studies.add(a_study(resources={"max_concurrent_trials": 5}))
    house.controller.turn()
    assert house.store.shares.get(STUDY) == Share(slots=2)


def test_of_two_studies_the_second_gets_its_slot_when_the_first_gives_it_up(house: House) -> None:
    house.store.studies.add(a_study(resources={"max_concurrent_trials": 5}))
    house.controller.turn()
    house.with_trial(0, 0.5)
    house.with_trial(1, 0.5)
    house.store.studies.add(a_study("second-abc123"))
    house.controller.turn()
    assert house.slots() == {STUDY: 1, "second-abc123": 0}
    house.loses(1)
    house.controller.turn()
    assert house.slots() == {STUDY: 1, "second-abc123": 1}


def test_what_nothing_happens_to_is_not_written_again_at_once(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Mapping[str, Share]] = []
    grant = house.store.shares.grant

    def noted(shares: Mapping[str, Share]) -> None:
        written.append(shares)
        grant(shares)

    monkeypatch.setattr(house.store.shares, "grant", noted)
    for number in range(12):
        house.store.studies.add(a_study(f"s{number:02}-abc123"))
    house.controller.turn()
    assert len(written.pop()) == 12
    for _ in range(3):
        house.clock.pass_seconds(0.5)
        house.controller.turn()
    assert sum(len(shares) for shares in written) == 0


def test_a_queued_study_says_what_it_waits_for_and_since_when(house: House) -> None:
    house.controller = house.a_controller(SharingRules(most_running=1))
    for study_id in ("aaa-abc123", "bbb-abc123"):
        house.store.studies.add(a_study(study_id))
    began = house.clock.now()
    for _ in range(2):
        house.controller.turn()
        house.clock.pass_seconds(30)
    share = house.store.shares.get("bbb-abc123")
    assert share is not None
    assert share.waiting is not None
    assert (share.slots, share.waiting.cause, share.waiting.since) == (0, WaitingCause.QUEUE, began)


def test_a_cluster_that_does_not_answer_takes_no_slot_from_a_study_that_runs(house: House) -> None:
    house.store.studies.add(a_study())
    house.controller.turn()
    house.capacity = None
    house.controller.turn()
    assert house.slots() == {STUDY: 1}


def test_a_new_driver_says_anew_what_it_wants(house: House) -> None:
    house.store.studies.add(a_study())
    house.store.shares.want(STUDY, 0)
    house.controller.turn()
    assert house.store.shares.get(STUDY) == Share(slots=1)


def test_a_pausing_study_whose_driver_is_gone_is_paused_and_its_trials_are_queued(house: House) -> None:
    house.store.studies.add(a_study())
    house.controller.turn()
    house.with_trial(0, 0.5, attempt=Attempt(1, 0, 3, NOW))
    running = house.store.studies.save(house.store.studies.get(STUDY).running(NOW))
    house.store.studies.save(running.pausing(StudyReason.PAUSE_REQUESTED, NOW))
    house.drivers.running[STUDY] = Launched(alive=False, at=NOW)
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.PAUSED
    assert house.store.trials.get(STUDY, 0).state is TrialState.QUEUED
    assert [one.outcome for one in house.store.trials.attempts(STUDY, 0)] == [AttemptOutcome.LOST]
    house.controller.turn()
    assert house.store.shares.get(STUDY) is None
    assert house.drivers.known() == frozenset(), "when it is resumed, its launches are counted from the start"


def test_a_study_that_has_ended_has_no_share(house: House) -> None:
    house.store.studies.add(a_study())
    house.controller.turn()
    house.ends()
    house.controller.turn()
    assert house.store.shares.all() == {}


def test_nothing_starts_before_the_capacity_is_known(house: House) -> None:
    house.store.studies.add(a_study())
    house.capacity = None
    house.controller.turn()
    assert house.drivers.started == []


def test_a_cancelled_study_that_never_ran_is_ended_with_its_reason(house: House) -> None:
    house.store.studies.add(a_study())
    house.store.studies.save(house.store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.CANCELLED


def test_the_trials_of_a_stopping_study_without_a_driver_are_ended_too(house: House) -> None:
    house.store.studies.add(a_study())
    house.with_trial(0, 0.5)
    running = house.store.studies.save(house.store.studies.get(STUDY).running(NOW))
    house.store.studies.save(running.stopping(StudyReason.STOP_REQUESTED))
    house.controller.turn()
    assert house.store.trials.get(STUDY, 0).state is TrialState.STOPPED
    assert house.store.studies.get(STUDY).state is StudyState.STOPPED


def test_what_a_driver_ended_or_paused_since_the_controller_looked_is_left_as_it_is(house: House) -> None:
    study = house.store.studies.add(a_study())
    house.ends()
    ended = house.store.studies.get(study.id)
    for command in (EndStudy(study.id), PauseStudy(study.id)):
        house.controller._apply(command)
    assert house.store.studies.get(study.id) == ended
    assert house.store.leases.holders(house.clock.now()) == {}


def test_quotas_of_a_project_hold_within_seconds(house: House) -> None:
    house.store.studies.add(a_study())
    house.store.footprints.set(STUDY, Footprint(2 * 10**9, NOW))
    house.store.projects.set_quotas("default", Quotas(max_stored_gb=1))
    house.controller.turn()
    share = house.store.shares.get(STUDY)
    assert share is not None
    assert share.waiting is not None
    assert (house.drivers.started, share.waiting.cause) == ([], WaitingCause.QUOTA)
    house.store.projects.set_quotas("default", Quotas())
    house.clock.pass_seconds(5)
    house.controller.turn()
    assert house.drivers.started == [STUDY]


def test_uploads_count_towards_a_projects_gigabytes(house: House) -> None:
    datasets = LocalDatasetStore(house.root / "datasets", max_bytes=1000)
    datasets.of("vision").put("a", "b.csv", io.BytesIO(b"text\n" + b"hello\n" * 100), NOW)
    house.store.projects.add(Project("vision", NOW, Quotas(max_stored_gb=500e-9)))
    house.store.projects.set_quotas("default", Quotas(max_stored_gb=500e-9))
    rules = ProjectQuotas(house.store.projects, datasets).rules(NOW)
    assert rules["default"].spent is None
    assert "checkpoints and uploads of project 'vision'" in (rules["vision"].spent or "")


@pytest.mark.parametrize("state", [StudyState.QUEUED, StudyState.RUNNING])
def test_a_study_that_is_given_up_says_what_its_driver_said_last(house: House, state: StudyState) -> None:
    study = house.store.studies.add(a_study())
    if state is StudyState.RUNNING:
        house.store.studies.save(study.running(NOW))
    house.drivers.running[STUDY] = Launched(alive=False, at=NOW, fruitless=LAUNCHES_WITHOUT_PROGRESS)
    house.controller.turn()
    study = house.store.studies.get(STUDY)
    assert (study.state, study.reason) == (StudyState.FAILED, StudyReason.DRIVER_FAILED)
    assert "the cluster is on fire" in (study.detail or "")


@pytest.mark.parametrize("state", [StudyState.QUEUED, StudyState.RUNNING])
def test_a_study_that_has_reports_is_not_given_up_for_good(house: House, state: StudyState) -> None:
    house.store.studies.add(a_study())
    house.with_trial(0, 0.9)
    if state is StudyState.RUNNING:
        house.store.studies.save(house.store.studies.get(STUDY).running(NOW))
    house.drivers.running[STUDY] = Launched(alive=False, at=NOW, fruitless=LAUNCHES_WITHOUT_PROGRESS)
    house.controller.turn()
    study = house.store.studies.get(STUDY)
    assert (study.state, study.reason) == (StudyState.PAUSED, StudyReason.TOO_MANY_FAILURES)
    assert "the cluster is on fire" in (study.detail or "")
    house.controller.turn()
    assert house.drivers.started == []
    house.store.studies.save(study.resumed(house.clock.now()))
    house.controller.turn()
    assert house.drivers.started == [STUDY]


def test_a_deleted_studys_driver_is_forgotten(house: House) -> None:
    house.store.studies.add(a_study())
    house.controller.turn()
    house.ends()
    house.store.studies.delete(STUDY)
    house.controller.turn()
    assert house.drivers.known() == frozenset()


def test_a_study_can_be_ended_while_no_cluster_answers(house: House) -> None:
    house.capacity = None
    study = house.store.studies.add(a_study())
    house.store.studies.save(study.stopping(StudyReason.CANCEL_REQUESTED))
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.CANCELLED


def test_only_the_best_exports_of_ended_trials_are_kept_and_no_state_to_resume_from(house: House) -> None:
    house.store.studies.add(a_study(checkpoints={"keep": 1}))
    for number, accuracy in enumerate([0.5, 0.9, 0.7]):
        house.with_trial(number, accuracy, TrialReason.EPOCHS_DONE)
    house.with_trial(3, 0.1)
    house.controller.turn()
    assert [number for number in range(4) if house.exported(number)] == [1, 3]
    assert [number for number in range(4) if house.resumable(number)] == [3]


def test_of_two_equal_trials_the_earlier_one_is_kept() -> None:
    study = a_study(checkpoints={"keep": 1})
    objective = study.definition.objective
    history = History()
    for number in (0, 1):
        trial = a_trial(number).started(NOW).reported(a_report(1, 0.5), objective, 0).ended(TrialReason.EPOCHS_DONE, NOW)
        history = history.with_trial(trial)
    assert kept(study, history) == {0: 1, 1: None}


def test_the_report_whose_export_is_kept_is_the_trials_best() -> None:
    study = a_study(checkpoints={"keep": 1})
    trial = a_trial(0).started(NOW)
    for number, accuracy in enumerate([0.5, 0.9, 0.7], start=1):
        trial = trial.reported(a_report(number, accuracy), study.definition.objective, 0)
    assert kept(study, History().with_trial(trial)) == {}
    assert kept(study, History().with_trial(trial.ended(TrialReason.EPOCHS_DONE, NOW))) == {0: 2}


def test_a_trial_that_started_after_the_history_was_read_keeps_its_folder(house: House) -> None:
    house.store.studies.add(a_study(checkpoints={"keep": 1}))
    house.with_trial(0, 0.5, TrialReason.EPOCHS_DONE)
    house.writes(1)
    house.controller.turn()
    assert [house.exported(1), house.resumable(1)] == [True, True]


def test_what_a_worker_writes_after_its_study_was_cancelled_is_swept_away(house: House) -> None:
    house.store.studies.add(a_study(checkpoints={"keep": 1}))
    house.with_trial(0, 0.5, TrialReason.EPOCHS_DONE)
    house.with_trial(1, 0.4, TrialReason.CANCEL_REQUESTED)
    house.ends()
    house.controller.turn()
    house.writes(1)
    (house.root / "prepared" / STUDY).mkdir(parents=True)
    house.controller.turn()
    assert house.resumable(1)
    house.clock.pass_seconds(301)
    house.controller.turn()
    assert [house.exported(0), house.exported(1), house.resumable(1)] == [True, False, False]
    assert not (house.root / "prepared" / STUDY).exists()


def test_of_unknown_studies_the_prepared_rows_go_and_the_checkpoints_stay(house: House) -> None:
    house.writes(0)
    (house.root / "prepared" / STUDY).mkdir(parents=True)
    house.clock.pass_seconds(601)
    house.controller.turn()
    assert house.exported(0), "the service may have been pointed at another database"
    assert not (house.root / "prepared" / STUDY).exists()


def test_a_study_that_cannot_be_swept_does_not_keep_the_others_waiting(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    for study_id in ("aaa-abc123", "zzz-abc123"):
        (house.root / "prepared" / study_id).mkdir(parents=True)
    house.clock.pass_seconds(601)
    forget = house.drivers.forget

    def faulty(study_id: str) -> None:
        if study_id.startswith("aaa"):
            raise OSError("the disk is on fire")
        forget(study_id)

    monkeypatch.setattr(house.drivers, "forget", faulty)
    house.controller.turn()
    assert [path.name for path in (house.root / "prepared").iterdir()] == ["aaa-abc123"]


def test_the_folders_of_studies_that_have_not_ended_are_not_swept(house: House) -> None:
    house.store.studies.add(a_study())
    house.with_trial(0, 0.5)
    (house.root / "prepared" / STUDY).mkdir(parents=True)
    for _ in range(3):
        house.controller.turn()
        house.clock.pass_seconds(3600)
    assert [house.exported(0), house.resumable(0)] == [True, True]
    assert (house.root / "prepared" / STUDY).exists()


def test_a_study_that_had_no_room_goes_on_by_itself_once_there_is_some(house: House) -> None:
    house.free_bytes = 0
    study = house.store.studies.add(a_study()).running(NOW)
    house.store.studies.save(house.store.studies.save(study).pausing(StudyReason.NO_SPACE, NOW, "full"))
    house.controller.turn()
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.PAUSED
    house.free_bytes = 10**12
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.QUEUED
    assert house.store.events.after(STUDY, 0)[-1].payload == {"state": "queued", "by": "controller"}


def test_a_study_that_was_paused_for_another_reason_does_not(house: House) -> None:
    house.store.studies.save(house.store.studies.add(a_study()).pausing(StudyReason.PAUSE_REQUESTED, NOW))
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.PAUSED


def test_prepared_rows_go_when_the_study_ends(house: House) -> None:
    house.store.studies.add(a_study())
    (house.root / "prepared" / STUDY).mkdir(parents=True)
    house.controller.turn()
    assert (house.root / "prepared" / STUDY).exists()
    house.store.studies.save(house.store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
    house.drivers.running[STUDY] = Launched(alive=False, at=NOW)
    house.controller.turn()
    house.controller.turn()
    assert not (house.root / "prepared" / STUDY).exists()


def test_pauses_and_resumptions_within_a_moment_do_not_fail_a_study(house: House) -> None:
    study = house.store.studies.add(a_study()).running(NOW)
    launched = house.clock.now()
    house.drivers.running[STUDY] = Launched(alive=False, at=launched, fruitless=LAUNCHES_WITHOUT_PROGRESS)
    paused = study.pausing(StudyReason.PAUSE_REQUESTED, launched).paused(launched)
    house.store.studies.save(paused.resumed(launched + timedelta(seconds=1)))
    house.controller.turn()
    assert house.store.studies.get(STUDY).state is StudyState.QUEUED
    assert house.drivers.started == [STUDY]


def test_a_study_that_finds_no_room_again_and_again_goes_on_for_it_once_a_minute(house: House) -> None:
    study = house.store.studies.add(a_study()).running(NOW)
    moment = house.clock.now()
    paused = study.pausing(StudyReason.NO_SPACE, moment).paused(moment)
    study = house.store.studies.save(paused)
    states = []
    for seconds in (0, 5, 60):
        house.clock.pass_seconds(seconds)
        house.controller.turn()
        study = house.store.studies.get(STUDY)
        states.append(study.state)
        if study.state is StudyState.QUEUED:
            running = study.running(house.clock.now())
            house.store.studies.save(running.pausing(StudyReason.NO_SPACE, moment).paused(house.clock.now()))
            house.drivers.running.clear()
    assert states == [StudyState.QUEUED, StudyState.PAUSED, StudyState.QUEUED]
