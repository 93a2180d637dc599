"""What a controller does for its own machine while another one leads."""

import os
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from service.controller.following import Follower
from service.domain.ports import Store
from service.store.memory import memory_store
from tests.builders import a_study
from tests.fakes import FakeClock


class FakeDrivers:
    """Two drivers, of which one has ended."""

    def __init__(self) -> None:
        self.records = {"lives-aaaaaa": True, "ended-aaaaaa": False}

    def launched(self) -> Mapping[str, object]:
        return self.records

    def known(self) -> frozenset[str]:
        return frozenset(self.records)

    def forget(self, study_id: str) -> None:
        if not self.records[study_id]:
            del self.records[study_id]

    def by_process(self) -> Mapping[int, str]:
        return dict(enumerate(study_id for study_id, lives in self.records.items() if lives))


class World:
    """A follower with a folder of prepared rows."""

    def __init__(self, root: Path) -> None:
        self.clock = FakeClock(datetime.now(UTC))  # files have the disk's time
        self.store: Store = memory_store(self.clock)
        self.drivers = FakeDrivers()
        self.prepared = root / "prepared"
        self.swept: list[tuple[Collection[str], Collection[str]]] = []
        self.follower = Follower(self.store, self.clock, self.drivers, self.prepared, self._sweep)

    def prepares(self, study_id: str, minutes_ago: float) -> None:
        folder = self.prepared / study_id
        folder.mkdir(parents=True)
        (folder / "rows").write_text("rows")
        at = (self.clock.now() - timedelta(minutes=minutes_ago)).timestamp()
        os.utime(folder, (at, at))

    def has_prepared(self) -> set[str]:
        return {folder.name for folder in self.prepared.iterdir()}

    def _sweep(self, driven: Collection[str], active: Collection[str], _: datetime) -> None:
        self.swept.append((driven, active))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_drivers_that_have_ended_are_forgotten_and_those_that_live_are_not(world: World) -> None:
    world.follower.turn()
    assert world.drivers.known() == {"lives-aaaaaa"}


def test_prepared_rows_go_when_their_study_is_over_and_nobody_works_with_them(world: World) -> None:
    world.store.studies.add(a_study("active-aaaaaa", created_at=world.clock.now()))
    for study_id, minutes in (("active-aaaaaa", 60), ("lives-aaaaaa", 60), ("gone-aaaaaa", 60), ("new-aaaaaa", 1)):
        world.prepares(study_id, minutes)
    world.follower.turn()
    assert world.has_prepared() == {"active-aaaaaa", "lives-aaaaaa", "new-aaaaaa"}


def test_leftovers_are_swept_now_and_then_and_not_at_each_turn(world: World) -> None:
    world.store.studies.add(a_study("driven-aaaaaa", created_at=world.clock.now()))
    world.store.leases.acquire("driven-aaaaaa", "driver-elsewhere-1-1", world.clock.now(), timedelta(hours=1))
    for _ in range(3):
        world.follower.turn()
    assert world.swept == [({"driven-aaaaaa", "lives-aaaaaa"}, frozenset({"driven-aaaaaa"}))]
    world.clock.pass_seconds(301)
    world.follower.turn()
    assert len(world.swept) == 2
