"""Studies: POST one, read it, forget it."""

import hashlib
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request, Response, status

from service.api.bodies import whole_body
from service.api.checkpoints import has_checkpoint
from service.api.dependencies import ApiParts, Caller, Parts
from service.api.documents import decode
from service.api.final import best_of, final_of
from service.api.pagination import Cursor, Limit
from service.api.paths import STUDY, StudyId
from service.api.problems import BodyTooLarge, InvalidParameters, documented
from service.api.quarantined import quarantined_places
from service.api.schemas import StudyPage, StudyView, TrialView, study_view
from service.api.waiting import why_studies_wait
from service.api.warm_start import resolve
from service.domain import errors
from service.domain.access import DEFAULT_PROJECT, Quotas, spent_quota
from service.domain.budget import Spending
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.grouped import said_of
from service.domain.ports import IdempotencyKey, StudyQuery
from service.domain.study import Study, StudyState, new_study_id
from service.domain.usage import usage_of

router = APIRouter(tags=["studies"])

IdempotencyHeader = Annotated[
    str | None,
    Header(
        pattern=r"^[!-~]{1,200}$", examples=["9d2c1f0e-6b1f-4c57-8a55-0f8f2f1c7f11"],
        description="A name for this request: sent again with the same body, it answers what came of it the first time.",
    ),
]  # fmt: skip


@router.post(
    "/v1/studies",
    operation_id="createStudy",
    summary="Start a study",
    status_code=status.HTTP_201_CREATED,
    response_description="The study, queued.",
    responses=documented(
        errors.MalformedDocument, errors.IdempotencyConflict, BodyTooLarge, errors.UnsupportedMediaType,
        errors.InvalidDefinition, errors.QuotaSpent, InvalidParameters,
    ),
)  # fmt: skip
def create_study(
    request: Request,
    response: Response,
    parts: Parts,
    by: Caller,
    body: Annotated[bytes, Depends(whole_body)],
    idempotency_key: IdempotencyHeader = None,
) -> StudyView:
    """Check the definition and queue the study; a driver takes it up within seconds.

    Anything that could not work is refused here, with every violation named by its field, and nothing is stored.
    """
    key = key_of(parts, idempotency_key, body)
    # A repeated request is answered first: what was right then may be refused now, when a model or rows are gone.
    stored = None if key is None else parts.store.studies.with_key(key)
    if stored is None:
        document = decode(body, request.headers.get("Content-Type"))
        definition = parse_definition(document)
        with said_of(document):
            parts.catalog.check(definition)
        stored = store_new(parts, definition, key, by)
    response.headers.update({"Location": f"/v1/studies/{stored.id}", "ETag": etag_of(stored)})
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
def get_study(response: Response, study_id: StudyId, parts: Parts) -> StudyView:
    """One study: its state, its best trial so far, and what it has spent. Its `ETag` is what changing it takes."""
    study = parts.store.studies.get(study_id)
    response.headers["ETag"] = etag_of(study)
    return view_of(parts, study).model_copy(update={"quarantined": quarantined_places(parts, study)})


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
    return TrialView.of(best, has_checkpoint=has_checkpoint(parts, best))


def key_of(parts: ApiParts, header: str | None, body: bytes) -> IdempotencyKey | None:
    """The client's name for a request with this body, if it gave one. Projects do not get in each other's way with them."""
    if header is None:
        return None
    own = "" if parts.project == DEFAULT_PROJECT else f"{parts.project} "  # no name has a space
    return IdempotencyKey(own + header, hashlib.sha256(body).hexdigest())


def store_new(
    parts: ApiParts, definition: StudyDefinition, key: IdempotencyKey | None, by: str, settled: AbstractSet[str] = frozenset()
) -> Study:
    """A new study of a checked definition, stored with what it knows of earlier ones. Raises InvalidDefinition for those."""
    prior, known = resolve(parts.store, definition, settled)
    _require_quota(parts)
    study = Study(
        id=new_study_id(definition.name), definition=definition, created_at=parts.clock.now(), warm_start=known, created_by=by,
        project=parts.project,
    )  # fmt: skip
    return parts.store.studies.add(study, key, prior)


def _require_quota(parts: ApiParts) -> None:
    """Raises QuotaSpent when nothing of the project may run any more."""
    quotas = parts.store.projects.get(parts.project).quotas
    if quotas == Quotas():
        return
    usage = usage_of(parts.store.projects, parts.datasets, [parts.project])[parts.project]
    spent = spent_quota(parts.project, quotas, usage)
    if spent:
        raise errors.QuotaSpent(spent)


def etag_of(study: Study) -> str:
    """What names this version of the study itself; its trials have versions of their own."""
    return f'"{study.version}"'


def view_of(parts: ApiParts, study: Study) -> StudyView:
    """The view of a study."""
    return _views_of(parts, [study])[0]


def _views_of(parts: ApiParts, studies: Sequence[Study]) -> list[StudyView]:
    with parts.store.at_one_moment():
        return _read_views(parts, studies)


def _read_views(parts: ApiParts, studies: Sequence[Study]) -> list[StudyView]:
    ids, store, now = [study.id for study in studies], parts.store, parts.clock.now()
    summaries = parts.summaries.of(studies)
    experiments, footprints, waiting = store.mirror.experiments(ids), store.footprints.of(ids), why_studies_wait(parts, studies)
    views = []
    for study in studies:
        final = final_of(parts, study) if study.definition.final else None
        summary, total = summaries[study.id], summaries[study.id].totals
        view = study_view(
            study,
            counts=summary.counts,
            best=(final and final.champion) or summary.best,
            spent=Spending(total.trials, total.reports, study.active_seconds(now), total.gpu_seconds),
            experiment=experiments.get(study.id),
            final=final,
            footprint=footprints.get(study.id),
            waiting=waiting[study.id],
        )
        views.append(view)
    return views


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
