"""Some of many, in the order they come in."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many, two or more, at equal distances: the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[at * (len(items) - 1) // (most - 1)] for at in range(most)]


def best_and_spread(ranked: Sequence[T], best: int, others: int) -> Sequence[T]:
    """The first `best` of a ranking, and of the rest an even spread."""
    return [*ranked[:best], *evenly(ranked[best:], others)]
