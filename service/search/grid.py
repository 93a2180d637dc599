"""The grid: every combination of the space's values once, in an order drawn from the study's seed."""

from collections.abc import Set as AbstractSet
from functools import lru_cache
from itertools import chain

from search_spaces import Configuration, Key, Space
from service.search.draws import random_of


def grid_configuration(space: Space, seed: int, number: int, seen: AbstractSet[Key]) -> Configuration | None:
    """The configuration of trial `number`: the first from that place on that is not in `seen`; None when all are."""
    grid = space.grid()
    order = _order(len(grid), seed)
    # From its own place on, as all before it are seen but for those whose place a user's own configuration took.
    places = chain(range(number, len(grid)), range(min(number, len(grid))))
    return next((grid[order[place]] for place in places if space.key(grid[order[place]]) not in seen), None)


@lru_cache(maxsize=4)
def _order(size: int, seed: int) -> tuple[int, ...]:
    """A permutation of range(size). Kept, as the largest grid takes 50 ms; a pure function, so nothing can change it."""
    places = list(range(size))
    random_of(seed, 0, "grid").shuffle(places)
    return tuple(places)
