"""Studies: POST one, watch it, stop it, forget it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status

from service.api.dependencies import ApiParts, Parts
from service.api.documents import MAX_BYTES, decode
from service.api.final import best_of, final_of
from service.api.pagination import Cursor, Limit
from service.api.paths import STUDY, StudyId
from service.api.problems import BodyTooLarge, InvalidParameters, documented
from service.api.schemas import StudyPage, StudyView, TrialView, study_view
from service.api.warm_start import resolve
from service.domain import errors
from service.domain.budget import Spending
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.grouped import said_of
from service.domain.ports import IdempotencyKey, StudyQuery, TrialTotals
from service.domain.study import Study, StudyReason, StudyState, new_study_id
from service.domain.trial import TrialState

router = APIRouter(tags=["studies"])

IdempotencyHeader = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,200}$", examples=["9d2c1f0e-6b1f-4c57-8a55-0f8f2f1c7f11"],
        description="A name for this request: sent again with the same body, it answers what came of it the first time.",
    ),
]  # fmt: skip

_TRIES = 5
"""Of a stop or cancel whose write another process overtakes."""


async def whole_body(request: Request) -> bytes:
    """The request's body, if it is no larger than a definition may be. Raises BodyTooLarge."""
    advice = "upload rows as a data set and name it in the definition"
    return await limited_body(request, f"A study definition has at most {MAX_BYTES} bytes: {advice}.")


async def limited_body(request: Request, detail: str) -> bytes:
    """The request's body, if it is no larger than a definition may be. Raises BodyTooLarge with this detail."""
    declared = request.headers.get("Content-Length", "")
    if declared.isdecimal() and int(declared[:20]) > MAX_BYTES:
        raise BodyTooLarge(detail)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BYTES:
            raise BodyTooLarge(detail)
    return bytes(body)


@router.post(
    "/v1/studies",
    operation_id="createStudy",
    summary="Start a study",
    status_code=status.HTTP_201_CREATED,
    response_description="The study, queued.",
    responses=documented(
        errors.MalformedDocument, errors.IdempotencyConflict, BodyTooLarge, errors.UnsupportedMediaType,
        errors.InvalidDefinition, InvalidParameters,
    ),
)  # fmt: skip
def create_study(
    request: Request,
    response: Response,
    parts: Parts,
    body: Annotated[bytes, Depends(whole_body)],
    idempotency_key: IdempotencyHeader = None,
) -> StudyView:
    """Check the definition and queue the study; a driver takes it up within seconds.

    Anything that could not work is refused here, with every violation named by its field, and nothing is stored.
    """
    key = key_of(idempotency_key, body)
    # A repeated request is answered first: what was right then may be refused now, when a model or rows are gone.
    stored = None if key is None else parts.store.studies.with_key(key)
    if stored is None:
        document = decode(body, request.headers.get("Content-Type"))
        definition = parse_definition(document)
        with said_of(document):
            parts.catalog.check(definition)
        stored = store_new(parts, definition, key)
    response.headers["Location"] = f"/v1/studies/{stored.id}"
    return view_of(parts, stored)


