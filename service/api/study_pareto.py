"""A study's front: the trials that no other beats in all objectives."""

import math
from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import Parts
from service.api.pareto_schemas import ParetoView
from service.api.paths import STUDY, StudyId
from service.api.problems import InvalidParameters, documented
from service.api.schemas import ViolationView
from service.domain import errors
from service.domain.front import front_of
from service.domain.objective import MOST_OBJECTIVES

router = APIRouter(tags=["studies"])

_MOST_TRIALS = 1000


@router.get(
    STUDY + "/pareto",
    operation_id="getPareto",
    summary="Get the trials that no other beats",
    response_description="The front so far.",
    responses=documented(errors.StudyNotFound, InvalidParameters),
)
def get_pareto(
    study_id: StudyId,
    parts: Parts,
    reference: Annotated[
        list[float] | None,
        Query(
            max_length=MOST_OBJECTIVES,
            description="The point up to which the hypervolume reaches: a value for each objective, in the definition's order.",
            examples=[[0.4, 10.0]],
        ),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=_MOST_TRIALS, description="Most trials of the answer.", examples=[50])] = 200,
) -> ParetoView:
    """The front of all objectives, of reports that keep the outcomes. Every trial on it keeps its exported checkpoint.

    A trial has one point, at its best report by the first objective: that is the report whose export is kept.
    """
    study = parts.store.studies.get(study_id)
    objectives = study.definition.objectives
    if reference is not None and (len(reference) != len(objectives) or not all(map(math.isfinite, reference))):
        metrics = ", ".join(f"`{objective.metric}`" for objective in objectives)
        detail = f"query parameter `reference`: needs one finite number for each of {metrics}, in that order"
        raise InvalidParameters([ViolationView(pointer="reference", detail=detail)])
    return ParetoView.of(study, front_of(study, parts.store.trials.history(study_id), reference), limit)
