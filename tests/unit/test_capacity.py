"""What a cluster is asked: what it holds, and to make room as long as somebody leads."""

import json
from pathlib import Path

import pytest

from service.controller.capacity import Bundles, CapacityWatch
from service.controller.room import Capacity, Machine

HELD = Capacity(4, 0, (Machine(4),))


class FakeRay:
    """A cluster that remembers what it was asked to make room for, until it is asked again."""

    def __init__(self) -> None:
        self.asked_for: Bundles = []
        self.is_up = True

    def __call__(self, bundles: Bundles | None, timeout_seconds: float) -> Capacity:
        if not self.is_up:
            raise RuntimeError("Ray is away.")
        if bundles is not None:
            self.asked_for = bundles
        return HELD


@pytest.fixture
def ray() -> FakeRay:
    return FakeRay()


def a_watch(ray: FakeRay, folder: Path, demand: Bundles | None) -> CapacityWatch:
    return CapacityWatch(ray, lambda: ray.is_up, folder / "capacity.json", None if demand is None else lambda: demand)


def test_each_look_asks_for_room_and_writes_down_what_there_is(ray: FakeRay, tmp_path: Path) -> None:
    watch = a_watch(ray, tmp_path, [{"CPU": 1.0}])
    assert watch() is None
    watch.look()
    assert ray.asked_for == [{"CPU": 1.0}]
    assert watch() == HELD == Capacity.of(json.loads((tmp_path / "capacity.json").read_text()))


def test_a_cluster_keeps_no_room_for_a_service_that_has_left(ray: FakeRay, tmp_path: Path) -> None:
    watch = a_watch(ray, tmp_path, [{"CPU": 1.0}])
    watch.look()
    watch.withdraw()
    assert ray.asked_for == []
    watch.look()
    assert ray.asked_for == [], "a look that comes later asks for nothing again"


def test_a_cluster_that_is_away_keeps_nobody_from_leaving(ray: FakeRay, tmp_path: Path) -> None:
    watch = a_watch(ray, tmp_path, [{"CPU": 1.0}])
    ray.is_up = False
    watch.withdraw()


def test_a_ray_of_our_own_is_asked_for_nothing(ray: FakeRay, tmp_path: Path) -> None:
    ray.asked_for = [{"CPU": 7.0}]
    watch = a_watch(ray, tmp_path, None)
    watch.look()
    watch.withdraw()
    assert ray.asked_for == [{"CPU": 7.0}]


def test_a_cluster_that_does_not_answer_holds_nothing(ray: FakeRay, tmp_path: Path) -> None:
    watch = a_watch(ray, tmp_path, [])
    watch.look()
    ray.is_up = False
    with pytest.raises(RuntimeError):
        watch.look()
    ray.is_up = True
    assert watch() is None
