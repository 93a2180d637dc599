"""Who may use the service: tokens and projects, and the log of who did what."""

import base64
import secrets
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Query, Request, Response, status
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from service.api import audit
from service.api.access_views import (
    AuditEntryView,
    CallerView,
    NewTokenView,
    ProjectRequest,
    ProjectsView,
    ProjectView,
    QuotasRequest,
    TokenRequest,
    TokensView,
    TokenView,
)
from service.api.auth import require_admin, require_operator
from service.api.bodies import body_of, read_as, small_body
from service.api.dependencies import Caller as CallerName
from service.api.dependencies import all_parts_of
from service.api.documents import decode
from service.api.identity import TOKEN_PREFIX, new_secret, sha256_of
from service.api.paths import ProjectName, TokenId
from service.api.problems import BodyTooLarge, InvalidParameters, documented
from service.api.schemas import ViolationView
from service.domain import errors
from service.domain.access import AccessToken, Caller, Project, Usage
from service.domain.usage import usage_of

router = APIRouter(tags=["access"])

_Wanted = TypeVar("_Wanted", bound=BaseModel)
_BODIES = (errors.MalformedDocument, BodyTooLarge, errors.UnsupportedMediaType, InvalidParameters)
_PRIVATE = {"Cache-Control": "no-store"}
_LARGEST_ID = 2**63 - 1
_PAGE = 500
_NDJSON = "application/x-ndjson"
SmallBody = Annotated[bytes, Depends(small_body)]
Admin = Annotated[Caller, Depends(require_admin)]
Operator = Annotated[Caller, Depends(require_operator)]
_QUOTAS = {"max_running_studies": 4, "max_gpu_hours": 500}


@router.get("/v1/me", operation_id="getMe", summary="Who am I?", response_description="You.")
def get_me(request: Request) -> CallerView:
    """Who the service takes you for."""
    return CallerView.of(request.state.caller)


@router.post(
    "/v1/tokens",
    operation_id="createToken",
    summary="Make a token",
    status_code=status.HTTP_201_CREATED,
    response_description="The token. Its secret is shown only here.",
    responses=documented(*_BODIES),
    openapi_extra=body_of(TokenRequest, {"name": "ada", "role": "editor", "project": "vision", "expires_in_days": 90}),
)
def create_token(request: Request, response: Response, admin: Admin, by: CallerName, body: SmallBody) -> NewTokenView:
    """A token for a person or a program, with a role in one project or in all. Only an admin's token makes further ones."""
    parts, wanted = all_parts_of(request), _read(TokenRequest, request, body)
    project = _project_of(wanted, admin)
    audit.concerns(request, project)
    if admin.project is not None and project != admin.project:
        raise errors.Forbidden(f"You make tokens for project {admin.project!r} alone.")
    if project is not None:
        parts.store.projects.get(project)
    now, secret = parts.clock.now(), new_secret(TOKEN_PREFIX)
    lasting = wanted.expires_in_days
    token = AccessToken(
        id=base64.b32encode(secrets.token_bytes(5)).decode().lower(),
        name=wanted.name,
        role=wanted.role,
        project=project,
        created_at=now,
        created_by=by,
        expires_at=None if lasting is None else now + timedelta(days=lasting),
    )
    parts.store.access.add_token(token, sha256_of(secret))
    response.headers.update(_PRIVATE)
    return NewTokenView(**TokenView.of(token).model_dump(), token=secret)


@router.get("/v1/tokens", operation_id="listTokens", summary="List tokens", response_description="The tokens.")
def list_tokens(request: Request, admin: Admin) -> TokensView:
    """All tokens of your project, without their secrets, which nobody knows but their owners."""
    return TokensView(items=[TokenView.of(one) for one in all_parts_of(request).store.access.tokens(admin.project)])


@router.delete(
    "/v1/tokens/{token_id}",
    operation_id="revokeToken",
    summary="Revoke a token",
    response_description="The token, revoked.",
    responses=documented(errors.TokenNotFound),
)
def revoke_token(request: Request, token_id: TokenId, admin: Admin) -> TokenView:
    """Let nobody in with it any more, nor with a browser session that came of it. Asking twice does no harm."""
    parts = all_parts_of(request)
    revoked = parts.store.access.revoke(token_id, parts.clock.now(), admin.project)
    audit.concerns(request, revoked.project)
    return TokenView.of(revoked)


