"""What differs between what runs and what the store says, and what is done about it."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from service.controller.drivers import driver_arguments
from service.controller.reconcile import (
    DeadLease,
    Finding,
    Graces,
    OpenAttempts,
    Processes,
    StrayDriver,
    StrayWorker,
    Surveyed,
    due,
    findings,
)
from service.controller.repairs import Reconciler
from service.controller.survey import driven_by
from service.domain.events import EventKind
from service.domain.leadership import driver_name
from service.domain.ports import Change, Store
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, TrialState
from service.store.memory import memory_store
from tests.builders import NOW, a_study, a_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"
HOME = "host-a1b2c3"
OWNER = driver_name(HOME, 4711, 99)
RUNNING = a_study().running(NOW)


def seen(
    study: Study | None = RUNNING,
    *,
    owner: str | None = None,
    dead: int | None = None,
    has_running: bool = False,
    drivers: Mapping[int, str] | None = None,
    workers: tuple[int, ...] = (),
) -> Surveyed:
    return Surveyed(
        studies={} if study is None else {study.id: study},
        leases={} if owner is None else {STUDY: owner},
        dead={} if dead is None else {STUDY: dead},
        running=[STUDY] if has_running else [],
        processes=Processes(drivers or {}, workers),
        home=HOME,
    )


def test_a_lease_is_dead_when_its_very_owner_is() -> None:
    assert findings(seen(owner=OWNER, dead=4711)) == [DeadLease(STUDY, OWNER)]
    assert findings(seen(owner=OWNER, dead=471)) == [], "a later one"
    assert findings(seen(owner=driver_name("host-d4e5f6", 4711, 99), dead=4711)) == [], "a driver on another machine"
    assert findings(seen(owner=OWNER)) == []
    assert findings(seen(dead=4711)) == []
    assert findings(seen(owner="controller", dead=4711)) == []


def test_trials_that_stand_as_running_are_open_when_nobody_drives_their_study() -> None:
    assert findings(seen(has_running=True)) == [OpenAttempts(STUDY)]
    assert findings(seen(has_running=True, owner=OWNER)) == []
    assert findings(seen(has_running=True, drivers={4712: STUDY})) == [], "it starts, and has no lease yet"
    assert findings(seen(has_running=True, owner=OWNER, dead=4711)) == [DeadLease(STUDY, OWNER), OpenAttempts(STUDY)]


@pytest.mark.parametrize("state", StudyState)
def test_a_driver_is_stray_when_its_study_is_over_paused_or_gone(state: StudyState) -> None:
    is_stray = state.is_end or state is StudyState.PAUSED
    study = None if state.is_end else replace(RUNNING, state=state)  # those that have ended are not looked at
    assert findings(seen(study, drivers={4711: STUDY})) == ([StrayDriver(STUDY, 4711)] if is_stray else [])


def test_workers_are_stray_when_no_driver_lives() -> None:
    assert findings(seen(workers=(5, 6))) == [StrayWorker(5), StrayWorker(6)]
    assert findings(seen(workers=(5, 6), drivers={4711: STUDY})) == []
    assert findings(seen(workers=(5, 6), owner=driver_name("host-d4e5f6", 1, 99))) == [], "it may be one on another machine"


def test_a_finding_is_due_when_it_has_lasted_look_after_look() -> None:
    finding: Finding = OpenAttempts(STUDY)
    grace = Graces().open_attempts
    ripe, since = due([finding], {}, NOW, Graces())
    assert (ripe, since) == ([], {finding: NOW})
    ripe, since = due([finding], since, NOW + grace - timedelta(seconds=1), Graces())
    assert (ripe, since) == ([], {finding: NOW})
    assert due([], since, NOW + grace, Graces()) == ([], {}), "it was in flight: the next time it begins anew"
    ripe, since = due([finding], since, NOW + grace, Graces())
    assert (ripe, since) == ([finding], {}), "once it is acted on it is not due again at the next look"


def test_a_dead_lease_waits_for_nothing() -> None:
    assert due([DeadLease(STUDY, OWNER)], {}, NOW, Graces())[0] == [DeadLease(STUDY, OWNER)]


class FakeProcesses:
    """What lives, as a test says; remembers what was ended."""

    def __init__(self) -> None:
        self.living = Processes()
        self.ended: list[int] = []
        self.looks = 0

    def look(self) -> Processes:
        self.looks += 1
        return self.living

    def end(self, pid: int) -> None:
        self.ended.append(pid)


class World:
    """A study that a driver runs, and a reconciler beside it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store: Store = memory_store(self.clock)
        self.processes = FakeProcesses()
        self.dead: dict[str, int] = {}
        self.reconciler = Reconciler(self.store, self.clock, self.processes, lambda: self.dead, home=HOME)
        study = self.store.studies.add(a_study())
        self.store.studies.save(study.running(NOW))
        assert self.store.leases.acquire(STUDY, OWNER, NOW, timedelta(hours=1))
        attempt = Attempt(1, 0, 3, NOW)
        self.store.trials.record(OWNER, [Change(a_trial(0).started(NOW), attempt=attempt), Change(a_trial(1).started(NOW))])

    def looks(self, seconds: float = 5, times: int = 1) -> None:
        for _ in range(times):
            self.clock.pass_seconds(seconds)
            study = self.store.studies.get(STUDY)
            self.reconciler.look({} if study.state.is_end else {STUDY: study})

    def told(self) -> list[str]:
        events = self.store.events.after(STUDY, 0)
        return [event.payload["what"] for event in events if event.kind is EventKind.STUDY_REPAIRED]

    def holder(self) -> str | None:
        return self.store.leases.holders(self.clock.now()).get(STUDY)


