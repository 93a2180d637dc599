"""Hyperband's brackets: how many trials run to which reports, planned from the definition alone."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import count

from service.domain.definition import StudyDefinition
from service.domain.strategy import HyperbandStrategy


@dataclass(frozen=True)
class Bracket:
    """A ladder: `sizes[i]` trials run to report `rungs[i]`, the best of them on to the next one."""

    index: int
    rungs: tuple[int, ...]
    sizes: tuple[int, ...]

    @property
    def reports(self) -> int:
        """Reports that all its trials need together when none fails."""
        steps = (high - low for low, high in zip((0, *self.rungs), self.rungs, strict=False))
        return sum(size * step for size, step in zip(self.sizes, steps, strict=True))


def ladder(reports: int, factor: int, steps: int) -> tuple[int, ...]:
    """Reports of the rungs of a bracket with `steps` promotions: `reports` divided by powers of `factor`, rounded half to even.

    They strictly increase while the lowest is at least 1: neighbours differ by a factor of at least 2 before rounding.
    """
    return tuple(round(Fraction(reports, factor**power)) for power in range(steps, -1, -1))


def most_steps(reports: int, lowest: int, factor: int) -> int:
    """The most promotions a trial can have: the largest s with lowest * factor**s <= reports."""
    steps = 0
    while lowest * factor ** (steps + 1) <= reports:
        steps += 1
    return steps


def brackets(definition: StudyDefinition) -> Iterator[Bracket]:
    """The brackets of a synchronous study in their order: cycles as in Li et al. 2018, algorithm 1, until the budget is planned.

    The number of trials, or of configurations in a finite space, cuts the last bracket's width. A bracket that the remaining
    reports cannot pay is made narrower; when they do not take a single trial to the top, the last ladder ends at the highest
    rung they can reach. Time cannot be planned: with nothing else bounded the cycles go on for ever, and with no budget at
    all there is one. Failed trials leave the plan as it is: what they did not train is left unspent.
    """
    strategy = definition.plan.strategy
    assert isinstance(strategy, HyperbandStrategy)  # noqa: S101 - narrowed by the caller
    budget = definition.budget
    reports, factor = definition.max_reports, strategy.reduction_factor
    widest = most_steps(reports, strategy.min_epochs, factor)
    trials = min(budget.trials or math.inf, definition.search_space.size() or math.inf)
    left = math.inf if budget.epochs is None else budget.epochs + 1e-9
    for index in count() if definition.is_bounded else range(widest + 1):
        steps = widest - index % (widest + 1)
        rungs = ladder(reports, factor, steps)
        if reports > left:
            steps = widest
            rungs = tuple(rung for rung in ladder(reports, factor, steps) if rung <= left)
        if trials < 1 or not rungs:
            return
        full = -(-(widest + 1) * factor**steps // (steps + 1))
        bracket = _fitting(index, rungs, factor, int(min(full, trials)), left)
        yield bracket
        trials -= bracket.sizes[0]
        left -= bracket.reports


def _fitting(index: int, rungs: tuple[int, ...], factor: int, width: int, left: float) -> Bracket:
    """The widest bracket up to `width` that the reports that are left pay for; one trial always fits."""
    bracket = _bracket(index, rungs, factor, width)
    while bracket.reports > left and width > 1:
        width -= 1
        bracket = _bracket(index, rungs, factor, width)
    return bracket


def _bracket(index: int, rungs: tuple[int, ...], factor: int, width: int) -> Bracket:
    sizes = [width]
    while len(sizes) < len(rungs):
        sizes.append(max(1, sizes[-1] // factor))
    return Bracket(index, rungs, tuple(sizes))


def all_rungs(definition: StudyDefinition) -> tuple[int, ...]:
    """Every report at which some bracket compares its trials, highest first: ladders end alike, the longest has them all."""
    strategy = definition.plan.strategy
    assert isinstance(strategy, HyperbandStrategy)  # noqa: S101 - narrowed by the caller
    return longest_ladder(definition.max_reports, strategy.min_epochs, strategy.reduction_factor)[::-1]


@lru_cache(maxsize=64)
def longest_ladder(reports: int, lowest: int, factor: int) -> tuple[int, ...]:
    """The rungs of the bracket with the most promotions."""
    return ladder(reports, factor, most_steps(reports, lowest, factor))
