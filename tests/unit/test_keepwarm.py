"""Keeping Tune's actors alive: what we rely on of Tune's private members, and how many actors are kept."""

import inspect
from types import SimpleNamespace

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

from service.execution.keepwarm import keep_warm


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def a_controller(busy: int = 0, clock: Clock | None = None) -> SimpleNamespace:
    """What of Tune's controller is replaced. `cached` is how many actors are free."""
    controller = SimpleNamespace(
        _actor_cache=_ObjectCache(may_keep_one=True),
        _trial_to_actor={},
        _resetting_trials=set(),
        _actor_manager=SimpleNamespace(pending_actors=[]),
        reused=[],
        cached=9,
        limit=2,
    )

    def reuse(trial: str) -> bool:
        if not controller.cached:
            return False
        controller.cached -= 1
        controller.reused.append(trial)
        controller._trial_to_actor[trial] = f"cached-{controller.cached}"
        return True

    controller._maybe_reuse_cached_actor = reuse
    keep_warm(controller, lambda: controller.limit, clock or Clock())
    controller._trial_to_actor.update({f"trial-{number}": object() for number in range(busy)})
    return controller


def test_tune_still_has_the_members_that_are_replaced() -> None:
    source = inspect.getsource(TuneController)
    for member in ("self._actor_cache = _ObjectCache(", "self._trial_to_actor", "self._resetting_trials", "self._actor_manager"):
        assert member in source
    assert isinstance(RayActorManager.pending_actors, property)
    assert "_maybe_reuse_cached_actor" in vars(TuneController)


def test_an_idle_actor_is_kept_while_there_is_room_beside_the_busy_ones() -> None:
    cache = a_controller(busy=2)._actor_cache
    assert cache.cache_object("key", "actor") is True
    assert cache.cache_object("key", "another") is False


def test_idle_actors_are_not_destroyed_while_nothing_waits() -> None:
    cache = a_controller(busy=1)._actor_cache
    cache.cache_object("key", "actor")
    assert list(cache.flush_cached_objects()) == []
    assert list(cache.flush_cached_objects(force_all=True)) == ["actor"]


def test_actors_above_the_limit_are_given_back() -> None:
    controller = a_controller()
    for name in ("one", "two"):
        controller._actor_cache.cache_object("key", name)
    controller._trial_to_actor["trial-0"] = object()
    assert list(controller._actor_cache.flush_cached_objects()) == ["one"]


def test_when_the_limit_falls_idle_actors_are_given_back_although_others_are_busy() -> None:
    controller = a_controller(busy=1)
    controller._actor_cache.cache_object("key", "idle")
    controller.limit = 1
    assert list(controller._actor_cache.flush_cached_objects()) == ["idle"]


def a_trial_without_a_place(controller: SimpleNamespace) -> None:
    """`late` asked for an actor of its own, and Ray finds no place for it."""
    controller.cached = 0
    assert controller._maybe_reuse_cached_actor("late") is False
    controller._trial_to_actor["late"] = "unplaced"
    controller._actor_manager.pending_actors.append("unplaced")
    controller.cached = 1


def test_a_trial_that_ray_finds_no_place_for_takes_an_actor_that_is_free_after_some_seconds() -> None:
    controller = a_controller(clock=(clock := Clock()))
    a_trial_without_a_place(controller)
    clock.seconds = 4.0
    assert controller._maybe_reuse_cached_actor("late") is False
    clock.seconds = 6.0
    assert controller._maybe_reuse_cached_actor("late") is True


def test_it_comes_before_a_trial_that_has_only_just_come() -> None:
    controller = a_controller(clock=(clock := Clock()))
    a_trial_without_a_place(controller)
    clock.seconds = 6.0
    assert controller._maybe_reuse_cached_actor("next") is False
    assert controller.reused == ["late"]


def test_a_trial_whose_actor_has_a_place_and_starts_waits_for_it_however_long_that_takes() -> None:
    controller = a_controller(clock=(clock := Clock()))
    a_trial_without_a_place(controller)
    controller._actor_manager.pending_actors.clear()
    clock.seconds = 60.0
    assert controller._maybe_reuse_cached_actor("late") is False


def test_a_trial_whose_own_actor_is_coming_does_not_take_anothers() -> None:
    controller = a_controller(busy=1)
    assert controller._maybe_reuse_cached_actor("trial-0") is False
    assert controller._maybe_reuse_cached_actor("trial-7") is True
    assert controller.reused == ["trial-7"]


def test_a_version_of_tune_that_keeps_actors_otherwise_is_refused() -> None:
    with pytest.raises(RuntimeError, match="pin ray"):
        keep_warm(SimpleNamespace(_actor_cache={}, _trial_to_actor={}), lambda: 2)
