"""When a driver that the database does not reach goes on, and when it leaves; and that it waits for the object storage."""

from pathlib import Path
from typing import Any

import pytest

from service import driver
from service.checkpoints.signs import ObjectSigns
from service.checkpoints.storage import Patience, open_storage
from service.domain.errors import LeaseLost, StorageAway
from service.domain.ports import Signs
from service.domain.share import Share
from service.domain.study import StudyReason, StudyState
from service.execution.interruption import FileSigns, SignAfar
from service.execution.ledger import Ledger
from service.execution.tenure import Nameplate, Tenure
from service.store.memory import memory_store
from tests.builders import NOW, a_study
from tests.fakes import FakeClock

STUDY = "intents-abc123"
LEASE = 10.0


class World:
    """Drivers of one study, and what they say beside its checkpoints."""

    def __init__(self, signs: Signs) -> None:
        self.clock = FakeClock()
        self.store = memory_store(self.clock)
        self.store.studies.add(a_study())
        self.signs = signs

    def driver(self, owner: str) -> tuple[Tenure, Nameplate]:
        begun = self.clock.now()

        def seconds_up() -> float:
            return (self.clock.now() - begun).total_seconds()

        return Tenure(self.store.leases, self.clock, STUDY, owner, LEASE, seconds_up), Nameplate(self.signs, owner)


@pytest.fixture(params=["disk", "storage"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    if request.param == "disk":
        return World(FileSigns(tmp_path, STUDY, ".driver"))
    return World(ObjectSigns(lambda: open_storage(f"file://{tmp_path}", Patience.SHORT), STUDY, ".driver"))


def test_a_driver_whose_time_is_over_leaves_once_another_has_put_its_name_there(world: World) -> None:
    first, plate = world.driver("first")
    assert first.take()
    plate.show()
    world.clock.pass_seconds(LEASE)
    second, other = world.driver("second")
    assert second.take()
    assert not first.is_followed(plate)
    other.show()
    assert first.is_followed(plate)


def test_a_driver_goes_on_while_the_database_is_away_for_all(world: World) -> None:
    first, plate = world.driver("first")
    first.take()
    plate.show()
    world.clock.pass_seconds(3600)
    assert not first.is_followed(plate)


def test_a_driver_whose_time_is_not_over_leaves_for_no_name(world: World) -> None:
    first, plate = world.driver("first")
    first.take()
    world.driver("late")[1].show()
    world.clock.pass_seconds(LEASE - 1)
    assert not first.is_followed(plate)
    assert first.take()
    world.clock.pass_seconds(LEASE - 1)
    assert not first.is_followed(plate)


def test_a_driver_that_waits_for_its_first_lease_leaves_for_no_name(world: World) -> None:
    first, plate = world.driver("first")
    world.driver("before")[1].show()
    assert not first.is_followed(plate)


def test_a_name_is_put_there_once(world: World) -> None:
    _, plate = world.driver("first")
    plate.show()
    world.driver("second")[1].show()
    plate.show()
    assert world.signs.read() == "second"


def test_a_name_that_cannot_be_read_is_no_reason_to_leave(tmp_path: Path) -> None:
    world = World(ObjectSigns(lambda: open_storage(f"file://{tmp_path}/missing", Patience.SHORT), STUDY, ".driver"))
    first, plate = world.driver("first")
    first.take()
    world.clock.pass_seconds(LEASE)
    assert not first.is_followed(plate)
    with pytest.raises(StorageAway):
        plate.show()
    (tmp_path / "missing").mkdir()
    plate.show()
    assert world.signs.read() == "first", "it was not to be opened once and for all"


def test_the_lease_of_another_is_not_taken_nor_given_back(world: World) -> None:
    first, second = world.driver("first")[0], world.driver("second")[0]
    assert (first.take(), second.take()) == (True, False)
    with pytest.raises(LeaseLost):
        second.retake()
    second.give_back()
    assert world.store.leases.holders(world.clock.now()) == {STUDY: "first"}


def test_a_lease_that_was_given_back_is_not_taken_again(world: World) -> None:
    first, _ = world.driver("first")
    first.take()
    first.give_back()
    assert first.take(), "the process leaves, and is not to be told that it has lost anything"
    assert world.store.leases.holders(world.clock.now()) == {}


def a_ledger(begins: bool) -> Ledger:  # noqa: FBT001
    world = World(FileSigns(Path("/"), STUDY, "unused"))
    assert world.driver("driver")[0].take()
    world.store.shares.grant({STUDY: Share(2)})
    ledger = Ledger(world.store, FakeClock(), STUDY, "driver")
    if begins:
        ledger.begin()
    return ledger


class Away:
    """A storage that does not answer so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def ask(self) -> str:
        if self.left:
            self.left -= 1
            raise StorageAway("file:///mount", "there is no such folder", "gone")
        return "there"


@pytest.mark.parametrize("begins", [False, True])
def test_a_driver_waits_for_the_object_storage_longer_each_time(begins: bool) -> None:  # noqa: FBT001
    waited: list[float] = []
    assert driver.once_it_answers(a_ledger(begins), Away(8).ask, waited.append) == "there"
    assert waited == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_driver_that_waits_for_the_object_storage_hears_of_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger, waited = a_ledger(begins=True), []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 3:
            studies = ledger._store.studies
            studies.save(studies.get(STUDY).pausing(StudyReason.PAUSE_REQUESTED, NOW))

    assert driver.once_it_answers(ledger, Away(99).ask, wait) is None
    assert (len(waited), ledger.study.state) == (3, StudyState.PAUSING)


def test_what_a_driver_says_in_a_storage_that_is_not_there_is_said_later(tmp_path: Path) -> None:
    def signs(name: str) -> Any:
        return ObjectSigns(lambda: open_storage(f"file://{tmp_path}/mount", Patience.SHORT), STUDY, name)

    seconds = iter(range(0, 1000, 100))
    said = driver._Signs(SignAfar(signs(".interrupt"), lambda: next(seconds)), Nameplate(signs(".driver"), "driver-1"))
    asked = a_study().running(NOW).pausing(StudyReason.PAUSE_REQUESTED, NOW, is_urgent=True)
    assert not said.show(asked)
    (tmp_path / "mount").mkdir()
    assert said.show(asked)
    assert (signs(".driver").read(), signs(".interrupt").read()) == ("driver-1", "pause")
