"""Random draws from a search space, each a pure function of a seed."""

import hashlib
from collections.abc import Collection
from random import Random

from search_spaces import Configuration, Key, NoConfiguration, Space

__all__ = ["Configuration", "Key", "draw_unseen", "key_of", "random_of", "seed_of", "size_of"]

_REDRAWS = 100
_ENDLESS_REDRAWS = 2000
"""Redraws where the configurations cannot be counted, so that few are left is not known."""


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


def size_of(space: Space) -> int | None:
    """Number of configurations in the space, None when it is not finite."""
    return space.size()


def key_of(space: Space, configuration: Configuration) -> Key:
    """The configuration as numbers."""
    return space.key(configuration)


def _redrawn(space: Space, seen: Collection[Key], random: Random, most: int) -> Configuration | None:
    try:
        drawn = (space.draw(random) for _ in range(most))
        return next((one for one in drawn if space.key(one) not in seen), None)
    except NoConfiguration:
        return None


def _next_unseen(space: Space, size: int, seen: Collection[Key], first: int) -> Configuration | None:
    """The first configuration from place `first` on that is not in `seen`: at most one step more than `seen` is long."""
    found = (space.at((first + step) % size) for step in range(min(size, len(seen) + 1)))
    return next((one for one in found if space.key(one) not in seen), None)
