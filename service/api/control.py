"""What a running study is told: pause, go on, stop, have more, have other limits.

Each is one write of the store, so that a crash leaves nothing half done.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Header, Request, Response, status
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from service.api.bodies import body_of, read_as, whole_body
from service.api.dependencies import ApiParts, Caller, Parts
from service.api.documents import JSON_TYPE, YAML_TYPES, decode
from service.api.paths import STUDY, TRIAL, StudyId, TrialNumber
from service.api.problems import BodyTooLarge, InvalidParameters, PreconditionFailed, PreconditionRequired, documented
from service.api.schemas import StudyView, TrialView
from service.api.studies import etag_of, view_of
from service.domain import errors
from service.domain.amending import amended, larger, spent_already
from service.domain.budget import Spending
from service.domain.study import Study, StudyReason

router = APIRouter(tags=["studies"])

PATCH_TYPE = "application/merge-patch+json"
_Wanted = TypeVar("_Wanted", bound=BaseModel)
_TRIES = 5
"""Of a change whose write another process overtakes."""
_LARGER = {"budget": {"trials": 60, "wall_clock": "4h", "target": None}}
_PATCH = {"priority": 80, "resources": {"max_concurrent_trials": 4}, "budget": {"trials": 40}}
_CONFLICTS = (errors.StudyNotFound, errors.IllegalMove, errors.StaleWrite, InvalidParameters)
_BODIES = (errors.MalformedDocument, BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidDefinition)


def _sent(request: Request, body: Annotated[bytes, Depends(whole_body)]) -> Any:
    """The document in the request's body, None without a body; a merge patch is JSON."""
    if not body.strip():
        return None
    kind = request.headers.get("Content-Type")
    is_patch = kind is not None and kind.partition(";")[0].strip().lower() == PATCH_TYPE
    document = decode(body, JSON_TYPE if is_patch else kind)
    if document is None:
        raise errors.InvalidDefinition([errors.Violation("", "must be an object and not null")])
    return document


Sent = Annotated[Any, Depends(_sent)]


class PauseRequest(BaseModel):
    """How to pause."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    now: bool = Field(
        default=False,
        description="Do not wait for the next report: running trials save where they stand and leave at once. They go on from "
        "there, in the middle of an epoch.",
        examples=[True],
    )


class ExtendRequest(BaseModel):
    """What becomes larger."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    budget: dict[str, JsonValue] = Field(
        default={},
        description="A merge patch (RFC 7396) of the study's `budget`: limits that are raised, or removed with null, and any "
        "other `target`.",
        examples=[_LARGER["budget"]],
    )


@router.post(
    STUDY + ":pause",
    operation_id="pauseStudy",
    summary="Pause a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study, pausing or paused.",
    responses=documented(*_CONFLICTS, *_BODIES),
    openapi_extra=body_of(PauseRequest, {"now": True}, "How to pause.", required=False),
)
def pause_study(response: Response, study_id: StudyId, parts: Parts, by: Caller, sent: Sent) -> StudyView:
    """Let running trials leave at their next report, or at once with `now`, and free the workers. Asking twice does no harm.

    The study is `pausing` until none of its trials runs, then `paused`; paused time is not spent. `:resume` lets it go on.
    """
    wanted = _read(PauseRequest, sent)
    return _answer(
        parts,
        response,
        _changed(
            parts,
            study_id,
            lambda study: study.pausing(StudyReason.PAUSE_REQUESTED, parts.clock.now(), is_urgent=wanted.now),
            by,
        ),
    )


@router.post(
    STUDY + ":resume",
    operation_id="resumeStudy",
    summary="Resume a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study, queued or running.",
    responses=documented(*_CONFLICTS),
)
def resume_study(response: Response, study_id: StudyId, parts: Parts, by: Caller) -> StudyView:
    """Let a paused study go on, whyever it was paused; its trials go on from where they stand. Asking twice does no harm."""
    return _answer(parts, response, _changed(parts, study_id, lambda study: study.resumed(parts.clock.now()), by))


@router.post(
    STUDY + ":stop",
    operation_id="stopStudy",
    summary="Stop a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study, stopping.",
    responses=documented(*_CONFLICTS),
)
def stop_study(response: Response, study_id: StudyId, parts: Parts, by: Caller) -> StudyView:
    """Let running trials reach their next report, then end the study and keep its results. Asking twice does no harm."""
    return _answer(parts, response, _changed(parts, study_id, lambda study: study.stopping(StudyReason.STOP_REQUESTED), by))


@router.post(
    STUDY + ":cancel",
    operation_id="cancelStudy",
    summary="Cancel a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study, stopping.",
    responses=documented(*_CONFLICTS),
)
def cancel_study(response: Response, study_id: StudyId, parts: Parts, by: Caller) -> StudyView:
    """End the study now; what its trials have reported so far is kept. Asking twice does no harm.

    Trials are asked to leave, and their processes killed after 5 seconds.
    """
    return _answer(parts, response, _changed(parts, study_id, lambda study: study.stopping(StudyReason.CANCEL_REQUESTED), by))


