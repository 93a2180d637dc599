"""What is worked out once for each trial's parameters: they never change, and a decision asks for all of them."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from search_spaces import Configuration, Key, Space

_MOST = 20_000


@dataclass(frozen=True, eq=False)
class _Same:
    """Equal to what holds the very same object, which it keeps alive, so that no other one can come to its address."""

    one: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.one is other.one

    def __hash__(self) -> int:
        return id(self.one)


def key_of(space: Space, configuration: Configuration) -> Key:
    """The configuration as numbers."""
    return _key(_Same(space), _Same(configuration))


def unit_of(space: Space, configuration: Configuration) -> tuple[float | None, ...]:
    """The configuration in the unit cube."""
    return _unit(_Same(space), _Same(configuration))


def all_of(space: Space, size: int) -> tuple[Configuration, ...]:
    """All configurations of a space of that size."""
    return _all(_Same(space), size)


@lru_cache(maxsize=16)
def _all(space: _Same, size: int) -> tuple[Configuration, ...]:
    return tuple(space.one.at(place) for place in range(size))


@lru_cache(maxsize=_MOST)
def _key(space: _Same, configuration: _Same) -> Key:
    return space.one.key(configuration.one)  # type: ignore[no-any-return]


@lru_cache(maxsize=_MOST)
def _unit(space: _Same, configuration: _Same) -> tuple[float | None, ...]:
    return space.one.to_unit(configuration.one)  # type: ignore[no-any-return]
