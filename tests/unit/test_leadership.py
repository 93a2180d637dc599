"""One controller of several leads, and one that has led once never does again."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from service.checkpoints.storage import Entry, Patience, Storage, open_storage
from service.controller.leadership import Claim, Leadership
from service.daemon import _with_sources
from service.domain.errors import LeadershipLost
from service.domain.leadership import Leader, controller_name, driver_name, is_driver_of, leader_seen_from
from service.domain.ports import Store
from service.store.memory import memory_store
from tests.fakes import FakeClock

HERE, THERE = "host-a1b2c3", "host-d4e5f6"
LEASE, BEAT = 10.0, 2.0


class Left(BaseException):
    """The process has ended."""


class Machine:
    """A controller on a machine whose time passes as the test says."""

    def __init__(self, store: Store, clock: FakeClock, home: str, pid: int = 1) -> None:
        self.owner = controller_name(home, pid, 99)
        self._begun, self._clock = clock.now(), clock
        claim = Claim(self.owner, home, LEASE, BEAT)
        self.leadership = Leadership(store.leadership, clock, claim, self._leave, self._seconds)
        self.done: list[str] = []
        self.acts = self.leadership.guarded(self.done)

    def leads(self) -> bool:
        self.leadership.keep()
        return self.leadership.is_held()

    def _seconds(self) -> float:
        return (self._clock.now() - self._begun).total_seconds()

    def _leave(self, why: str) -> None:
        raise Left(why)


class World:
    """Two machines with one store."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.store = memory_store(self.clock)
        self.first, self.second = self.starts(HERE), self.starts(THERE)

    def starts(self, home: str, pid: int = 1) -> Machine:
        return Machine(self.store, self.clock, home, pid)

    def passes(self, seconds: float, *living: Machine) -> None:
        """Time in which these keep what they have."""
        for _ in range(round(seconds / 0.5)):
            self.clock.pass_seconds(0.5)
            for machine in living:
                machine.leadership.keep()


@pytest.fixture
def world() -> World:
    return World()


def test_the_first_leads_and_the_second_waits_for_as_long_as_that_lives(world: World) -> None:
    assert (world.first.leads(), world.second.leads()) == (True, False)
    world.passes(60, world.first, world.second)
    assert (world.first.leads(), world.second.leads()) == (True, False)


def test_the_second_leads_once_the_lease_of_a_dead_one_has_run_out(world: World) -> None:
    assert world.first.leads()
    world.passes(LEASE - 0.5, world.second)
    assert not world.second.leads()
    world.passes(0.5, world.second)
    assert world.second.leads()


def test_the_second_leads_at_once_when_the_first_leaves_in_peace(world: World) -> None:
    assert world.first.leads()
    world.first.leadership.give_back()
    assert world.second.leads()


def test_who_has_given_back_the_lead_does_nothing_more_and_does_not_take_it_again(world: World) -> None:
    assert world.first.leads()
    world.first.leadership.give_back()
    assert not world.first.leads()
    with pytest.raises(LeadershipLost):
        world.first.acts.append("too late")
    assert world.first.done == []


def test_who_was_stopped_past_its_lease_leaves_before_it_does_anything(world: World) -> None:
    assert world.first.leads()
    world.first.acts.append("in time")
    world.passes(LEASE, world.second)
    for wakes in (world.first.leadership.is_held, world.first.leadership.keep, lambda: world.first.acts.append("too late")):
        with pytest.raises(Left):
            wakes()
    assert world.first.done == ["in time"]
    assert world.second.leads()


def test_who_was_stopped_past_its_lease_leaves_though_nobody_took_it_as_it_cannot_know_who_led_meanwhile(world: World) -> None:
    assert world.first.leads()
    world.clock.pass_seconds(LEASE)
    with pytest.raises(Left):
        world.first.leads()


def test_who_hears_from_the_store_that_another_leads_leaves(world: World) -> None:
    assert world.first.leads()
    world.store.leadership.release(world.first.owner)
    assert world.store.leadership.acquire(world.second.owner, world.clock.now(), timedelta(hours=1))
    world.clock.pass_seconds(BEAT)
    with pytest.raises(Left, match="another"):
        world.first.leadership.keep()


def test_a_controller_that_is_started_again_leads_at_once_in_the_place_of_the_one_before_it(world: World) -> None:
    assert world.first.leads()
    again = world.starts(HERE, pid=2)
    assert again.leads()
    assert not world.second.leads()
    world.clock.pass_seconds(BEAT)
    with pytest.raises(Left):
        world.first.leads()


def test_who_waits_acts_on_nothing(world: World) -> None:
    assert world.first.leads()
    assert not world.second.leads()
    with pytest.raises(Left):
        world.second.acts.append("never")
    assert world.second.done == []


def test_where_the_leader_is_depends_on_who_asks() -> None:
    holder = controller_name(HERE, 4711, 99)
    assert leader_seen_from(HERE, holder) is Leader.HERE
    assert leader_seen_from(THERE, holder) is Leader.ELSEWHERE
    assert leader_seen_from(HERE, None) is Leader.NOBODY


def test_drivers_of_two_machines_are_not_taken_for_each_other() -> None:
    assert is_driver_of(driver_name(HERE, 4711, 99), HERE, 4711)
    assert not is_driver_of(driver_name(HERE, 4711, 99), HERE, 471)
    assert not is_driver_of(driver_name(HERE, 4711, 99), THERE, 4711)


def test_who_stood_still_while_it_swept_the_sources_in_storage_deletes_none(world: World, tmp_path: Path) -> None:
    class StandsStill(Storage):
        def list(self, prefix: str) -> Sequence[Entry]:
            found = super().list(prefix)
            world.clock.pass_seconds(LEASE)
            return found

    opened = open_storage(f"file://{tmp_path}", Patience.SHORT)
    opened.put("sources/abc/index.json", b"[]")
    sweep = _with_sources(StandsStill(opened._store, opened.url), world.first.leadership, lambda *_: [])
    assert world.first.leads()
    with pytest.raises(Left):
        sweep([], [], world.clock.now() + timedelta(days=9999))
    assert opened.list("sources")
