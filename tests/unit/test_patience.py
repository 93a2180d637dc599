"""A driver whose database is away waits, and goes on with what it had decided."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.domain.errors import LeaseLost, StoreAway, StudyNotFound
from service.domain.events import Event, EventKind
from service.domain.ports import Store
from service.domain.share import Share
from service.domain.study import StudyReason, StudyState
from service.domain.trial import TrialState
from service.execution.ledger import Ledger
from service.store.memory import memory_store
from service.store.patience import patient
from tests.builders import NOW, a_study
from tests.fakes import FakeClock

STUDY = "intents-abc123"


class Failing:
    """A port that does not answer so many times; what it loses it may have written."""

    def __init__(self, port: object, *, after: bool = False) -> None:
        self.left = 0
        self._port = port
        self._after = after

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if self.left == 0:
                return method(*arguments, **named)
            self.left -= 1
            if self._after:
                method(*arguments, **named)
            raise StoreAway("connection refused")

        return call


class World:
    """A store that goes away, and a driver with patience."""

    def __init__(self, *, after: bool = False) -> None:
        self.real = memory_store()
        self.real.studies.add(a_study())
        self.real.leases.acquire(STUDY, "driver-1", NOW, timedelta(seconds=10))
        self.trials, self.studies = Failing(self.real.trials, after=after), Failing(self.real.studies, after=after)
        self.waited: list[float] = []
        self.events = Failing(self.real.events, after=after)
        store: Any = replace(self.real, trials=self.trials, studies=self.studies, events=self.events)
        self.store: Store = patient(store, self.waited.append, self._retake)
        self.later = NOW + timedelta(minutes=5)

    def _retake(self) -> None:
        if not self.real.leases.acquire(STUDY, "driver-1", self.later, timedelta(seconds=10)):
            raise LeaseLost("Another process has it.")

    def ledger(self) -> Ledger:
        self.real.shares.grant({STUDY: Share(slots=2)})
        ledger = Ledger(self.store, FakeClock(), STUDY, "driver-1")
        ledger.begin()
        return ledger


@pytest.mark.parametrize("after", [False, True])
def test_a_decision_is_held_until_it_can_be_written_and_is_then_there_once(after: bool) -> None:  # noqa: FBT001
    world = World(after=after)
    ledger = world.ledger()
    world.trials.left = 4
    trial = ledger.next()
    assert world.waited == [0.25, 0.5, 1.0, 2.0]
    assert world.real.trials.get(STUDY, 0).state is TrialState.RUNNING
    assert len(world.real.trials.decisions(STUDY, 0)) == 1
    assert ledger.history.trials[0] == trial


def test_a_change_of_the_study_that_may_have_been_written_is_made_once() -> None:
    world = World(after=True)
    ledger = world.ledger()
    world.real.studies.save(world.real.studies.get(STUDY).pausing(StudyReason.PAUSE_REQUESTED, NOW))
    ledger.refresh()
    world.studies.left = 1
    assert ledger.pause().state is StudyState.PAUSED
    told = [event.payload["state"] for event in world.real.events.after(STUDY, 0) if "state" in event.payload]
    assert told == ["queued", "running", "pausing", "paused"]


def test_an_event_that_may_have_been_written_is_told_once() -> None:
    world = World(after=True)
    event = Event(EventKind.STUDY_QUARANTINE, STUDY, NOW, {"node": "bad-node", "trials": [1, 2]})
    world.events.left = 2
    world.store.events.add([event])
    world.store.events.add([replace(event, at=world.later)])
    told = [one.at for one in world.real.events.after(STUDY, 0) if one.kind is EventKind.STUDY_QUARANTINE]
    assert told == [NOW, world.later]


def test_an_end_that_may_have_been_written_is_no_reason_to_fail() -> None:
    world = World(after=True)
    ledger = world.ledger()
    world.real.studies.save(world.real.studies.get(STUDY).stopping(StudyReason.STOP_REQUESTED))
    ledger.refresh()
    world.studies.left = 1
    assert ledger.finish().state is StudyState.STOPPED


def test_the_pauses_grow_to_a_few_seconds_and_no_further() -> None:
    world = World()
    world.studies.left = 9
    world.store.studies.get(STUDY)
    assert world.waited == [0.25, 0.5, 1, 2, 4, 5, 5, 5, 5]


def test_a_driver_leaves_when_another_one_took_its_study_meanwhile() -> None:
    world = World()
    ledger = world.ledger()
    assert world.real.leases.acquire(STUDY, "driver-2", NOW + timedelta(minutes=1), timedelta(hours=1))
    world.trials.left = 1
    with pytest.raises(LeaseLost):
        ledger.next()
    assert world.real.trials.history(STUDY).trials == {}


def test_what_else_goes_wrong_is_told_at_once() -> None:
    world = World()
    with pytest.raises(StudyNotFound):
        world.store.studies.get("gone-abc123")
    assert world.waited == []
