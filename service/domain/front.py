"""A study's front: the trials that no other beats in all objectives.

A trial has one point: what it measured at its best report by the first objective, of those that keep the outcomes, the first of
equals. That is the report whose export is kept, so that what the front promises can be pulled.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from service.domain.history import History
from service.domain.objective import Objective
from service.domain.pareto import front, hypervolume
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
    """The trials on the front, by their first objective, best first. `volume` is what they dominate up to `reference`.

    Both are None while no trial has a point; the volume is, too, where there are so many members that it would take long.
    """

    members: Sequence[Placed]
    reference: tuple[float, ...] | None
    volume: float | None


def front_of(study: Study, history: History, reference: Sequence[float] | None = None) -> Front:
    """The front so far, those of running trials too; without a `reference` point it is just beyond the worst of all points."""
    objectives = study.definition.objectives
    placed = _placed(history)
    costs = [tuple(objective.sort_key(value) for objective, value in zip(objectives, one.values, strict=True)) for one in placed]
    if not placed:
        return Front((), None if reference is None else tuple(reference), None)
    if reference is None:
        limits = tuple(_beyond([each[axis] for each in costs]) for axis in range(len(objectives)))
    else:
        limits = tuple(objective.sort_key(value) for objective, value in zip(objectives, reference, strict=True))
    places = front(costs)
    members = sorted(places, key=lambda place: (costs[place], placed[place].trial.number))
    return Front(
        members=tuple(placed[place] for place in members),
        reference=tuple(objective.sort_key(limit) for objective, limit in zip(objectives, limits, strict=True)),
        volume=hypervolume([costs[place] for place in places], limits) if _is_measured(places, objectives) else None,
    )


def _is_measured(members: Sequence[int], objectives: Sequence[Objective]) -> bool:
    return len(members) <= _MOST_MEASURED.get(len(objectives), 100_000)


def _placed(history: History) -> list[Placed]:
    found = [(trial, history.point_of(trial)) for trial in history.trials.values() if trial.repeats is None]
    return [Placed(trial, values) for trial, values in found if values is not None and all(map(math.isfinite, values))]


def _beyond(costs: Sequence[float]) -> float:
    worst, width = max(costs), max(costs) - min(costs)
    return worst + _BEYOND * (width or abs(worst) or 1.0)