@router.delete(
    "/v1/sessions",
    operation_id="endSessions",
    summary="End all sessions",
    status_code=status.HTTP_204_NO_CONTENT,
    response_description="Every browser is logged out.",
)
def end_sessions(request: Request, _: Operator) -> None:
    """Log every browser out, whoever uses it, and let no login link that was made before open one."""
    all_parts_of(request).store.access.delete_sessions()


@router.get("/v1/projects", operation_id="listProjects", summary="List projects", response_description="The projects.")
def list_projects(request: Request) -> ProjectsView:
    """The projects that you see, with their quotas and what their studies have taken."""
    store, caller = all_parts_of(request).store, request.state.caller
    projects = store.projects.all() if caller.project is None else [store.projects.get(caller.project)]
    usage = usage_of(store.projects, all_parts_of(request).datasets, [project.name for project in projects])
    return ProjectsView(items=[ProjectView.of(project, usage[project.name]) for project in projects])


@router.post(
    "/v1/projects",
    operation_id="createProject",
    summary="Make a project",
    status_code=status.HTTP_201_CREATED,
    response_description="The project.",
    responses=documented(*_BODIES, errors.ProjectExists),
    openapi_extra=body_of(ProjectRequest, {"name": "vision", **_QUOTAS}),
)
def create_project(request: Request, _: Operator, body: SmallBody) -> ProjectView:
    """A place for studies and data sets that only its members see."""
    parts, wanted = all_parts_of(request), _read(ProjectRequest, request, body)
    audit.concerns(request, wanted.name)
    return ProjectView.of(parts.store.projects.add(Project(wanted.name, parts.clock.now(), wanted.quotas)), Usage())


@router.put(
    "/v1/projects/{name}/quotas",
    operation_id="setQuotas",
    summary="Set a project's quotas",
    response_description="The project.",
    responses=documented(*_BODIES, errors.ProjectNotFound),
    openapi_extra=body_of(QuotasRequest, _QUOTAS),
)
def set_quotas(request: Request, name: ProjectName, _: Operator, body: SmallBody) -> ProjectView:
    """What the project's studies may take together, from now on. Studies wait while a quota is used up; nothing is stopped."""
    parts, wanted = all_parts_of(request), _read(QuotasRequest, request, body)
    project = parts.store.projects.set_quotas(name, wanted.quotas)
    return ProjectView.of(project, usage_of(parts.store.projects, parts.datasets, [name])[name])


@router.get(
    "/v1/audit",
    operation_id="exportAudit",
    summary="Export the audit log",
    response_class=StreamingResponse,
    response_description="An entry a line, in JSON.",
    responses={
        200: {"content": {_NDJSON: {"schema": {"type": "string", "description": "A line for each entry (`AuditEntryView`)."}}}},
        **documented(InvalidParameters),
    },
)
def export_audit(
    request: Request,
    admin: Admin,
    after: Annotated[int, Query(ge=0, le=_LARGEST_ID, description="Only entries with a greater id.", examples=[42])] = 0,
) -> StreamingResponse:
    """Who did what, when, and from where: every request that may have changed something, of your project or of all."""
    log = all_parts_of(request).store.audit

    def lines() -> Iterator[str]:
        last = after
        while entries := log.after(last, _PAGE, admin.project):
            yield "".join(AuditEntryView.of(entry).model_dump_json() + "\n" for entry in entries)
            last = entries[-1].id

    return StreamingResponse(lines(), media_type=_NDJSON, headers=_PRIVATE)


def _project_of(wanted: TokenRequest, admin: Caller) -> str | None:
    """The project that the token is to see: who sees every one says it. Raises InvalidParameters."""
    if "project" in wanted.model_fields_set:
        return wanted.project
    if admin.project is None:
        detail = "`project` is missing: name the one that the token is to see, or give null for every one"
        raise InvalidParameters([ViolationView(pointer="/project", detail=detail)])
    return admin.project


def _read(model: type[_Wanted], request: Request, body: bytes) -> _Wanted:
    """What was sent. Raises InvalidParameters."""
    return read_as(model, decode(body, request.headers.get("Content-Type")), _refusal)


def _refusal(violations: Sequence[errors.Violation]) -> InvalidParameters:
    return InvalidParameters([ViolationView(pointer=one.pointer, detail=one.detail) for one in violations])
