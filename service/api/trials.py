"""A study's trials, their reports and their attempts."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from service.api.checkpoints import has_checkpoint
from service.api.dependencies import Parts
from service.api.outcome_views import broken_outcomes
from service.api.pagination import Cursor, Limit
from service.api.paths import STUDY, TRIAL, StudyId, TrialNumber
from service.api.problems import InvalidParameters, documented
from service.api.schemas import AttemptView, ReportView, TrialPage, TrialView
from service.api.waiting import why_trial_waits
from service.domain import errors
from service.domain.ports import TrialQuery
from service.domain.trial import TrialState

router = APIRouter(tags=["trials"])

_MOST_REPORTS = 10_000


@router.get(
    STUDY + "/trials",
    operation_id="listTrials",
    summary="List a study's trials",
    response_description="A page of trials.",
    responses=documented(errors.StudyNotFound, InvalidParameters, errors.InvalidQuery),
)
def list_trials(
    study_id: StudyId,
    parts: Parts,
    state: Annotated[
        list[TrialState] | None, Query(description="Only trials in these states; may be repeated.", examples=[["completed"]])
    ] = None,
    order: Annotated[
        Literal["number", "-number", "best_value", "-best_value"],
        Query(
            description="What to order by; a minus turns it round. Trials without a value come last.", examples=["-best_value"]
        ),
    ] = "number",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> TrialPage:
    """Trials, by number unless another order is asked for."""
    query = TrialQuery(states=frozenset(state or ()), order=order, limit=limit, cursor=cursor)
    page = parts.store.trials.find(study_id, query)
    return TrialPage(items=[TrialView.of(trial) for trial in page.items], cursor=page.cursor)


@router.get(
    TRIAL,
    operation_id="getTrial",
    summary="Get a trial",
    response_description="The trial.",
    responses=documented(errors.StudyNotFound, errors.TrialNotFound),
)
def get_trial(study_id: StudyId, number: TrialNumber, parts: Parts) -> TrialView:
    """One trial: what it tries and why, how far it is, and its best value so far."""
    trial = parts.store.trials.get(study_id, number)
    study = parts.store.studies.get(study_id)
    limits = study.definition.limits
    broken = broken_outcomes(limits, parts.store.trials.reports(study_id, number)) if limits else []
    decisions = parts.store.trials.decisions(study_id, number)
    waiting = why_trial_waits(parts, study, trial)
    return TrialView.of(trial, decisions, broken, has_checkpoint=has_checkpoint(parts, trial), waiting=waiting)


@router.get(
    TRIAL + "/reports",
    operation_id="listReports",
    summary="List a trial's reports",
    response_description="The reports, in order.",
    responses=documented(errors.StudyNotFound, errors.TrialNotFound, InvalidParameters),
)
def list_reports(
    study_id: StudyId,
    number: TrialNumber,
    parts: Parts,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Only reports with a greater number.", examples=[2])] = 0,
    limit: Annotated[int, Query(ge=1, le=_MOST_REPORTS, description="Most reports of one answer.", examples=[100])] = 1000,
) -> list[ReportView]:
    """A trial's reports in order. For those that follow, ask again with `after` set to the last number."""
    return [ReportView.of(report) for report in parts.store.trials.reports(study_id, number, after, limit)]


@router.get(
    TRIAL + "/attempts",
    operation_id="listAttempts",
    summary="List a trial's attempts",
    response_description="The attempts, in order.",
    responses=documented(errors.StudyNotFound, errors.TrialNotFound),
)
def list_attempts(study_id: StudyId, number: TrialNumber, parts: Parts) -> list[AttemptView]:
    """Each unbroken execution of the trial: a rung, a lost worker or a restart of the service ends one and begins another."""
    return [AttemptView.of(attempt) for attempt in parts.store.trials.attempts(study_id, number)]
