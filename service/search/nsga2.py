"""A genetic search for several objectives (NSGA-II, Deb et al. 2002) over the unit cube of a search space.

The parents are the best `population` of all trials so far: by front, in a front the loneliest first, and those that break the
outcomes behind those that keep them. As they are drawn from all that is known and not from generations, nobody waits for the
last trial of one, and the same history always has the same parents.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from random import Random

from search_spaces import CategoricalParameter, Configuration, Key, Space, count
from service.search.draws import random_of
from service.search.memory import unit_of

_TRIES = 200
_CROSSED = 0.9
_ETA = 15.0
"""How near children are to their parents: the larger, the nearer (Deb & Agrawal 1995)."""

_MUTATION_ETA = 10.0
"""Wider than the usual 20: where the best is at the border, many fewer trials find it, elsewhere as many."""


def nsga2_proposals(
    space: Space, ranked: Sequence[Configuration], population: int, seen: Collection[Key], place: tuple[int, int]
) -> Iterator[Configuration]:
    """Children that no trial is and that meet the constraints. `ranked` is what is known, best first, two or more.

    `place` is the study's seed and the trial's number: all randomness comes from them.
    """
    random = random_of(*place, "model 0")
    parents = ranked[:population]
    for _ in range(_TRIES):
        one, other = (unit_of(space, _winner(parents, random)) for _ in range(2))
        child = space.from_unit(_mutated(space, _crossed(space, one, other, random), random))
        if space.key(child) not in seen and space.meets_constraints(child):
            yield child


def _winner(parents: Sequence[Configuration], random: Random) -> Configuration:
    """The better of two: they are in order."""
    return parents[min(random.randrange(len(parents)), random.randrange(len(parents)))]


def _crossed(space: Space, one: Sequence[float | None], other: Sequence[float | None], random: Random) -> list[float]:
    """A child's coordinates between and around those of its parents; of choices without an order it has one or the other.

    Where a parent has no value, as its parameter is not active, the child has the other's, or one drawn anew.
    """
    is_crossed = random.random() < _CROSSED
    child = []
    for name, first, second in zip(space.names, one, other, strict=True):
        known = [share for share in (first, second) if share is not None]
        if len(known) < 2:  # noqa: PLR2004 - parents
            child.append(known[0] if known else random.random())
        elif not is_crossed:
            child.append(known[0])
        elif _is_choice(space, name) or random.random() < 0.5:  # noqa: PLR2004 - a coordinate in two is blended
            child.append(random.choice(known))
        else:
            child.append(_blended(known[0], known[1], random))
    return child


def _blended(one: float, other: float, random: Random) -> float:
    """Simulated binary crossover."""
    share = random.random()
    base = 2 * share if share <= 0.5 else 1 / (2 * (1 - share))  # noqa: PLR2004 - as published
    spread = base ** (1 / (_ETA + 1))
    low, high = (one, other) if random.random() < 0.5 else (other, one)  # noqa: PLR2004 - one of the two children
    return _inside(0.5 * ((1 + spread) * low + (1 - spread) * high))


def _mutated(space: Space, child: Sequence[float], random: Random) -> list[float]:
    """The child with one coordinate changed on average: a choice is drawn anew, a number moves (polynomial mutation)."""
    varying = sum(count(space.parameters[name]) != 1 for name in space.names)
    found = []
    for name, share in zip(space.names, child, strict=True):
        if random.random() >= 1 / max(1, varying):
            found.append(share)
        elif _is_choice(space, name):
            found.append(random.random())
        else:
            found.append(_inside(share + _step(random)))
    return found


def _step(random: Random) -> float:
    share = random.random()
    if share < 0.5:  # noqa: PLR2004 - as published
        return float((2 * share) ** (1 / (_MUTATION_ETA + 1))) - 1
    return 1 - float((2 * (1 - share)) ** (1 / (_MUTATION_ETA + 1)))


def _is_choice(space: Space, name: str) -> bool:
    parameter = space.parameters[name]
    return isinstance(parameter, CategoricalParameter) and not parameter.ordered


def _inside(share: float) -> float:
    return min(math.nextafter(1, 0), max(0.0, share))
