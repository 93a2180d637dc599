"""What a study's budget went into."""

from typing import Annotated

from fastapi import APIRouter, Query

from service.api.dependencies import Parts
from service.api.paths import STUDY, StudyId
from service.api.problems import InvalidParameters, documented
from service.api.spending_schemas import SpendingView
from service.domain import errors
from service.domain.ports import TrialQuery
from service.domain.trial import TrialState

router = APIRouter(tags=["studies"])

_LIVE = frozenset({TrialState.QUEUED, TrialState.RUNNING})
_MOST_LIVE = 1000


@router.get(
    STUDY + "/spending",
    operation_id="getSpending",
    summary="Get what a study has spent",
    response_description="What it has spent, and on what.",
    responses=documented(errors.StudyNotFound, InvalidParameters),
)
def get_spending(
    study_id: StudyId,
    parts: Parts,
    limit: Annotated[int, Query(ge=0, le=1000, description="Most trials of `costliest`.", examples=[10])] = 10,
) -> SpendingView:
    """Totals beside the budget's limits, what live attempts have reserved, and what went into which trials.

    GPU time counts from what reports took, and from all that lost and failed attempts took beside them.
    """
    study, trials = parts.store.studies.get(study_id), parts.store.trials
    live = trials.find(study_id, TrialQuery(states=_LIVE, limit=_MOST_LIVE)).items
    return SpendingView.of(study, trials.spending(study_id), live, trials.costliest(study_id, limit), parts.clock.now())
