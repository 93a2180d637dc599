import hashlib
import io
import json
import math
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, BinaryIO

import h11
import pytest

from service.domain.checkpoint import CheckpointFile, Manifest
from service.domain.decision import Decision
from service.domain.deletion import Forgotten
from service.domain.errors import AnalysisTimedOut, CheckpointNotFound, FileNotInCheckpoint
from service.domain.events import EventKind
from service.domain.ports import Change, MirroredTrial, MirrorStore, Store
from service.domain.stored import NOTHING_FREED, Freed, Stored
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import TrialReason, TrialState
from service.store.memory import memory_store
from service.tracking import records
from service.tracking.analyses import Draw, Pictures, no_pictures
from service.tracking.memory import MemoryTracker, RememberedRun
from service.tracking.mirror import Mirror
from service.tracking.study_analyses import Files, Make, no_files
from service.tracking.tracker import Batch, NewRun, RunStatus, TrackerAway, TrackerRefused
from tests.builders import NOW, a_report, a_study, a_trial
from tests.fakes import FakeClock

ENVIRONMENT = {"python": "3.11.7", "ray": "2.60.0", "git_revision": "0123abc"}
MODEL = {"config.json": b"{}", "model.safetensors": b"weights", "training_args.bin": b"a pickle"}


@dataclass
class FakeExports:
    """One export for each trial named, all with the same files."""

    trials: set[int] = field(default_factory=set)
    deleted: list[str] = field(default_factory=list)
    failure: Exception | None = None
    """What opening a file raises."""
    analyses: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    freed: Freed = NOTHING_FREED

    def studies(self) -> Mapping[str, datetime]:
        raise NotImplementedError

    def manifest(self, study_id: str, trial: int, report: int) -> Manifest:
        if trial not in self.trials:
            raise CheckpointNotFound(f"Trial {trial} has no checkpoint.")
        files = [CheckpointFile(path, len(read), hashlib.sha256(read).hexdigest()) for path, read in MODEL.items()]
        return Manifest(study_id, trial, report, tuple(files))

    def analysis(self, study_id: str, trial: int, report: int) -> Mapping[str, Any]:
        if trial not in self.analyses:
            raise CheckpointNotFound(f"The checkpoint of trial {trial} has no analysis.")
        return {**self.analyses[trial], "report": report}

    def open(self, study_id: str, trial: int, report: int, path: str) -> BinaryIO:
        if self.failure is not None:
            raise self.failure
        return io.BytesIO(MODEL[path])

    def link(self, study_id: str, trial: int, report: int, path: str) -> str | None:
        raise NotImplementedError

    def has_room(self, study_id: str) -> bool:
        return True

    def can_resume(self, study_id: str, trial: int) -> bool:
        raise NotImplementedError

    def fork(self, study_id: str, parent: int, child: int, report: int) -> int:
        raise NotImplementedError

    def stored(self, study_id: str) -> Sequence[Stored]:
        raise NotImplementedError

    def drop(self, study_id: str, stored: Sequence[Stored]) -> None:
        raise NotImplementedError

    def delete(self, study_id: str) -> Freed:
        self.deleted.append(study_id)
        return self.freed


@dataclass
class FaultyTracker(MemoryTracker):
    """Fails as told: `create_run` after the run was made, as when an answer is lost; anything while it is away."""

    def __init__(self) -> None:
        super().__init__()
        self.is_away = False
        self.loses_answers = 0
        self.refuses: str | None = None
        self.refuses_runs: set[str] = set()
        """Names of runs that are not made, or get nothing more."""
        self.takes_new_runs = True
        self.refuses_uploads = False
        self.refuses_searches = False
        self.calls = 0

    def open_experiment(self, study_id: str, tags: Mapping[str, str]) -> str:
        self._count()
        if study_id == self.refuses:
            raise TrackerRefused("It does not like this name.")
        return super().open_experiment(study_id, tags)

    def experiments(self) -> Mapping[str, str]:
        self._count()
        return super().experiments()

    def create_run(self, experiment_id: str, run: NewRun) -> str:
        self._count()
        if run.name in self.refuses_runs and not self.takes_new_runs:
            raise TrackerRefused("It does not like this name.")
        run_id = super().create_run(experiment_id, run)
        if self.loses_answers:
            self.loses_answers -= 1
            raise TrackerAway("The answer did not come.")
        return run_id

    def log(self, run_id: str, batch: Batch) -> None:
        self._count()
        if run_id in self.by_id and self.by_id[run_id].name in self.refuses_runs:
            raise TrackerRefused(f"It does not like what {self.by_id[run_id].name} gets.")
        super().log(run_id, batch)

    def upload(self, run_id: str, path: str, content: BinaryIO, size: int) -> None:
        if self.refuses_uploads:
            raise TrackerRefused("It does not take files.")
        super().upload(run_id, path, content, size)

    def running(self) -> Sequence[tuple[str, int]]:
        if self.refuses_searches:
            raise TrackerRefused("It does not like so many experiments at once.")
        return super().running()

    def _count(self) -> None:
        self.calls += 1
        if self.is_away:
            raise TrackerAway("Nobody is there.")


