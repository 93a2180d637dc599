"""Which of several points nothing beats: domination, fronts, crowding, and the volume that a front dominates.

Points are costs, one number for each objective and all finite: less is better.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Costs = Sequence[float]
Floats = np.ndarray[Any, np.dtype[np.float64]]

_ROOM = 16
"""Points that a front has room for at first."""


def dominates(one: Costs, other: Costs) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def front(points: Sequence[Costs]) -> list[int]:
    """The places of the points that no other dominates, in their order; of equal points all."""
    return [place for place, rank in enumerate(ranks(points)) if rank == 0]


def ranks(points: Sequence[Costs]) -> list[int]:
    """For each point its front: 0 is dominated by none, 1 only by those of front 0, and so on.

    In the order of their coordinates a point is only ever dominated by an earlier one, and one that a front does not dominate is
    not dominated by a later front either (Zhang et al. 2015, ENS-BS): most points need to be compared with few fronts.
    """
    if not points:
        return []
    ordered, place_of = np.unique(np.asarray(points, dtype=np.float64), axis=0, return_inverse=True)
    found: list[int] = []
    fronts: list[_Front] = []
    for point in ordered:
        rank = bisect_left(fronts, True, key=lambda front: not front.dominates(point))
        if rank == len(fronts):
            fronts.append(_Front(len(point)))
        fronts[rank].add(point)
        found.append(rank)
    return [found[place] for place in place_of.ravel()]


def crowding(points: Sequence[Costs]) -> list[float]:
    """How lonely each point of a front is (Deb et al. 2002): the distance between its neighbours, infinite at the ends."""
    found = [0.0] * len(points)
    for costs in zip(*points, strict=True):
        order = sorted(range(len(points)), key=lambda place: costs[place])
        first, last = order[0], order[-1]
        width = costs[last] - costs[first]
        found[first] = found[last] = math.inf
        if width > 0:
            for before, place, after in zip(order, order[1:], order[2:], strict=False):
                found[place] += (costs[after] - costs[before]) / width
    return found


def best_first(points: Sequence[Costs]) -> list[int]:
    """The places of all points: by front, and in a front the loneliest first."""
    by_front: dict[int, list[int]] = {}
    for place, rank in enumerate(ranks(points)):
        by_front.setdefault(rank, []).append(place)
    found: list[int] = []
    for _, places in sorted(by_front.items()):
        lonely = dict(zip(places, crowding([points[place] for place in places]), strict=True))
        found += sorted(places, key=lambda place: (-lonely[place], place))
    return found


def hypervolume(points: Sequence[Costs], reference: Costs) -> float:
    """The volume of what the points dominate, up to the reference point: the larger, the better they are together."""
    inside = {tuple(point) for point in points if all(cost < limit for cost, limit in zip(point, reference, strict=True))}
    return _volume(list(inside), tuple(reference))


class _Front:
    """Points side by side, one in each column, so that another is compared with all of them at once."""

    def __init__(self, dimensions: int) -> None:
        self._room = np.empty((dimensions, _ROOM))
        self._size = 0

    def add(self, point: Floats) -> None:
        """Take in a point that none of them dominates."""
        if self._size == self._room.shape[1]:
            self._room = np.tile(self._room, 2)
        self._room[:, self._size] = point
        self._size += 1

    def dominates(self, point: Floats) -> bool:
        """Whether one of them dominates a point that comes after all of them, and so is none of them."""
        # In two dimensions the last one is the best of all in what the order leaves open.
        first = self._size - 1 if len(point) <= 2 else 0  # noqa: PLR2004 - dimensions
        return bool((self._room[:, first : self._size] <= point[:, None]).all(axis=0).any())


def _volume(points: Sequence[tuple[float, ...]], reference: tuple[float, ...]) -> float:
    """Slice by slice along the last axis: the volume of a slice is that of the points below it, in one dimension less."""
    if not points:
        return 0.0
    if len(reference) == 1:
        return reference[0] - min(points)[0]
    total = 0.0
    below: list[tuple[float, ...]] = []
    ordered = sorted(points, key=lambda point: point[-1])
    heights = [point[-1] for point in ordered] + [reference[-1]]
    for point, (height, above) in zip(ordered, pairwise(heights), strict=True):
        if not any(_covers(one, point[:-1]) for one in below):
            below = [*(one for one in below if not _covers(point[:-1], one)), point[:-1]]
        if above > height:
            total += (above - height) * _volume(below, reference[:-1])
    return total


def _covers(one: Costs, other: Costs) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True))
