"""Covariance matrix adaptation (Hansen 2016) over the unit cube of a search space, replayed from the trials for each proposal.

A generation is the next `population` trials, in the order of their numbers, that have come to their end; a bad one counts as
the worst of it. The evolution only depends on what it is told, and on a seed for what it draws.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from search_spaces import Configuration
from service.domain.history import History
from service.domain.strategy import CmaesSampler
from service.domain.study import Study
from service.search.draws import seed_of
from service.search.evidence import whole_evidence
from service.search.memory import unit_of

_WIDTH = 0.25
_DRAWS = 100


def cmaes_proposals(study: Study, history: History, number: int, sampler: CmaesSampler) -> Iterator[Configuration]:
    """Draws for trial `number` from the evolution's present density, those that break a constraint left out."""
    from cmaes import CMA  # noqa: PLC0415 - only studies that ask for it pay for it

    definition = study.definition
    space = definition.search_space
    dimensions = len(space.names)
    evolution = CMA(
        # With one dimension its covariance is no matrix: a second one that nothing depends on makes it one.
        mean=np.full(max(2, dimensions), 0.5),
        sigma=_WIDTH,
        bounds=np.tile([0.0, 1.0], (max(2, dimensions), 1)),
        seed=seed_of(definition.seed, number, "model 0"),
        population_size=sampler.population,
    )
    known = [one for one in whole_evidence(study, history).observations if one.value is not None]
    costs = [definition.objective.sort_key(one.value) if one.is_measured and one.value is not None else math.inf for one in known]
    worst = max((cost for cost in costs if math.isfinite(cost)), default=0.0)
    points = [_point(unit_of(space, one.parameters)) for one in known]
    size = evolution.population_size
    for first in range(0, len(known) - size + 1, size):
        if evolution.should_stop():
            break
        generation = slice(first, first + size)
        evolution.tell([(point, min(cost, worst)) for point, cost in zip(points[generation], costs[generation], strict=True)])
    for _ in range(_DRAWS):
        found = space.from_unit([float(share) for share in evolution.ask()[:dimensions]])
        if space.meets_constraints(found):
            yield found


def _point(unit: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The evolution's coordinates, two or more."""
    coordinates = [0.5 if share is None else share for share in unit]
    return np.array(coordinates if len(coordinates) > 1 else [*coordinates, 0.5])