class World:
    """A store that a driver writes, and what the mirror made of it."""

    def __init__(self) -> None:
        self.store: Store = memory_store()
        self.tracker = FaultyTracker()
        self.exports = FakeExports()
        self.clock = FakeClock()
        self.mirror = self.new_mirror()

    def new_mirror(self, store: Store | None = None, draw: Draw = no_pictures, make: Make = no_files) -> Mirror:
        return Mirror(store or self.store, self.tracker, self.exports, ENVIRONMENT, self.clock, draw, make=make)

    def has_analysed_study(self, trials: int) -> Study:
        """Ended, each trial better than the one before."""
        study = self.has_study()
        for number in range(trials):
            self.starts(study, number)
            self.reports(study, number, [0.5 + number / 10])
            self.ends(study, number)
            self.exports.analyses[number] = {"task": "text-classification", "rows": number}
        self.finishes(study)
        return study

    def has_study_with_a_best(self) -> Study:
        """Ended, its one trial exported."""
        study = self.has_study()
        self.starts(study)
        self.reports(study, 0, [0.5])
        self.ends(study, 0)
        self.exports.trials = {0}
        self.finishes(study)
        return study

    def has_study(self, study_id: str = "intents-abc123", **changes: Any) -> Study:
        study = self.store.studies.add(a_study(study_id, **changes))
        study = self.store.studies.save(study.running(NOW))
        self.store.leases.acquire(study_id, "driver", NOW, timedelta(days=1))
        return study

    def starts(self, study: Study, number: int = 0, learning_rate: float = 1e-3) -> None:
        trial = a_trial(number, study.id, parameters={"learning_rate": learning_rate})
        self.store.trials.record("driver", [Change(trial)])
        self.store.trials.record("driver", [Change(self.store.trials.get(study.id, number).started(NOW))])

    def reports(self, study: Study, number: int, accuracies: Sequence[float]) -> None:
        for accuracy in accuracies:
            trial = self.store.trials.get(study.id, number)
            report = a_report(trial.reports + 1, accuracy)
            change = Change(trial.reported(report, study.definition.objective, gpus=0), report=report)
            self.store.trials.record("driver", [change])

    def ends(self, study: Study, number: int, reason: TrialReason = TrialReason.EPOCHS_DONE, detail: str | None = None) -> None:
        ended = self.store.trials.get(study.id, number).ended(reason, NOW + timedelta(minutes=number + 1), detail)
        self.store.trials.record("driver", [Change(ended)])

    def finishes(self, study: Study, reason: StudyReason = StudyReason.BUDGET_SPENT) -> None:
        stopping = self.store.studies.save(self.store.studies.get(study.id).stopping(reason))
        self.store.studies.save(stopping.ended(NOW + timedelta(hours=1)))

    def run(self, name: str) -> RememberedRun:
        [found] = [run for run in self.tracker.by_id.values() if run.name == name]
        return found


@pytest.fixture
def world() -> World:
    return World()


def test_a_study_becomes_an_experiment_with_a_parent_run_that_tells_its_configuration_and_environment(world: World) -> None:
    study = world.has_study()
    world.mirror.sync_once()
    experiment_id, tags = world.tracker.studies[study.id]
    parent = world.run("intents")
    assert world.store.mirror.experiment(study.id) == experiment_id
    assert "learning_rate" in tags["mlflow.note.content"]
    assert parent.params["batch_size"] == "32"
    assert "learning_rate" not in parent.params
    assert '"low": 1e-05' in parent.params["space.learning_rate"]
    assert (parent.params["strategy.kind"], parent.params["budget.trials"]) == ("random", "4")
    assert (parent.params["checkpoints.keep"], parent.params["requirements.licences"]) == ("5", "[]")
    assert (parent.tags["tuneyard.study"], parent.tags["tuneyard.state"]) == (study.id, "running")
    assert (parent.tags["tuneyard.env.ray"], parent.tags["mlflow.source.git.commit"]) == ("2.60.0", "0123abc")
    assert len(parent.tags["tuneyard.env.sha256"]) == 16


def test_a_trial_becomes_a_child_run_with_its_whole_configuration_and_every_report_at_its_step(world: World) -> None:
    study = world.has_study()
    world.starts(study, 7, learning_rate=0.005)
    world.reports(study, 7, [0.5, 0.75])
    world.mirror.sync_once()
    run = world.run("trial-0007")
    parent_id = world.store.mirror.mirrored(study.id)[-1].run_id
    assert run.tags["mlflow.parentRunId"] == parent_id
    assert run.tags["tuneyard.trial"] == f"{study.id}/7"
    assert (run.tags["tuneyard.attempt"], run.tags["tuneyard.rung"], run.tags["tuneyard.bracket"]) == ("1", "0", "0")
    assert (run.params["learning_rate"], run.params["data.train"]) == ("0.005", "dataset://intents/train.csv")
    assert run.curve("validation/accuracy") == [(1, 0.5), (2, 0.75)]
    assert run.curve("epoch") == [(1, 1.0), (2, 2.0)]
    assert {metric.at for metric in run.metrics if metric.step == 2} == {a_report(2).at}
    assert run.started_at == NOW


def test_many_trials_at_once_get_a_run_each(world: World) -> None:
    study = world.has_study()
    for number in range(60):
        world.starts(study, number)
        world.reports(study, number, [number / 100])
        world.ends(study, number)
    assert world.mirror.sync_once() == 61
    runs = [run for run in world.tracker.by_id.values() if "tuneyard.trial" in run.tags]
    curves = sorted((run.tags["tuneyard.trial"], run.curve("validation/accuracy")) for run in runs)
    assert curves == sorted((f"{study.id}/{number}", [(1, number / 100)]) for number in range(60))
    assert world.store.mirror.behind() == []


def test_a_tracker_that_is_away_is_not_asked_for_each_of_many_trials(world: World) -> None:
    study = world.has_study()
    world.mirror.sync_once()
    for number in range(60):
        world.starts(study, number)
    world.tracker.is_away, before = True, world.tracker.calls
    world.mirror.sync_once()
    assert world.tracker.calls - before < 30


