"""A study's front: the trials that no other beats in all objectives.

A trial has one point: what it measured at its best report by the first objective, of those that keep the outcomes, the first of
equals. That is the report whose export is kept, so that what the front promises can be pulled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from service.domain.history import History
from service.domain.objective import Objective
from service.domain.pareto import crowding, front, hypervolume
from service.domain.study import Study
from service.domain.trial import Trial

_MOST_MEASURED = {2: 100_000, 3: 2_000, 4: 300}
"""Members of a front, by the number of objectives, whose volume takes less than about a second."""

_BEYOND = 0.1
"""The reference point is this part of the points' range beyond the worst of each objective, so that the ends count too."""


@dataclass(frozen=True)
class Placed:
    """A trial and its value of each objective."""

    trial: Trial
    values: tuple[float, ...]


@dataclass(frozen=True)
class Front:
    """The trials on the front, by their first objective, best first, and the point up to which their volume reaches.

    That is None while no trial has a point, unless it was asked for.
    """

    members: Sequence[Placed]
    reference: tuple[float, ...] | None
    objectives: Sequence[Objective]

    @cached_property
    def volume(self) -> float | None:
        """What the members dominate up to the reference point; None where there are none, or so many that it would take long."""
        if not self.members or self.reference is None or len(self.members) > _MOST_MEASURED.get(len(self.objectives), 100_000):
            return None
        return hypervolume([_costs(self.objectives, one.values) for one in self.members], _costs(self.objectives, self.reference))

    def spread(self, most: int) -> Sequence[Placed]:
        """At most so many of the members, in their order: the ends of the front, and those farthest from their neighbours."""
        if len(self.members) <= most:
            return self.members
        lonely = crowding([one.values for one in self.members])
        chosen = sorted(range(len(lonely)), key=lambda place: -lonely[place])[:most]
        return [self.members[place] for place in sorted(chosen)]


def front_of(study: Study, history: History, reference: Sequence[float] | None = None) -> Front:
    """The front so far, those of running trials too; without a `reference` point it is just beyond the worst of all points."""
    objectives = study.definition.objectives
    placed = _placed(history)
    costs = [_costs(objectives, one.values) for one in placed]
    if reference is None and placed:
        reference = _costs(objectives, [_beyond(axis) for axis in zip(*costs, strict=True)])
    members = sorted(front(costs), key=lambda place: (costs[place], placed[place].trial.number))
    return Front(tuple(placed[place] for place in members), None if reference is None else tuple(reference), objectives)


def _costs(objectives: Sequence[Objective], values: Sequence[float]) -> tuple[float, ...]:
    """The values as costs, of which less is better; and costs as values."""
    return tuple(objective.sort_key(value) for objective, value in zip(objectives, values, strict=True))


def _placed(history: History) -> list[Placed]:
    found = [(trial, history.point_of(trial)) for trial in history.trials.values() if trial.repeats is None]
    return [Placed(trial, values) for trial, values in found if values is not None and all(map(math.isfinite, values))]


def _beyond(costs: Sequence[float]) -> float:
    worst, width = max(costs), max(costs) - min(costs)
    return worst + _BEYOND * (width or abs(worst) or 1.0)