@router.get(
    "/v1/studies",
    operation_id="listStudies",
    summary="List studies",
    response_description="A page of studies.",
    responses=documented(InvalidParameters, errors.InvalidQuery),
)
def list_studies(
    parts: Parts,
    state: Annotated[
        list[StudyState] | None, Query(description="Only studies in these states; may be repeated.", examples=[["running"]])
    ] = None,
    name: Annotated[
        str | None,
        Query(
            min_length=1, max_length=100, pattern=r"^[A-Za-z0-9 ._-]+$", examples=["intents"],
            description="Only studies whose name contains this, letter case aside.",
        ),
    ] = None,
    order: Annotated[
        Literal["created_at", "-created_at", "name", "-name"],
        Query(description="What to order by; a minus turns it round.", examples=["-created_at"]),
    ] = "-created_at",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> StudyPage:  # fmt: skip
    """Studies, the newest first unless another order is asked for."""
    query = StudyQuery(states=frozenset(state or ()), name=name, order=order, limit=limit, cursor=cursor)
    page = parts.store.studies.find(query)
    return StudyPage(items=_views_of(parts, page.items), cursor=page.cursor)


@router.get(
    STUDY,
    operation_id="getStudy",
    summary="Get a study",
    response_description="The study.",
    responses=documented(errors.StudyNotFound),
)
def get_study(study_id: StudyId, parts: Parts) -> StudyView:
    """One study: its state, its best trial so far, and what it has spent."""
    return view_of(parts, parts.store.studies.get(study_id))


@router.delete(
    STUDY,
    operation_id="deleteStudy",
    summary="Delete a study",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="The study is forgotten.",
    responses=documented(errors.StudyNotFound, errors.StudyStillActive),
)
def delete_study(study_id: StudyId, parts: Parts) -> None:
    """Forget a study that has ended, with its trials, events and checkpoints.

    Its experiment, runs and registered model in MLflow go too: within a minute, or as soon as MLflow can be reached.
    """
    parts.store.studies.delete(study_id)
    parts.checkpoints.delete(study_id)


@router.post(
    STUDY + ":stop",
    operation_id="stopStudy",
    summary="Stop a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study, stopping.",
    responses=documented(errors.StudyNotFound, errors.IllegalMove, errors.StaleWrite),
)
def stop_study(study_id: StudyId, parts: Parts) -> StudyView:
    """Let running trials reach their next report, then end the study and keep its results. Asking twice does no harm."""
    return _end(parts, study_id, StudyReason.STOP_REQUESTED)


@router.post(
    STUDY + ":cancel",
    operation_id="cancelStudy",
    summary="Cancel a study",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The study, stopping.",
    responses=documented(errors.StudyNotFound, errors.IllegalMove, errors.StaleWrite),
)
def cancel_study(study_id: StudyId, parts: Parts) -> StudyView:
    """End the study now; what its trials have reported so far is kept. Asking twice does no harm."""
    return _end(parts, study_id, StudyReason.CANCEL_REQUESTED)


@router.get(
    STUDY + "/best",
    operation_id="getBestTrial",
    summary="Get the best trial",
    response_description="The best trial so far.",
    responses=documented(errors.StudyNotFound, errors.NoBestTrial, errors.NoSingleBest),
)
def get_best_trial(study_id: StudyId, parts: Parts) -> TrialView:
    """The trial with the best value of the objective at any of its reports; the earlier one of two equals.

    Reports that break an outcome do not count, and of several objectives there is no single best. After a final it is the best
    run of the configuration that won it.
    """
    best = best_of(parts, parts.store.studies.get(study_id))
    if best is None:
        raise errors.NoBestTrial(study_id)
    return TrialView.of(best)


def key_of(header: str | None, body: bytes) -> IdempotencyKey | None:
    """The client's name for a request with this body, if it gave one."""
    return None if header is None else IdempotencyKey(header, hashlib.sha256(body).hexdigest())


def store_new(
    parts: ApiParts, definition: StudyDefinition, key: IdempotencyKey | None, settled: AbstractSet[str] = frozenset()
) -> Study:
    """A new study of a checked definition, stored with what it knows of earlier ones. Raises InvalidDefinition for those."""
    prior, known = resolve(parts.store, definition, settled)
    study = Study(
        id=new_study_id(definition.name), definition=definition, created_at=parts.clock.now(), warm_start=known
    )  # fmt: skip
    return parts.store.studies.add(study, key, prior)


def view_of(parts: ApiParts, study: Study) -> StudyView:
    """The view of a study."""
    return _views_of(parts, [study])[0]


def _views_of(parts: ApiParts, studies: Sequence[Study]) -> list[StudyView]:
    ids = [study.id for study in studies]
    counts, totals = parts.store.trials.counts(ids), parts.store.trials.totals(ids)
    return [_view(parts, study, counts[study.id], totals[study.id]) for study in studies]


def _view(parts: ApiParts, study: Study, counts: Mapping[TrialState, int], totals: TrialTotals) -> StudyView:
    now = parts.clock.now()
    seconds = ((study.ended_at or now) - study.started_at).total_seconds() if study.started_at else 0.0
    final = final_of(parts, study) if study.definition.final else None
    return study_view(
        study,
        counts=counts,
        best=(final and final.champion) or (parts.store.trials.best(study.id) if totals.trials else None),
        spent=Spending(totals.trials, totals.reports, max(0.0, seconds), totals.gpu_seconds),
        experiment=parts.store.mirror.experiment(study.id),
        final=final,
    )


def _end(parts: ApiParts, study_id: str, reason: StudyReason) -> StudyView:
    return view_of(parts, _changed(parts, study_id, lambda study: study.stopping(reason)))


def _changed(parts: ApiParts, study_id: str, change: Callable[[Study], Study]) -> Study:
    """The study after the change, decided anew when another process wrote in between. Raises StaleWrite when it always did."""
    tries_left = _TRIES
    while True:
        study = parts.store.studies.get(study_id)
        changed = change(study)
        if changed == study:
            return study
        tries_left -= 1
        try:
            return parts.store.studies.save(changed)
        except errors.StaleWrite:
            if tries_left == 0:
                raise


EXAMPLE: Mapping[str, Any] = {
    "name": "banking-intents",
    "trainer": {
        "kind": "text-classification",
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "data": {
            "train": "dataset://banking77/train.csv",
            "test": "dataset://banking77/test.csv",
            "text": "text",
            "label": "category",
            "validation_fraction": 0.1,
        },
        "epochs": 9,
    },
    "space": {
        "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-3, "log": True},
        "batch_size": {"kind": "categorical", "choices": [16, 32, 64]},
        "frozen_layers": {"kind": "int", "low": 0, "high": 6},
    },
    "objective": {"metric": "validation/accuracy", "direction": "maximize"},
    "strategy": {"kind": "hyperband", "reduction_factor": 3, "min_epochs": 1, "sampler": {"kind": "tpe"}},
    "budget": {"trials": 30, "wall_clock": "2h", "target": 0.94},
    "resources": {"cpus_per_trial": 1, "gpus_per_trial": 0, "max_concurrent_trials": 2},
}
"""A whole definition, for the OpenAPI document."""