def test_a_pass_with_nothing_new_asks_the_tracker_nothing(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    assert world.mirror.sync_once() == 2
    calls = world.tracker.calls
    assert world.mirror.sync_once() == 0
    assert world.tracker.calls == calls


def test_later_reports_are_added_to_the_same_run(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.mirror.sync_once()
    world.reports(study, 0, [0.6])
    world.mirror.sync_once()
    assert world.run("trial-0000").curve("validation/accuracy") == [(1, 0.5), (2, 0.6)]
    assert len(world.tracker.by_id) == 2


def test_a_copys_run_names_its_parent_and_begins_with_the_report_after_it(world: World) -> None:
    study = world.has_study()
    copy = a_trial(2, study.id, parent=1, parent_report=2, reports=2, until=4)
    world.store.trials.record("driver", [Change(copy)])
    world.reports(study, 2, [0.5])
    world.mirror.sync_once()
    world.reports(study, 2, [0.6])
    world.mirror.sync_once()
    run = world.run("trial-0002")
    assert run.tags["tuneyard.parent"] == "1 at report 2"
    assert run.curve("validation/accuracy") == [(3, 0.5), (4, 0.6)]


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (TrialReason.EPOCHS_DONE, RunStatus.FINISHED),
        (TrialReason.RUNG_CUT, RunStatus.FINISHED),
        (TrialReason.STOP_REQUESTED, RunStatus.KILLED),
        (TrialReason.CANCEL_REQUESTED, RunStatus.KILLED),
        (TrialReason.NO_IMPROVEMENT, RunStatus.FINISHED),
        (TrialReason.OUT_OF_MEMORY, RunStatus.FAILED),
        (TrialReason.DIVERGED, RunStatus.FAILED),
    ],
)
def test_an_ended_trial_ends_its_run_with_its_reason_and_time(world: World, reason: TrialReason, status: RunStatus) -> None:
    study = world.has_study()
    world.starts(study)
    world.mirror.sync_once()
    assert world.run("trial-0000").status is RunStatus.RUNNING
    world.ends(study, 0, reason)
    world.mirror.sync_once()
    run = world.run("trial-0000")
    assert (run.status, run.tags["tuneyard.state"], run.tags["tuneyard.reason"]) == (status, reason.end.value, reason.value)
    assert run.ended_at == NOW + timedelta(minutes=1)


def test_every_state_has_a_status_and_only_ends_are_not_running() -> None:
    states = [*TrialState, *StudyState]
    assert all((records.status_of(state) is RunStatus.RUNNING) == (not state.is_end) for state in states)


def test_the_parent_draws_the_best_value_over_the_trials_in_the_order_in_which_they_ended(world: World) -> None:
    study = world.has_study()
    for number, accuracy in enumerate([0.6, 0.9, 0.7]):
        world.starts(study, number)
        world.reports(study, number, [accuracy])
    world.ends(study, 0)
    world.mirror.sync_once()
    world.ends(study, 1)
    world.ends(study, 2)
    world.mirror.sync_once()
    assert world.run("intents").curve("best/validation/accuracy") == [(1, 0.6), (2, 0.9), (3, 0.9)]


