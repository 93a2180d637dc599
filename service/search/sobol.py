"""A scrambled Sobol sequence (Owen 1998) over the unit cube of a search space."""

from collections.abc import Set as AbstractSet
from functools import lru_cache

import numpy as np

from search_spaces import Configuration, Key, Space
from service.search.draws import seed_of
from service.search.memory import Same

_BLOCK = 64
_MOST_BLOCKS = 1024
"""Points that are looked at for one that no trial has: 65,536 of them."""


def sobol_configuration(space: Space, seed: int, seen: AbstractSet[Key]) -> Configuration | None:
    """The first configuration of the sequence that meets the constraints and that no trial has; None where there is no more."""
    size = space.size()
    if size is not None and len(seen) >= size:
        return None
    blocks = (_fitting(Same(space), seed, block) for block in range(_MOST_BLOCKS))
    return next((found for block in blocks for key, found in block if key not in seen), None)


@lru_cache(maxsize=2 * _MOST_BLOCKS)
def _fitting(space: Same[Space], seed: int, block: int) -> tuple[tuple[Key, Configuration], ...]:
    """Of points `block` * 64 and on, those that meet the constraints, each with its key."""
    found = (space.one.from_unit(point) for point in _points(len(space.one.names), seed, block))
    return tuple((space.one.key(one), one) for one in found if space.one.meets_constraints(one))


def _points(dimensions: int, seed: int, block: int) -> list[list[float]]:
    """Drawn together, as to begin the sequence takes longer than to go on with it."""
    from scipy.stats import qmc  # noqa: PLC0415 - half a second: only studies that draw from it pay for it

    sequence = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed_of(seed, 0, "sobol")))
    if block:
        sequence.fast_forward(block * _BLOCK)
    return [[float(share) for share in row] for row in sequence.random(_BLOCK)]
