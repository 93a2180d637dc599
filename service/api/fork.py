"""Forks: new studies that begin with what an old one knows."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response, status

from search_spaces import count
from service.api.bodies import read_as, whole_body
from service.api.dependencies import ApiParts, Caller, Parts, all_parts_of
from service.api.documents import decode
from service.api.paths import STUDY, StudyId
from service.api.problems import BodyTooLarge, InvalidParameters, documented
from service.api.refine import REFUSALS, refinement_of
from service.api.schemas import StudyView
from service.api.scope import parts_within
from service.api.step_schemas import ForkRequest
from service.api.studies import IdempotencyHeader, etag_of, key_of, store_new, view_of
from service.domain import errors
from service.domain.definition import parse_definition
from service.domain.forking import forked_document
from service.domain.ports import IdempotencyKey
from service.domain.study import Study

router = APIRouter(tags=["studies"])


@router.post(
    STUDY + ":fork",
    operation_id="forkStudy",
    summary="Fork a study",
    status_code=status.HTTP_201_CREATED,
    response_description="The new study, queued.",
    responses=documented(
        errors.MalformedDocument, errors.IdempotencyConflict, BodyTooLarge, errors.UnsupportedMediaType,
        errors.InvalidDefinition, errors.QuotaSpent, InvalidParameters, *REFUSALS,
    ),
)  # fmt: skip
def fork_study(  # noqa: PLR0913, PLR0917 - each is a part of the request
    request: Request,
    response: Response,
    study_id: StudyId,
    parts: Parts,
    by: Caller,
    body: Annotated[bytes, Depends(whole_body)],
    idempotency_key: IdempotencyHeader = None,
) -> StudyView:
    """Start a new study whose definition is this one's with some changes, and which knows this one's trials (`warm_start`).

    This study may be in any state, and stays as it is. The fork has a name of its own, and no `initial` configurations, as this
    study has tried them. Trials outside of a refined space do not carry over; another value of a parameter that it fixes is taken
    for the fixed one, as such a parameter matters little. The answer's `warm_start` counts them. Violations are named by their
    place in `changes`, where they can be mended.
    """
    key = key_of(parts, idempotency_key, f"{study_id}:fork\n".encode() + body)
    stored = None if key is None else parts.store.studies.with_key(key)
    if stored is None:
        old = parts.store.studies.get(study_id)
        parts = parts_within(all_parts_of(request), old.project)  # its rows are that project's, and so is the fork
        stored = _forked(parts, old, _read(body, request.headers.get("Content-Type")), key, by)
    response.headers.update({"Location": f"/v1/studies/{stored.id}", "ETag": etag_of(stored)})
    return view_of(parts, stored)


def _forked(parts: ApiParts, old: Study, wanted: ForkRequest, key: IdempotencyKey | None, by: str) -> Study:
    space = refinement_of(parts, old).space if wanted.refine else None
    # What a refinement fixes matters little: trials with other values of it say as much.
    settled = frozenset(name for name, parameter in (space or {}).items() if count(parameter) == 1)
    document = forked_document(old, wanted.changes, space)
    try:
        definition = parse_definition(document)
        parts.catalog.check(definition)
        return store_new(parts, definition, key, by, settled)
    except errors.InvalidDefinition as refused:
        found = [errors.Violation(f"/changes{one.pointer}", _said(one, old, wanted)) for one in refused.violations]
        raise errors.InvalidDefinition(found) from refused


def _said(violation: errors.Violation, old: Study, wanted: ForkRequest) -> str:
    """What is wrong, and that it is the old study's own where no change has touched it."""
    first = violation.pointer[1:].partition("/")[0]
    is_asked = first in wanted.changes or (wanted.refine and first == "space")
    return violation.detail if is_asked else f"{violation.detail} (so it is in {old.id!r}: `changes` can mend it)"


def _read(body: bytes, content_type: str | None) -> ForkRequest:
    """What was sent, in JSON or YAML; nothing at all asks for the same study again."""
    document: Any = decode(body, content_type) if body.strip() else {}
    return read_as(ForkRequest, document)