@pytest.fixture
def world() -> World:
    return World()


def test_the_lease_of_a_killed_driver_is_released_at_the_next_look(world: World) -> None:
    world.looks(0.5)
    assert world.holder() == OWNER
    world.dead = {STUDY: 4711}
    world.looks(0.5)
    assert (world.holder(), world.told()) == (None, ["lease"])
    world.looks(0.5)
    assert world.told() == ["lease"]


def test_attempts_that_nobody_takes_up_are_closed_and_their_trials_queued(world: World) -> None:
    world.store.leases.release(STUDY, OWNER)
    world.looks(times=6)
    assert world.told() == []
    world.looks(times=2)
    assert world.told() == ["attempts"]
    (attempt,) = world.store.trials.attempts(STUDY, 0)
    assert (attempt.outcome, attempt.ended_at) == (AttemptOutcome.LOST, world.clock.now() - timedelta(seconds=5))
    assert [world.store.trials.get(STUDY, number).state for number in (0, 1)] == [TrialState.QUEUED] * 2
    assert world.holder() is None
    world.looks(times=20)
    assert world.told() == ["attempts"]


def test_a_driver_that_takes_the_study_up_in_time_is_left_alone(world: World) -> None:
    world.store.leases.release(STUDY, OWNER)
    world.looks(times=5)
    assert world.store.leases.acquire(STUDY, driver_name(HOME, 4712, 5), world.clock.now(), timedelta(hours=1))
    world.looks(times=20)
    assert (world.told(), world.store.trials.get(STUDY, 0).state) == ([], TrialState.RUNNING)


def test_a_driver_that_does_not_leave_its_study_is_ended_and_one_that_is_about_to_is_not(world: World) -> None:
    stopping = world.store.studies.save(world.store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
    world.store.studies.save(stopping.ended(NOW))
    world.processes.living = Processes({4711: STUDY})
    world.looks(times=3)
    assert world.processes.ended == []
    world.looks(times=1)
    assert (world.processes.ended, world.told()) == ([4711], ["driver"])


def test_workers_without_a_driver_are_ended(world: World) -> None:
    world.processes.living = Processes({}, (5,))
    world.looks(times=4)
    assert world.processes.ended == [5]


def test_processes_are_not_listed_at_every_look(world: World) -> None:
    world.looks(0.5, times=40)
    assert world.processes.looks == 5


def test_one_repair_that_fails_keeps_no_other_waiting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.dead = {STUDY: 4711}
    world.processes.living = Processes({}, (5,))

    def fails(*_: object) -> None:
        raise OSError("the disk is on fire")

    monkeypatch.setattr(world.store.leases, "release", fails)
    world.looks(times=4)
    assert world.processes.ended == [5]


@pytest.mark.parametrize(
    ("command", "study_id"),
    [
        (driver_arguments(STUDY, "127.0.0.1:6379"), STUDY),
        (["python3", "-m", "service.driver"], None),
        (["less", "service.driver", "logs"], None),
        (["python3", "-m", "service.daemon"], None),
        ([], None),
    ],
)
def test_a_driver_is_known_by_its_command_line(command: list[str], study_id: str | None) -> None:
    assert driven_by(command) == study_id
