"""Keeping Tune's actors alive: what we rely on of Tune's private members, and how many actors are kept."""

import inspect
from types import SimpleNamespace

import pytest
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

from service.execution.keepwarm import keep_warm


def a_controller(busy: int = 0) -> SimpleNamespace:
    """What of Tune's controller is replaced."""
    controller = SimpleNamespace(
        _actor_cache=_ObjectCache(may_keep_one=True),
        _trial_to_actor={},
        _resetting_trials=set(),
        reused=[],
    )
    controller._maybe_reuse_cached_actor = lambda trial: controller.reused.append(trial) or True
    keep_warm(controller, lambda: 2)
    controller._trial_to_actor.update({f"trial-{number}": object() for number in range(busy)})
    return controller


def test_tune_still_has_the_members_that_are_replaced() -> None:
    source = inspect.getsource(TuneController)
    for member in ("self._actor_cache = _ObjectCache(", "self._trial_to_actor", "self._resetting_trials"):
        assert member in source
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


def test_a_trial_whose_own_actor_is_coming_does_not_take_anothers() -> None:
    controller = a_controller(busy=1)
    assert controller._maybe_reuse_cached_actor("trial-0") is False
    assert controller._maybe_reuse_cached_actor("trial-7") is True
    assert controller.reused == ["trial-7"]


def test_a_version_of_tune_that_keeps_actors_otherwise_is_refused() -> None:
    with pytest.raises(RuntimeError, match="pin ray"):
        keep_warm(SimpleNamespace(_actor_cache={}, _trial_to_actor={}), lambda: 2)
