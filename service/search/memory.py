"""What is worked out once for each trial's parameters: they never change, and a decision asks for all of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import is_
from typing import Generic, TypeVar

from search_spaces import Configuration, Key, Space
from service.domain.trial import Trial

_MOST = 20_000
_Of = TypeVar("_Of")


@dataclass(frozen=True, eq=False)
class Same(Generic[_Of]):
    """Equal to what holds the very same object, which it keeps alive, so that no other one can come to its address."""

    one: _Of

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.one is other.one

    def __hash__(self) -> int:
        return id(self.one)


def key_of(space: Space, configuration: Configuration) -> Key:
    """The configuration as numbers."""
    return _key(Same(space), Same(configuration))


def keys_of(space: Space, trials: Iterable[Trial]) -> frozenset[Key]:
    """The keys of all these trials' configurations: those of the last call on, where they begin as they did then."""
    latest = _latest(Same(space))
    known, keys = latest.seen
    configurations = [trial.parameters for trial in trials]
    if len(known) > len(configurations) or not all(map(is_, known, configurations)):
        known, keys = [], frozenset()
    if len(known) < len(configurations):
        keys = keys | {key_of(space, one) for one in configurations[len(known) :]}
        latest.seen = configurations, keys
    return keys


def unit_of(space: Space, configuration: Configuration) -> tuple[float | None, ...]:
    """The configuration in the unit cube."""
    return _unit(Same(space), Same(configuration))


def all_of(space: Space, size: int) -> tuple[Configuration, ...]:
    """All configurations of a space of that size."""
    return _all(Same(space), size)


class _Latest:
    """The configurations that were asked for last, and their keys; replaced as one, as several threads may ask."""

    seen: tuple[Sequence[Configuration], frozenset[Key]] = ((), frozenset())


@lru_cache(maxsize=16)
def _latest(space: Same[Space]) -> _Latest:  # noqa: ARG001 - what it is kept under
    return _Latest()


@lru_cache(maxsize=16)
def _all(space: Same[Space], size: int) -> tuple[Configuration, ...]:
    return tuple(space.one.at(place) for place in range(size))


@lru_cache(maxsize=_MOST)
def _key(space: Same[Space], configuration: Same[Configuration]) -> Key:
    return space.one.key(configuration.one)


@lru_cache(maxsize=_MOST)
def _unit(space: Same[Space], configuration: Same[Configuration]) -> tuple[float | None, ...]:
    return space.one.to_unit(configuration.one)