@router.post(
    STUDY + ":extend",
    operation_id="extendStudy",
    summary="Extend a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study with the larger budget.",
    responses=documented(*_CONFLICTS, *_BODIES),
    openapi_extra=body_of(ExtendRequest, _LARGER, "What becomes larger.", required=False),
)
def extend_study(response: Response, study_id: StudyId, parts: Parts, by: Caller, sent: Sent) -> StudyView:
    """Give a study more to spend. One that was completed or stopped is queued again and goes on with all it knows.

    Trials that its end interrupted go on too, as far as their checkpoints are there. What `auto` chose stays chosen. A final is
    held once more when the search has gone on, and keeps the runs that it has. The same request again changes nothing.
    One that has ended is refused once its rows or its model are gone.
    """
    wanted = _read(ExtendRequest, sent)

    def extended(study: Study) -> Study:
        now = parts.clock.now()
        study.extended(study.definition, now)  # what its state forbids is refused first
        moved = study.extended(larger(study, wanted.budget), now)
        if study.state.is_end and moved != study:
            parts.catalog.of(study.project).check(moved.definition)  # its rows and its model may have gone since it ended
            _refuse_spent(parts, moved)
        return moved

    return _answer(parts, response, _changed(parts, study_id, extended, by))


@router.patch(
    STUDY,
    operation_id="patchStudy",
    summary="Change a study",
    response_description="The study as it is now.",
    responses=documented(*_CONFLICTS, *_BODIES, PreconditionFailed, PreconditionRequired),
    openapi_extra=body_of(None, _PATCH, "What changes.", (PATCH_TYPE, JSON_TYPE, *YAML_TYPES)),
)
def patch_study(
    response: Response,
    study_id: StudyId,
    parts: Parts,
    by: Caller,
    sent: Sent,
    if_match: Annotated[
        str | None,
        Header(description="The `ETag` of the study that the change was made for; `*` for any.", examples=['"3"']),
    ] = None,
) -> StudyView:
    """Change `priority`, `resources.max_concurrent_trials` and `budget` of a study that has not ended: a merge patch (RFC 7396).

    A limit below what is spent ends the study: of time or money at the next reports, of `trials` or `epochs` once what runs has
    come to its rung or its end. The request is refused when the study is another one than `If-Match` names, unless it has these
    values already.
    """

    def patched(study: Study) -> Study:
        now = parts.clock.now()
        study.changed(study.definition, now)  # what its state forbids is refused first
        changed = study.changed(amended(study.definition, sent), now)
        if changed != study:
            _require_match(if_match, study)
        return changed

    if if_match is None:
        parts.store.studies.get(study_id)
        raise PreconditionRequired("Read the study, and send its `ETag` back as `If-Match`, so that no other change is undone.")
    return _answer(parts, response, _changed(parts, study_id, patched, by))


@router.post(
    TRIAL + ":stop",
    operation_id="stopTrial",
    summary="Stop a trial",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The trial as it is.",
    responses=documented(errors.StudyNotFound, errors.TrialNotFound, InvalidParameters),
    tags=["trials"],
)
def stop_trial(study_id: StudyId, number: TrialNumber, parts: Parts, by: Caller) -> TrialView:
    """End one trial at its next report, or at once where it does not run, and keep what it has. Asking twice does no harm.

    The search goes on without it; one that has ended stays as it is, and one of a paused study ends once that goes on.
    """
    return TrialView.of(parts.store.trials.ask_to_stop(study_id, number, parts.clock.now(), by))


def _changed(parts: ApiParts, study_id: str, change: Callable[[Study], Study], by: str) -> Study:
    """The study after the change, decided anew when another process wrote in between. Raises StaleWrite when it always did."""
    tries_left = _TRIES
    while True:
        study = parts.store.studies.get(study_id)
        changed = change(study)
        if changed == study:
            return study
        tries_left -= 1
        try:
            return parts.store.studies.save(changed, by)
        except errors.StaleWrite:
            if tries_left == 0:
                raise


def _answer(parts: ApiParts, response: Response, study: Study) -> StudyView:
    response.headers["ETag"] = etag_of(study)
    return view_of(parts, study)


def _refuse_spent(parts: ApiParts, study: Study) -> None:
    """Raises InvalidDefinition for a study that would end as soon as it goes on."""
    totals = parts.store.trials.totals([study.id])[study.id]
    spent = Spending(totals.trials, totals.reports, study.active_seconds(parts.clock.now()), totals.gpu_seconds)
    best = parts.store.trials.best(study.id)
    found = spent_already(study.definition, spent, None if best is None else best.best_value)
    if found:
        raise errors.InvalidDefinition(found)


def _require_match(if_match: str | None, study: Study) -> None:
    """Raises PreconditionFailed when the study is none of those that the header names (RFC 9110, section 13.1.1)."""
    named = re.findall(r'(?:W/)?"[^"]*"', if_match or "")
    if (if_match or "").strip() != "*" and etag_of(study) not in named:
        raise PreconditionFailed(
            f"Study {study.id!r} has changed: it is {study.state}, version {study.version}. Read it again, and decide anew."
        )


def _read(model: type[_Wanted], sent: Any) -> _Wanted:
    """What was sent; nothing at all stands for the defaults. Raises InvalidDefinition."""
    return read_as(model, {} if sent is None else sent)
