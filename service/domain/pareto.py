"""Which of several points nothing beats: domination, fronts, crowding, and the volume that a front dominates.

Points are costs, one number for each objective and all finite: less is better.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

Costs = Sequence[float]


def dominates(one: Costs, other: Costs) -> bool:
    """Whether `one` is nowhere worse than `other` and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


def front(points: Sequence[Costs]) -> list[int]:
    """The places of the points that no other dominates, in their order; of equal points all."""
    return [place for place, rank in enumerate(ranks(points)) if rank == 0]


def ranks(points: Sequence[Costs]) -> list[int]:
    """For each point its front: 0 is dominated by none, 1 only by those of front 0, and so on.

    In the order of their coordinates a point is only ever dominated by an earlier one, and one that a front does not dominate is
    not dominated by a later front either (Zhang et al. 2015, ENS-BS): most points need to be compared with few.
    """
    found = [0] * len(points)
    fronts: list[list[Costs]] = []
    for place in sorted(range(len(points)), key=lambda place: tuple(points[place])):
        point = points[place]
        low, high = 0, len(fronts)
        while low < high:
            middle = (low + high) // 2
            if _front_dominates(fronts[middle], point):
                low = middle + 1
            else:
                high = middle
        if low == len(fronts):
            fronts.append([])
        fronts[low].append(point)
        found[place] = low
    return found


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


def _front_dominates(members: Sequence[Costs], point: Costs) -> bool:
    # In two dimensions the last member is the best of all in what the order leaves open.
    some = members[-1:] if len(point) <= 2 else reversed(members)  # noqa: PLR2004 - dimensions
    return any(dominates(member, point) for member in some)


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
