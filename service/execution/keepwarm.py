"""Keep Tune's trainable processes alive between attempts.

Tune's own reuse gives a waiting trial the actor that just became free and cancels the request for an actor of its own, so that
short attempts never run side by side; and it destroys idle actors whenever nothing waits. This replaces two private members of
ray 2.60's `TuneController` (a test holds that they are there).

Idle actors hold what they run on: as soon as the limit falls below what there is, they end, and another study has their place.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

from ray.tune.utils.object_cache import _ObjectCache

_UNPLACED_SECONDS = 5.0
"""How long a trial waits for an actor of its own that Ray finds no place for: a node is gone, or its CPUs are here and there."""


class _KeepingCache(_ObjectCache):  # type: ignore[misc]  # ray has no types
    """Keeps idle actors as long as there is room for them beside the busy ones."""

    def __init__(self, room: Callable[[], int]) -> None:
        super().__init__(may_keep_one=False)
        self._room = room

    def cache_object(self, key: Any, obj: Any) -> bool:
        if self._num_cached_objects > self._room():  # not >=: the actor being offered still counts as busy
            return False
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        return True

    def flush_cached_objects(self, force_all: bool = False) -> Iterator[Any]:  # noqa: FBT001, FBT002 - Tune's signature
        for objects in self._cached_objects.values():
            while objects and (force_all or self._num_cached_objects > self._room()):
                self._num_cached_objects -= 1
                yield objects.pop(0)


def keep_warm(controller: Any, limit: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
    """Let `controller` keep up to `limit()` actors, idle and busy together, and really start that many."""
    if type(controller._actor_cache) is not _ObjectCache or controller._trial_to_actor:  # noqa: SLF001
        raise RuntimeError("this version of ray tune keeps its actors in another way: pin ray to the version in constraints.txt")
    controller._actor_cache = _KeepingCache(lambda: max(0, limit() - len(controller._trial_to_actor)))  # noqa: SLF001
    reuse = controller._maybe_reuse_cached_actor  # noqa: SLF001
    asked: dict[Any, float] = {}

    def is_coming(trial: Any) -> bool:
        return trial in controller._trial_to_actor and trial not in controller._resetting_trials  # noqa: SLF001

    def waits_in_vain(trial: Any) -> bool:
        unplaced = controller._trial_to_actor.get(trial) in controller._actor_manager.pending_actors  # noqa: SLF001
        return unplaced and is_coming(trial) and clock() - asked.get(trial, clock()) > _UNPLACED_SECONDS

    def reuse_unless_coming(trial: Any) -> bool:
        # A trial whose own actor is on its way waits for it, so that the actor really comes up.
        if is_coming(trial):
            return waits_in_vain(trial) and bool(reuse(trial))
        for late in [one for one in asked if waits_in_vain(one)]:
            reuse(late)  # before a trial that has only just come
        if reuse(trial):
            return True
        for gone in asked.keys() - controller._trial_to_actor.keys():  # noqa: SLF001
            del asked[gone]
        asked[trial] = clock()
        return False

    controller._maybe_reuse_cached_actor = reuse_unless_coming  # noqa: SLF001
