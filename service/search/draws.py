"""Random draws from a search space, each a pure function of a seed."""

import hashlib
from collections.abc import Collection
from random import Random

from search_spaces import Configuration, Key, NoConfiguration, Space

_REDRAWS = 100
_ENDLESS_REDRAWS = 2000
"""Redraws where the configurations cannot be counted, so that few are left is not known."""

_MOST_MISSES = 5
"""Draws in vain, of a space of which hardly anything meets the constraints: each is thousands of tries."""


def seed_of(study_seed: int, number: int, purpose: str) -> int:
    """A seed below 2**32 for one purpose of one trial; the same on every machine, unlike `hash`."""
    digest = hashlib.blake2b(f"{study_seed}/{number}/{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def random_of(study_seed: int, number: int, purpose: str) -> Random:
    """A source of randomness for one purpose of one trial."""
    return Random(seed_of(study_seed, number, purpose))  # noqa: S311 - a search, not a secret


def draw_unseen(space: Space, seen: Collection[Key], random: Random) -> Configuration | None:
    """An independent draw that is not in `seen`; None when the space has no other configuration left, or none to be found."""
    drawn = _redrawn(space, seen, random, _REDRAWS)
    if drawn is not None:
        return drawn
    size = space.size()
    if size is None:
        return _redrawn(space, seen, random, _ENDLESS_REDRAWS)
    return _next_unseen(space, size, seen, random.randrange(size)) if size else None


def _redrawn(space: Space, seen: Collection[Key], random: Random, most: int) -> Configuration | None:
    misses = 0
    for _ in range(most):
        try:
            drawn = space.draw(random)
        except NoConfiguration:
            misses += 1
            if misses == _MOST_MISSES:
                return None
        else:
            if space.key(drawn) not in seen:
                return drawn
    return None


def _next_unseen(space: Space, size: int, seen: Collection[Key], first: int) -> Configuration | None:
    """The first configuration from place `first` on that is not in `seen`: at most one step more than `seen` is long."""
    found = (space.at((first + step) % size) for step in range(min(size, len(seen) + 1)))
    return next((one for one in found if space.key(one) not in seen), None)