def test_a_run_whose_creation_was_not_answered_is_adopted_and_not_made_twice(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    for _ in range(3):
        world.tracker.loses_answers = 1
        world.mirror.sync_once()
        world.clock.pass_seconds(100)
    world.tracker.loses_answers = 0
    world.mirror.sync_once()
    assert sorted(run.name for run in world.tracker.by_id.values()) == ["intents", "trial-0000"]
    assert world.store.mirror.mirrored(study.id)[0].version == world.store.trials.get(study.id, 0).version


class Forgetful:
    """A mirror store whose process dies before it writes anything down."""

    def __init__(self, inner: MirrorStore) -> None:
        self._inner = inner

    def experiment(self, study_id: str) -> str | None:
        return self._inner.experiment(study_id)

    def experiments(self, study_ids: Collection[str]) -> Mapping[str, str]:
        return self._inner.experiments(study_ids)

    def set_experiment(self, study_id: str, experiment_id: str) -> None:
        """Lost."""

    def mirrored(self, study_id: str) -> Mapping[int, MirroredTrial]:
        return self._inner.mirrored(study_id)

    def set_mirrored(self, entries: Sequence[MirroredTrial]) -> None:
        """Lost."""

    def marks(self) -> Mapping[str, int | None]:
        return self._inner.marks()

    def behind(self, among: Collection[str] | None = None) -> Sequence[str]:
        return self._inner.behind(among)

    def deleted(self) -> Sequence[str]:
        return self._inner.deleted()

    def ahead(self) -> Sequence[MirroredTrial]:
        return self._inner.ahead()

    def set_forgotten(self, study_id: str, forgotten: Forgotten, at: datetime) -> None:
        """Lost."""


def test_a_mirror_that_died_before_it_remembered_anything_doubles_nothing(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.reports(study, 0, [0.5, 0.6])
    world.new_mirror(replace(world.store, mirror=Forgetful(world.store.mirror))).sync_once()
    assert world.store.mirror.mirrored(study.id) == {}
    world.new_mirror().sync_once()
    assert sorted(run.name for run in world.tracker.by_id.values()) == ["intents", "trial-0000"]
    assert len(world.tracker.studies) == 1
    assert world.run("trial-0000").curve("validation/accuracy") == [(1, 0.5), (2, 0.6)]


def test_a_tracker_that_is_away_is_left_alone_for_longer_and_longer_and_then_caught_up_with(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.tracker.is_away = True
    for _ in range(100):
        assert world.mirror.sync_once() == 0
        world.clock.pass_seconds(1)
    assert world.tracker.calls < 12
    world.tracker.is_away = False
    world.clock.pass_seconds(60)
    assert world.mirror.sync_once() == 2


def test_a_study_that_the_tracker_refuses_does_not_hold_up_the_others(world: World) -> None:
    refused = world.has_study("refused-abc123")
    world.has_study("wanted-abc123")
    world.tracker.refuses = refused.id
    assert world.mirror.sync_once() == 1
    assert set(world.tracker.studies) == {"wanted-abc123"}
    calls = world.tracker.calls
    world.mirror.sync_once()
    assert world.tracker.calls == calls
    world.tracker.refuses = None
    world.clock.pass_seconds(2)
    world.mirror.sync_once()
    assert set(world.tracker.studies) == {"refused-abc123", "wanted-abc123"}


@pytest.mark.parametrize("trials", [3, 30])
def test_a_trial_that_the_tracker_refuses_holds_up_neither_the_others_nor_its_study(world: World, trials: int) -> None:
    study = world.has_study()
    for number in range(trials):
        world.starts(study, number)
        world.reports(study, number, [0.5 + number / 100])
        world.ends(study, number)
    world.exports.trials = set(range(trials))
    world.finishes(study)
    world.tracker.refuses_runs = {"trial-0000"}
    world.mirror.sync_once()
    assert {run.name for run in world.tracker.by_id.values() if run.status is RunStatus.RUNNING} == {"trial-0000"}
    assert world.run("intents").tags["tuneyard.reason"] == "budget_spent"
    assert world.tracker.champions[study.id].tags["tuneyard.trial"] == f"{study.id}/{trials - 1}"
    assert world.store.mirror.behind() == [study.id]
    world.tracker.refuses_runs = set()
    world.clock.pass_seconds(2)
    assert world.mirror.sync_once() == 1
    assert world.run("trial-0000").curve("validation/accuracy") == [(1, 0.5)]


def test_a_trial_that_gets_no_run_is_the_champion_once_it_has_one(world: World, caplog: pytest.LogCaptureFixture) -> None:
    study = world.has_study_with_a_best()
    world.tracker.refuses_runs, world.tracker.takes_new_runs = {"trial-0000"}, False
    world.mirror.sync_once()
    assert world.run("intents").status is RunStatus.FINISHED
    assert "Trial 0 has no run yet." in caplog.text
    world.tracker.refuses_runs = set()
    world.clock.pass_seconds(2)
    world.mirror.sync_once()
    assert study.id in world.tracker.champions
    assert world.store.mirror.behind() == []


def test_many_trials_that_are_refused_are_told_of_in_one_line(world: World, caplog: pytest.LogCaptureFixture) -> None:
    study = world.has_study()
    for number in range(4):
        world.starts(study, number)
    world.tracker.refuses_runs = {"trial-0001", "trial-0002"}
    world.mirror.sync_once()
    (line,) = caplog.messages
    assert "It does not like what trial-0001 gets. So it was with 2 trials." in line


STUCK = """
import threading
from tests.unit.test_mirror import FaultyTracker, World


class Stuck(FaultyTracker):
    asked = threading.Semaphore(0)

    def log(self, run_id, batch):
        if self.by_id[run_id].name != "intents":
            self.asked.release()
            threading.Event().wait()
        super().log(run_id, batch)


world = World()
study = world.has_study()
for number in range(60):
    world.starts(study, number)
world.tracker = Stuck()
mirror = world.new_mirror()
threading.Thread(target=mirror.sync_once, daemon=True).start()
assert all(world.tracker.asked.acquire(timeout=60) for _ in range(3)), "three at a time"
print("leaving")
"""


def test_a_mirror_with_much_to_do_keeps_no_process_from_ending() -> None:
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, check=False, timeout=110)
    assert (done.stdout, done.returncode) == ("leaving\n", 0), done.stderr


class Watched(Forgetful):
    """Notes which studies are looked into."""

    def __init__(self, inner: MirrorStore) -> None:
        super().__init__(inner)
        self.looked_into: list[set[str]] = []

    def set_mirrored(self, entries: Sequence[MirroredTrial]) -> None:
        self._inner.set_mirrored(entries)

    def behind(self, among: Collection[str] | None = None) -> Sequence[str]:
        assert among is not None
        self.looked_into.append(set(among))
        return super().behind(among)


def test_only_studies_in_which_something_happened_are_looked_into(world: World) -> None:
    for study_id in ("ended-abc123", "other-abc123"):
        world.finishes(world.has_study(study_id))
    running = world.has_study("running-abc123")
    store = Watched(world.store.mirror)
    mirror = world.new_mirror(replace(world.store, mirror=store))
    for _ in range(3):
        mirror.sync_once()
    everything, once_more, idle = store.looked_into
    assert everything == once_more == {"ended-abc123", "other-abc123", running.id}
    assert idle == {running.id}
    extended = world.store.studies.get("ended-abc123").extended(a_study().definition, NOW + timedelta(hours=2))
    world.store.studies.save(extended)
    mirror.sync_once()
    mirror.sync_once()
    mirror.sync_once()
    assert store.looked_into[3:] == [{"ended-abc123", running.id}, {"ended-abc123", running.id}, {running.id}]


def test_what_changed_without_a_trace_in_its_study_is_found_by_the_next_look_at_all(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.finishes(study)
    world.mirror.sync_once()
    world.mirror.sync_once()
    known = world.store.mirror.mirrored(study.id)
    world.store.mirror.set_mirrored([replace(known[0], version=-1)])
    assert world.mirror.sync_once() == 0
    world.clock.pass_seconds(301)
    assert world.mirror.sync_once() == 1


def kept_in_mind(mirror: Mirror) -> str:
    return str([kept for kept in vars(mirror).values() if isinstance(kept, dict | set)])


def test_a_mirror_keeps_nothing_in_mind_of_a_study_that_was_deleted(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.store.studies.save(world.store.studies.get(study.id).pausing(StudyReason.PAUSE_REQUESTED, NOW))
    paused = world.store.studies.save(world.store.studies.get(study.id).paused(NOW))
    world.store.studies.save(paused.resumed(NOW + timedelta(hours=1)))
    world.mirror.sync_once()
    assert study.id in kept_in_mind(world.mirror)
    world.finishes(study)
    world.store.studies.delete(study.id)
    world.mirror.sync_once()
    assert study.id not in kept_in_mind(world.mirror)


def test_a_tracker_that_does_not_say_what_runs_is_mirrored_into_all_the_same(world: World) -> None:
    world.tracker.refuses_searches = True
    world.has_study()
    assert world.mirror.sync_once() == 1
    assert world.run("intents").status is RunStatus.RUNNING


def test_runs_that_somebody_removed_from_the_tracker_are_mirrored_from_the_start(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.mirror.sync_once()
    world.tracker.forget(study.id, "1")
    world.reports(study, 0, [0.6])
    world.mirror.sync_once()
    world.clock.pass_seconds(2)
    world.mirror.sync_once()
    assert world.run("trial-0000").curve("validation/accuracy") == [(1, 0.5), (2, 0.6)]
    assert world.store.mirror.experiment(study.id) == world.tracker.studies[study.id][0]


def test_a_mirror_that_ends_while_it_mirrors_from_the_start_leaves_the_rest_to_the_next_one(world: World) -> None:
    study = world.has_study()
    for number in range(2):
        world.starts(study, number)
        world.reports(study, number, [0.5])
    world.mirror.sync_once()
    world.tracker.forget(study.id, "1")
    world.reports(study, 0, [0.6])
    world.mirror.sync_once()
    world.clock.pass_seconds(2)
    world.tracker.refuses_runs, world.tracker.takes_new_runs = {"trial-0001"}, False
    world.mirror.sync_once()
    world.tracker.refuses_runs = set()
    later = world.new_mirror()
    for _ in range(2):
        later.sync_once()
        world.clock.pass_seconds(2)
    curves = [world.run(f"trial-000{number}").curve("validation/accuracy") for number in range(2)]
    assert curves == [[(1, 0.5), (2, 0.6)], [(1, 0.5)]]
    assert world.store.mirror.behind() == []


def test_at_a_studys_end_the_best_trials_model_is_registered_once_as_champion(world: World) -> None:
    study = world.has_study()
    for number, accuracy in enumerate([0.6, 0.9]):
        world.starts(study, number)
        world.reports(study, number, [accuracy])
        world.ends(study, number)
    world.exports.trials = {0, 1}
    world.mirror.sync_once()
    assert world.tracker.champions == {}
    world.finishes(study)
    world.mirror.sync_once()
    champion = world.tracker.champions[study.id]
    best = world.run("trial-0001")
    assert world.tracker.by_id[champion.run_id] is best
    assert best.files == {"model/config.json": b"{}", "model/model.safetensors": b"weights"}
    assert champion.tags["tuneyard.trial"] == f"{study.id}/1"
    parent = world.run("intents")
    assert (parent.status, parent.tags["tuneyard.reason"]) == (RunStatus.FINISHED, "budget_spent")
    assert parent.ended_at == NOW + timedelta(hours=1)


def test_a_study_without_an_exported_model_ends_without_a_champion(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.ends(study, 0, TrialReason.TRAINER_ERROR, "no such column: text")
    world.finishes(study, StudyReason.DRIVER_FAILED)
    world.mirror.sync_once()
    assert world.tracker.champions == {}
    assert world.run("intents").status is RunStatus.FAILED
    assert "no such column" in world.run("trial-0000").tags["mlflow.note.content"]
    assert world.store.mirror.behind() == []


@pytest.mark.parametrize(
    "failure",
    [
        CheckpointNotFound("It was replaced."),
        FileNotInCheckpoint("It was replaced."),
        OSError("The disk is gone."),
        h11.LocalProtocolError("Too little data for declared Content-Length"),
    ],
)
def test_a_model_that_cannot_be_registered_holds_up_neither_its_studys_end_nor_the_other_studies(
    world: World, failure: Exception
) -> None:
    study = world.has_study("broken-abc123")
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0)
    world.finishes(study)
    world.exports.trials, world.exports.failure = {0}, failure
    world.store.studies.add(a_study("later-abc123"))
    world.mirror.sync_once()
    experiment_id = world.tracker.studies[study.id][0]
    assert {run.status for run in world.tracker.by_id.values() if run.experiment_id == experiment_id} == {RunStatus.FINISHED}
    assert "later-abc123" in world.tracker.studies
    world.exports.failure = None
    assert world.mirror.sync_once() == 0
    world.clock.pass_seconds(2)
    assert world.mirror.sync_once() == 1
    assert study.id in world.tracker.champions
    assert world.store.mirror.behind() == []


@dataclass
class Drawer:
    """Draws when told; begun drawings wait in `drawings`."""

    drawings: list[Future[Pictures]] = field(default_factory=list)
    begun: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, analysis: Mapping[str, Any]) -> Future[Pictures]:
        self.begun.append(analysis)
        self.drawings.append(Future())
        return self.drawings[-1]


def test_at_a_studys_end_the_kept_trials_analyses_and_pictures_are_put_beside_their_runs(world: World) -> None:
    world.has_analysed_study(trials=7)
    drawer = Drawer()
    mirror = world.new_mirror(draw=drawer)
    for _ in range(11):
        mirror.sync_once()
        if not drawer.drawings[-1].done():
            drawer.drawings[-1].set_result({"confusion.png": b"a picture"})
    assert [analysis["rows"] for analysis in drawer.begun] == [6, 5, 4, 3, 2], "five are kept, the best one first"
    for number in range(7):
        files = world.run(f"trial-000{number}").files
        if number < 2:
            assert files == {}
        else:
            assert files["analysis/confusion.png"] == b"a picture"
            kept = {"task": "text-classification", "rows": number, "report": 1}
            assert json.loads(files["analysis/analysis.json"]) == kept
    assert world.store.mirror.behind() == []


def test_a_picture_that_takes_long_holds_up_neither_the_studys_end_nor_studies_that_run(world: World) -> None:
    world.has_analysed_study(trials=1)
    running = world.has_study("running-abc123")
    drawer = Drawer()
    mirror = world.new_mirror(draw=drawer)
    for accuracy in (0.5, 0.6):
        mirror.sync_once()
        world.starts(running, round(accuracy * 10))
    mirror.sync_once()
    assert len(drawer.begun) == 1
    parents = {run.experiment_id: run.status for run in world.tracker.by_id.values() if run.name == "intents"}
    assert sorted(parents.values()) == [RunStatus.FINISHED, RunStatus.RUNNING]
    assert {"trial-0005", "trial-0006"} <= {run.name for run in world.tracker.by_id.values()}
    assert world.store.mirror.behind() == ["intents-abc123"]
    calls = world.tracker.calls
    mirror.sync_once()
    assert world.tracker.calls == calls, "waiting for a picture asks the tracker nothing"


def test_pictures_that_cannot_be_drawn_leave_the_analysis_alone_beside_its_run(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.has_analysed_study(trials=1)
    drawer = Drawer()
    mirror = world.new_mirror(draw=drawer)
    mirror.sync_once()
    drawer.drawings[0].set_exception(RuntimeError("The pictures were not drawn within 60 s."))
    mirror.sync_once()
    assert list(world.run("trial-0000").files) == ["analysis/analysis.json"]
    assert "not drawn within" in caplog.text
    assert world.store.mirror.behind() == []


def test_a_mirror_that_died_while_it_drew_leaves_the_rest_to_the_next_one(world: World) -> None:
    world.has_analysed_study(trials=2)
    drawer = Drawer()
    dying = world.new_mirror(draw=drawer)
    dying.sync_once()
    drawer.drawings[0].set_result({})
    dying.sync_once()
    assert world.store.mirror.behind() == ["intents-abc123"]
    later = world.new_mirror()
    assert [later.sync_once(), later.sync_once(), later.sync_once()] == [0, 1, 0]
    for name in ("trial-0000", "trial-0001"):
        assert list(world.run(name).files) == ["analysis/analysis.json"]
    assert len(world.tracker.by_id) == 3


def test_an_analysis_that_could_not_be_uploaded_is_tried_again_without_being_drawn_again(world: World) -> None:
    world.has_analysed_study(trials=1)
    drawer = Drawer()
    mirror = world.new_mirror(draw=drawer)
    mirror.sync_once()
    drawer.drawings[0].set_result({})
    world.tracker.refuses_uploads = True
    mirror.sync_once()
    world.clock.pass_seconds(2)
    world.tracker.refuses_uploads = False
    assert mirror.sync_once() == 1
    assert len(drawer.begun) == 1
    assert list(world.run("trial-0000").files) == ["analysis/analysis.json"]


def test_a_study_whose_runs_were_removed_while_it_was_drawn_is_analysed_from_the_start(world: World) -> None:
    study = world.has_analysed_study(trials=1)
    drawer = Drawer()
    mirror = world.new_mirror(draw=drawer)
    mirror.sync_once()
    world.tracker.forget(study.id, "1")
    drawer.drawings[0].set_result({})
    mirror.sync_once()
    world.clock.pass_seconds(2)
    mirror.sync_once()
    drawer.drawings[1].set_result({})
    mirror.sync_once()
    assert list(world.run("trial-0000").files) == ["analysis/analysis.json"]
    assert world.store.mirror.behind() == []


@dataclass
class Maker:
    """Analyses studies when told; what was begun waits in `makings`."""

    makings: list[Future[Files]] = field(default_factory=list)

    def __call__(self, study_id: str) -> Future[Files]:
        self.makings.append(Future())
        return self.makings[-1]

    def finish(self, text: str = "learned") -> None:
        self.makings[-1].set_result({"analysis.json": text.encode(), "slices.png": b"a picture"})


def has_ended_trials(world: World, study: Study, numbers: Sequence[int]) -> None:
    for number in numbers:
        world.starts(study, number)
        world.reports(study, number, [0.5])
        world.ends(study, number)


def test_what_a_study_has_learned_is_put_beside_its_own_run_when_it_ends(world: World) -> None:
    study = world.has_study()
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    world.finishes(study)
    assert mirror.sync_once() == 0
    assert world.run("intents").status is RunStatus.FINISHED, "the run does not wait for it"
    assert world.store.mirror.behind() == [study.id]
    maker.finish()
    assert mirror.sync_once() == 1
    assert world.run("intents").files == {"analysis/analysis.json": b"learned", "analysis/slices.png": b"a picture"}
    assert world.store.mirror.behind() == []
    assert mirror.sync_once() == 0
    assert len(maker.makings) == 1


def test_a_study_that_runs_is_analysed_from_its_first_ended_trial_on(world: World) -> None:
    study = world.has_study()
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    world.starts(study, 0)
    mirror.sync_once()
    assert maker.makings == []
    world.reports(study, 0, [0.5])
    world.ends(study, 0)
    mirror.sync_once()
    assert world.store.mirror.behind() == [], "what is being made holds nothing up"
    maker.finish()
    mirror.sync_once()
    assert world.run("intents").files["analysis/analysis.json"] == b"learned"


@pytest.mark.parametrize(("seconds", "trials", "made"), [(59, 1, 1), (60, 0, 1), (60, 1, 2), (10, 25, 2), (9, 25, 1)])
def test_a_study_that_runs_is_analysed_again_after_a_minute_or_many_trials_and_not_without_news(
    world: World, seconds: float, trials: int, made: int
) -> None:
    study = world.has_study()
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    has_ended_trials(world, study, [0])
    mirror.sync_once()
    maker.finish()
    mirror.sync_once()
    world.clock.pass_seconds(seconds)
    has_ended_trials(world, study, range(1, 1 + trials))
    world.starts(study, 99)
    mirror.sync_once()
    assert len(maker.makings) == made


def test_an_analysis_that_was_begun_before_the_end_is_made_again_after_it(world: World) -> None:
    study = world.has_study()
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    has_ended_trials(world, study, [0])
    mirror.sync_once()
    world.finishes(study)
    mirror.sync_once()
    assert len(maker.makings) == 1, "one at a time"
    maker.finish("so far")
    mirror.sync_once()
    maker.finish("in the end")
    mirror.sync_once()
    assert world.run("intents").files["analysis/analysis.json"] == b"in the end"
    assert world.store.mirror.behind() == []


def test_a_study_that_cannot_be_analysed_ends_without_and_the_log_says_why(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.finishes(world.has_study())
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    mirror.sync_once()
    maker.makings[0].set_exception(AnalysisTimedOut("Drawing the figures was not done within 60 s."))
    mirror.sync_once()
    assert world.run("intents").files == {}
    assert "not done within 60 s" in caplog.text
    assert world.store.mirror.behind() == []


def test_a_refused_upload_of_what_is_learned_so_far_holds_up_no_metrics(world: World, caplog: pytest.LogCaptureFixture) -> None:
    study = world.has_study()
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    has_ended_trials(world, study, [0])
    mirror.sync_once()
    maker.finish()
    world.tracker.refuses_uploads = True
    has_ended_trials(world, study, [1])
    mirror.sync_once()
    assert "is not uploaded" in caplog.text
    assert world.run("trial-0001").status is RunStatus.FINISHED
    assert world.store.mirror.behind() == []


def test_a_refused_upload_of_what_was_learned_in_the_end_is_tried_again_without_being_made_again(world: World) -> None:
    world.finishes(world.has_study())
    maker = Maker()
    mirror = world.new_mirror(make=maker)
    mirror.sync_once()
    maker.finish()
    world.tracker.refuses_uploads = True
    mirror.sync_once()
    assert world.run("intents").files == {}
    world.tracker.refuses_uploads = False
    world.clock.pass_seconds(2)
    assert mirror.sync_once() == 1
    assert len(maker.makings) == 1
    assert "analysis/slices.png" in world.run("intents").files


def test_a_deleted_studys_experiment_and_model_are_deleted_within_a_minute(world: World) -> None:
    study = world.has_study()
    world.has_study("kept-abc123")
    world.finishes(study, StudyReason.CANCEL_REQUESTED)
    world.mirror.sync_once()
    world.store.studies.delete(study.id)
    world.clock.pass_seconds(61)
    world.mirror.sync_once()
    assert set(world.tracker.studies) == {"kept-abc123"}
    assert world.exports.deleted == [study.id], "a crash may have spared its checkpoints"
    assert world.store.mirror.deleted() == []


def test_what_the_tracker_had_of_a_deleted_study_and_what_a_crash_spared_is_written_down(world: World) -> None:
    study = world.has_study_with_a_best()
    world.mirror.sync_once()
    experiment = world.store.mirror.experiment(study.id)
    world.store.studies.delete(study.id)
    world.exports.freed = Freed(2, 30)
    world.mirror.sync_once()
    (deletion,) = world.store.deletions.recent()
    assert deletion.forgotten == Forgotten(experiment, runs=2, registered_model=True)
    assert deletion.checkpoints == Freed(2, 30)


def told_of_repairs(world: World, study: Study) -> list[tuple[str, str]]:
    events = world.store.events.after(study.id, 0)
    return [(one.payload["what"], one.payload["detail"]) for one in events if one.kind is EventKind.STUDY_REPAIRED]


def test_a_run_that_stands_as_running_though_its_trial_has_ended_is_ended_by_the_next_look(world: World) -> None:
    study = world.has_study()
    for number in range(2):
        world.starts(study, number)
        world.reports(study, number, [0.5])
    world.ends(study, 0)
    world.mirror.sync_once()
    world.run("trial-0000").status = RunStatus.RUNNING  # as after a return to a backup of the tracker
    world.mirror.sync_once()
    assert world.run("trial-0000").status is RunStatus.RUNNING
    world.clock.pass_seconds(301)
    world.mirror.sync_once()
    assert [world.run(f"trial-000{number}").status for number in range(2)] == [RunStatus.FINISHED, RunStatus.RUNNING]
    (told,) = told_of_repairs(world, study)
    assert told == ("runs", "MLflow had runs as running whose trials have ended: trial 0. They are written again.")
    assert world.run("trial-0000").curve("validation/accuracy") == [(1, 0.5)]


def test_a_study_whose_run_stands_as_running_though_it_has_ended_is_ended_again(world: World) -> None:
    study = world.has_study()
    world.finishes(study, StudyReason.CANCEL_REQUESTED)
    world.mirror.sync_once()
    world.run("intents").status = RunStatus.RUNNING
    world.new_mirror().sync_once()
    assert world.run("intents").status is RunStatus.KILLED


def test_what_the_mirror_thinks_beyond_the_store_is_written_again(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.mirror.sync_once()
    seen = world.store.mirror.mirrored(study.id)
    world.store.mirror.set_mirrored([replace(seen[0], version=99, reports=7)])  # as after a return to a backup of the store
    world.reports(study, 0, [0.6])
    world.new_mirror().sync_once()
    trial = world.store.trials.get(study.id, 0)
    assert world.store.mirror.mirrored(study.id)[0] == replace(seen[0], version=trial.version, reports=2)
    assert world.run("trial-0000").curve("validation/accuracy") == [(1, 0.5), (2, 0.6)]
    assert [what for what, _ in told_of_repairs(world, study)] == ["mirror"]


def test_a_look_that_finds_nothing_tells_nothing(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    for _ in range(3):
        world.mirror.sync_once()
        world.clock.pass_seconds(301)
    assert told_of_repairs(world, study) == []


def test_a_mirror_of_another_store_or_of_an_older_backup_deletes_nothing(world: World) -> None:
    world.has_study()
    world.mirror.sync_once()
    other = memory_store()
    other.studies.add(a_study("other-abc123"))
    for _ in range(3):
        world.clock.pass_seconds(100)
        world.new_mirror(other).sync_once()
    assert set(world.tracker.studies) == {"intents-abc123", "other-abc123"}


def test_a_study_that_was_deleted_while_the_tracker_was_away_is_forgotten_by_the_next_mirror(world: World) -> None:
    study = world.has_study()
    world.finishes(study, StudyReason.CANCEL_REQUESTED)
    world.mirror.sync_once()
    world.store.studies.delete(study.id)
    world.tracker.is_away = True
    world.mirror.sync_once()
    assert set(world.tracker.studies) == {study.id}
    world.tracker.is_away = False
    world.new_mirror().sync_once()
    assert world.tracker.studies == {}


def test_a_deleted_study_that_the_tracker_never_had_is_asked_for_once(world: World) -> None:
    study = world.has_study()
    world.finishes(study, StudyReason.CANCEL_REQUESTED)
    world.store.studies.delete(study.id)
    world.mirror.sync_once()
    calls = world.tracker.calls
    world.mirror.sync_once()
    assert (world.store.mirror.deleted(), world.tracker.calls) == ([], calls)


def test_values_are_cut_to_what_the_tracker_takes(world: World) -> None:
    study, trial = a_study(), a_trial(detail="x" * 10_000)
    batch = records.trial_batch(study, trial, [a_report(metrics={"validation/accuracy": math.nan})], is_new=True)
    assert max(map(len, batch.tags.values())) <= 5000
    long = a_study(trainer={**a_study().definition.trainer.model_dump(mode="json"), "model": "m" * 300})
    assert max(map(len, records.study_batch(long, ENVIRONMENT, [], is_new=True).params.values())) <= 500


def test_the_parents_params_say_what_trials_must_keep_what_the_study_knew_and_what_it_trains_again() -> None:
    study = a_study(constraints=["learning_rate < 0.5"], warm_start=["old-abc123", "older-abc123"], final={"top": 2, "seeds": 4})
    params = records.study_batch(study, ENVIRONMENT, [], is_new=True).params
    assert params["constraints.0"] == "learning_rate < 0.5"
    assert (params["warm_start.0"], params["warm_start.1"]) == ("old-abc123", "older-abc123")
    assert (params["final.top"], params["final.seeds"]) == ("2", "4")
    limited = records.study_batch(a_study(outcomes=["validation/loss <= 0.4"]), ENVIRONMENT, [], is_new=True).params
    assert limited["outcomes.0"] == "validation/loss <= 0.4"
    plain = records.study_batch(a_study(), ENVIRONMENT, [], is_new=True).params
    assert not [name for name in plain if name.partition(".")[0] in ("constraints", "outcomes", "warm_start", "final")]


def test_a_trial_whose_parameters_make_no_configuration_is_told_with_them() -> None:
    batch = records.trial_batch(a_study(), a_trial(parameters={"learning_rate": -1.0}), [], is_new=True)
    assert batch.params == {"learning_rate": "-1.0"}


def test_a_trials_run_says_why_it_was_proposed_promoted_and_cut(world: World) -> None:
    world.has_study()
    proposed = Decision("proposed", "tpe", observations=12)
    promoted = [Decision("promoted", "hyperband", report=report, rung=report, value=0.5, rank=1, among=3) for report in (1, 2)]
    cut = Decision("cut", "hyperband", report=3, value=0.5, rank=2, among=2, cut=0.6)
    world.store.trials.record("driver", [Change(a_trial(), decision=proposed)])
    world.mirror.sync_once()
    tags = world.run("trial-0000").tags
    assert (tags["tuneyard.proposed_by"], tags["tuneyard.why_proposed"]) == ("tpe", proposed.sentence)
    assert not {"tuneyard.why_promoted", "tuneyard.why_ended"} & set(tags)
    world.store.trials.record("driver", [Change(a_trial(), decision=decision) for decision in (*promoted, cut)])
    world.mirror.sync_once()
    tags = world.run("trial-0000").tags
    assert tags["tuneyard.why_promoted"] == f"{promoted[0].sentence} {promoted[1].sentence}"
    assert (tags["tuneyard.why_ended"], tags["tuneyard.why_proposed"]) == (cut.sentence, proposed.sentence)


def test_the_parent_says_what_leads_the_study(world: World) -> None:
    world.has_study()
    world.mirror.sync_once()
    assert world.run("intents").tags["tuneyard.plan"] == "`random`, as the definition says."
    chosen = a_study(strategy={"kind": "auto"})
    tags = records.study_batch(chosen, ENVIRONMENT, [], is_new=True).tags
    assert tags["tuneyard.plan"] == chosen.definition.plan.reason


def test_the_runs_on_the_front_of_several_objectives_are_tagged_once_the_study_has_ended(world: World) -> None:
    study = world.has_study(
        objectives=[
            {"metric": "validation/accuracy", "direction": "maximize"},
            {"metric": "train/loss", "direction": "minimize"},
        ]
    )
    for number, accuracy in enumerate([0.5, 0.9]):
        world.starts(study, number)
        world.reports(study, number, [accuracy])
        world.ends(study, number)
    world.exports.trials = {0, 1}
    world.mirror.sync_once()
    assert "tuneyard.pareto" not in world.run("trial-0001").tags
    world.finishes(study)
    world.mirror.sync_once()
    assert world.run("trial-0001").tags["tuneyard.pareto"] == "true"
    assert "tuneyard.pareto" not in world.run("trial-0000").tags
    assert world.tracker.champions == {}
