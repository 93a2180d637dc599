"""A scrambled Sobol sequence (Owen 1998) over the unit cube of a search space."""

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from functools import lru_cache

import numpy as np

from search_spaces import Configuration, Key, Space
from service.search.draws import seed_of

_BLOCK = 64
_MOST_SKIPPED = 4096
"""Points in a row that may be of no use, as they repeat others of a finite space or break a constraint."""


def sobol_configuration(space: Space, seed: int, number: int, seen: AbstractSet[Key]) -> Configuration | None:
    """The first configuration from place `number` of the sequence on that no trial has; None after many that are none."""
    for _, point in zip(range(_MOST_SKIPPED), _points(len(space.names), seed, number), strict=False):
        found = space.from_unit(point)
        if space.key(found) not in seen and space.meets_constraints(found):
            return found
    return None


def _points(dimensions: int, seed: int, first: int) -> Iterator[tuple[float, ...]]:
    block, place = divmod(first, _BLOCK)
    while True:
        yield from _block(dimensions, seed, block)[place:]
        block, place = block + 1, 0


@lru_cache(maxsize=64)
def _block(dimensions: int, seed: int, block: int) -> tuple[tuple[float, ...], ...]:
    """Points `block` * 64 and on: drawn together, as to begin the sequence takes longer than to go on with it."""
    from scipy.stats import qmc  # noqa: PLC0415 - half a second: only studies that draw from it pay for it

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed_of(seed, 0, "sobol")))
    if block:
        sequence.fast_forward(block * _BLOCK)
    return tuple(tuple(float(share) for share in row) for row in sequence.random(_BLOCK))
