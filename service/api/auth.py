"""Who may do this: tokens for programs, session cookies for browsers, and the links that turn one into the other.

A login link's code and a session's secret are stored as SHA-256 only, and never logged: the server keeps no access log.
"""

import os
import re
import stat
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Query, Request, Response, status
from fastapi.responses import HTMLResponse, RedirectResponse

from service.api import audit, pages
from service.api.bodies import small_body
from service.api.browsers import SAFE_METHODS, check_host, check_origin
from service.api.dependencies import ApiParts, all_parts_of
from service.api.documents import decode
from service.api.identity import (
    bearer,
    counts,
    new_secret,
    operator,
    refused,
    session_cookie,
    session_of,
    sha256_of,
    token_holder,
)
from service.api.limits import Limits
from service.api.problems import BodyTooLarge, InvalidParameters, documented
from service.api.schemas import LoginLinkView, ViolationView
from service.api.scope import parts_within
from service.domain import errors
from service.domain.access import DEFAULT_PROJECT, PROJECT_PATTERN, Caller, Role
from service.domain.ports import AccessStore, Clock
from service.settings import Settings, write_exclusive

_READING_POSTS = frozenset({"/v1/studies:preview", "/mlflow/{path:path}"})
"""Routes that change nothing, or refuse by themselves what would."""
_EVERYBODYS = frozenset({"/v1/login-links", "/logout"})
"""Routes that change nothing but one's own sessions."""
_PROJECT_HEADER = "Tuneyard-Project"
_NEXT = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")
"""A path of this service: one slash, then printable ASCII without a backslash, which browsers read as a slash."""
_DEFAULT_NEXT = "/mlflow/"
_TOKEN = re.compile(r"[!-~]{16,}")
_USED = "The login link was used already, has run out, or is not whole. Make a new one with `tuneyard login`."
_PRIVATE = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


def authenticate(request: Request) -> None:
    """Let callers through who may do this, and put before the route what they see of the service.

    Raises NotAuthenticated, Forbidden, TooOften, ProjectNotFound, StudyNotFound.
    """
    parts = all_parts_of(request)
    caller = _who_asks(request, parts)
    route = getattr(request.scope.get("route"), "path", "")
    is_reading = request.method in SAFE_METHODS or route in _READING_POSTS
    if not is_reading:
        _check_pace(request, caller)  # first: the audit log has every change that is refused from here on
    audit.begin(request, caller, is_reading=is_reading)
    project = _project_for(request, parts, caller)
    if not is_reading and caller.project is None:  # what others change is their project's, or is not there
        audit.concerns(request, _concerned(request, parts, project))
    needed = Role.VIEWER if is_reading or route in _EVERYBODYS else Role.EDITOR
    if not caller.role.covers(needed):
        raise errors.Forbidden(
            f"You may look, and not change anything: your token's role is {caller.role}. This needs the token of "
            f"{_needed_by(request)}."
        )
    study_id = request.path_params.get("study_id")
    if project is not None and study_id is not None and parts.store.studies.project_of(study_id) != project:
        raise errors.StudyNotFound(study_id)
    request.state.project = project
    request.state.parts = parts_within(parts, project)


def require_admin(request: Request) -> Caller:
    """The caller, who is an admin and no browser: a session cannot make tokens. Raises NotAuthenticated, Forbidden."""
    caller = token_holder(request)
    if not caller.role.covers(Role.ADMIN):
        raise errors.Forbidden(f"Only an admin may do this, and your token's role is {caller.role}.")
    return caller


def require_operator(request: Request) -> Caller:
    """The caller, who may do everything in every project. Raises NotAuthenticated, Forbidden."""
    caller = token_holder(request)
    if not caller.is_admin_of_all:
        where = "all projects" if caller.project is None else f"project {caller.project!r}"
        raise errors.Forbidden(f"Only an admin of all projects may do this; your token's role is {caller.role}, in {where}.")
    return caller


def _needed_by(request: Request) -> str:
    """Whose token a route needs that changes something, by what it asks of its caller."""
    asked = {one.call for one in request.scope["route"].dependant.dependencies}
    return "an admin of all projects" if require_operator in asked else "an admin" if require_admin in asked else "an editor"


def _who_asks(request: Request, parts: ApiParts) -> Caller:
    """The caller, by the token or the cookie that came along."""
    if "Authorization" in request.headers:
        return bearer(request, parts)
    caller = session_of(request, parts)
    check_host(request, parts.settings)
    if request.method not in SAFE_METHODS:
        check_origin(request)
    return caller


def _check_pace(request: Request, caller: Caller) -> None:
    limits: Limits = request.app.state.limits
    seconds = limits.writes.count(f"{caller.source} {caller.token or caller.name}")  # a provider's people choose their names
    if seconds:
        raise errors.TooOften(f"You have sent very many changes in the last minute: go on in {seconds} s.", seconds)


def _project_for(request: Request, parts: ApiParts, caller: Caller) -> str | None:
    """The project that the request is about; None for all, which only some callers see. Raises ProjectNotFound."""
    asked = request.headers.get(_PROJECT_HEADER, caller.project)
    if asked is None:
        return None
    if not re.fullmatch(PROJECT_PATTERN, asked) or caller.project not in {None, asked}:
        raise errors.ProjectNotFound(asked[:80])
    known: set[str] = request.app.state.projects  # none is ever removed: one look at the store does for each
    if asked not in known:
        known.add(parts.store.projects.get(asked).name)
    return asked


def _concerned(request: Request, parts: ApiParts, project: str | None) -> str | None:
    """Whose that is which the request changes, as far as it can be told from its path, for the audit log."""
    study_id = request.path_params.get("study_id")
    if study_id is not None:
        try:
            return parts.store.studies.project_of(study_id)
        except errors.StudyNotFound:
            return None
    if "access" in request.scope["route"].tags:  # people, not a project's things; what it names may be one
        named = request.path_params.get("name", "")
        return named if re.fullmatch(PROJECT_PATTERN, named) else None
    return project or DEFAULT_PROJECT


router = APIRouter(tags=["access"])


@router.post(
    "/v1/login-links",
    operation_id="createLoginLink",
    summary="Make a login link",
    status_code=status.HTTP_201_CREATED,
    dependencies=[Depends(authenticate)],
    response_description="The link. It is shown only here.",
    responses=documented(errors.MalformedDocument, BodyTooLarge, errors.UnsupportedMediaType, InvalidParameters),
    openapi_extra={
        "requestBody": {
            "required": False,
            "description": "Which page to open after the login.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "additionalProperties": False,
                        "properties": {
                            "next": {
                                "type": "string",
                                "pattern": f"^{_NEXT.pattern}$",
                                "default": _DEFAULT_NEXT,
                                "description": "A path of this service; it may have a fragment.",
                                "examples": ["/mlflow/#/experiments/1/runs"],
                            }
                        },
                    },
                    "example": {"next": "/mlflow/#/experiments/1/runs"},
                }
            },
        }
    },
)
def create_login_link(request: Request, response: Response, body: Annotated[bytes, Depends(small_body)]) -> LoginLinkView:
    """A path that logs one browser in as you, once, within a few minutes. Needs a token: a session cannot make further ones."""
    parts, caller = all_parts_of(request), token_holder(request)
    document = decode(body, request.headers.get("Content-Type")) if body.strip() else {}
    next_path = _wanted_next(document)
    response.headers.update(_PRIVATE)
    expires_at = caller.until(parts.clock.now() + timedelta(seconds=parts.settings.login_code_seconds))
    return LoginLinkView(url=_login_path(parts.store.access, expires_at, next_path, caller), expires_at=expires_at)


@router.get("/login", operation_id="logIn", include_in_schema=False)
def log_in(
    request: Request,
    code: Annotated[str, Query(max_length=200)] = "",
    next_path: Annotated[str, Query(alias="next", max_length=2001)] = _DEFAULT_NEXT,
) -> Response:
    """Turn a login link's code into a session, once.

    GET only: link previews ask with HEAD, which answers 405; a browser's prefetch says so and is refused with the code intact.
    """
    if _is_prefetch(request.headers):
        return Response(status_code=status.HTTP_503_SERVICE_UNAVAILABLE, headers=_PRIVATE)
    if not _NEXT.fullmatch(next_path):
        return _refused(request, "The link does not lead to a page of this service. Make a new one with `tuneyard login`.")
    parts = all_parts_of(request)
    now = parts.clock.now()
    caller = parts.store.access.use_login_code(sha256_of(code), now) if code else None
    if caller is None or not counts(caller, parts):
        error = refused(request, errors.InvalidLoginCode(_USED))
        if isinstance(error, errors.TooOften):
            raise error
        return _refused(request, _USED)
    audit.begin(request, caller, is_reading=False)
    session, expires_at = new_secret(), caller.until(now + timedelta(seconds=parts.settings.session_seconds))
    parts.store.access.add_session(sha256_of(session), expires_at, caller)
    response = RedirectResponse(next_path, status.HTTP_303_SEE_OTHER, headers=_PRIVATE)
    # Lax, not strict: the link is clicked in a terminal or a mail, and the page it leads to must get the cookie.
    response.set_cookie(
        session_cookie(request),
        session,
        max_age=int((expires_at - now).total_seconds()),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.post(
    "/logout",
    operation_id="logOut",
    include_in_schema=False,
    dependencies=[Depends(authenticate)],
    status_code=status.HTTP_204_NO_CONTENT,
)
def log_out(request: Request) -> Response:
    """End this browser's session."""
    session = request.cookies.get(session_cookie(request))
    if session:
        all_parts_of(request).store.access.delete_session(sha256_of(session))
    response = Response(status_code=status.HTTP_204_NO_CONTENT, headers=_PRIVATE)
    response.delete_cookie(session_cookie(request), httponly=True, samesite="lax", secure=request.url.scheme == "https")
    return response


def new_token() -> str:
    """A token nobody guesses."""
    return new_secret()


def token_of(settings: Settings) -> str:
    """The token of a service: that of the file it is told to use, else its home's. Raises NotReady."""
    if settings.token_file is None:
        return load_or_make_token(settings.layout.token)
    return _given_token(settings.token_file)


def _given_token(path: Path) -> str:
    """The token in a file that several services share, and that somebody else takes care of: it is neither made nor changed.

    It may be a link, and its group may read it, as with secrets that are mounted into a container.
    """
    try:
        with path.open() as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.read(4096).strip()
    except (OSError, UnicodeDecodeError) as error:
        advice = "make it with `openssl rand -hex 32`, or unset TUNEYARD_TOKEN_FILE"
        raise errors.NotReady(f"The token file {path} cannot be read ({error}): {advice}.") from error
    if stat.S_IMODE(mode) & 0o007:
        raise errors.NotReady(f"Everybody on this machine can read the token file {path}: run `chmod o= {path}`.")
    if not _TOKEN.fullmatch(token):
        raise errors.NotReady(f"The token file {path} holds no token: put one into it, as of `openssl rand -hex 32`.")
    return token


def load_or_make_token(path: Path) -> str:
    """The token in this file, made at the first start; safe to call from several processes at once.

    A file that others can read is closed to them. Raises NotReady when it is not ours to close, or holds no token.
    """
    while True:
        try:
            with open(path, opener=_open_itself) as file:
                _close_to_others(file.fileno(), path)
                token = file.read().strip()
        except FileNotFoundError:
            write_exclusive(path, new_token())
        except (OSError, UnicodeDecodeError) as error:
            raise errors.NotReady(f"The token file {path} cannot be read ({error}): delete it to get a new token.") from error
        else:
            if not _TOKEN.fullmatch(token):
                raise errors.NotReady(f"The token file {path} holds no token: delete it to get a new one.")
            return token


def new_login_path(access: AccessStore, clock: Clock, seconds: float, token: str, next_path: str = _DEFAULT_NEXT) -> str:
    """The path of a new login link, which opens `next_path` for who holds the service's own `token`.

    Raises ValueError for a path outside this service.
    """
    if not _NEXT.fullmatch(next_path):
        raise ValueError(f"{next_path!r} is not a path of this service: it starts with one slash")
    return _login_path(access, clock.now() + timedelta(seconds=seconds), next_path, operator(token))


def _login_path(access: AccessStore, expires_at: datetime, next_path: str, caller: Caller) -> str:
    code = new_secret()
    access.add_login_code(sha256_of(code), expires_at, caller)
    return "/login?" + urlencode({"code": code, "next": next_path})


def _wanted_next(document: Any) -> str:
    if not isinstance(document, dict):
        raise InvalidParameters([ViolationView(pointer="", detail='the body is an object such as {"next": "/mlflow/"}')])
    unknown = [key for key in document if key != "next"]
    if unknown:
        raise InvalidParameters([ViolationView(pointer=f"/{unknown[0]}", detail=f"`{unknown[0]}` is not a key here: remove it")])
    wanted = document.get("next", _DEFAULT_NEXT)
    if not isinstance(wanted, str) or not _NEXT.fullmatch(wanted):
        detail = "`next` is a path of this service: it starts with one slash and has printable ASCII characters only"
        raise InvalidParameters([ViolationView(pointer="/next", detail=detail)])
    return wanted


def _is_prefetch(headers: Mapping[str, str]) -> bool:
    purpose = headers.get("Sec-Purpose", "") + headers.get("Purpose", "") + headers.get("X-Moz", "")
    return "prefetch" in purpose.lower()


def _refused(request: Request, detail: str) -> Response:
    """A page for people, or the problem document for everything else."""
    if not pages.wants_page(request):
        raise errors.InvalidLoginCode(detail)
    page = pages.message("This login link does not work", [detail])
    return HTMLResponse(page, status.HTTP_403_FORBIDDEN, headers={**_PRIVATE, **pages.HEADERS})


def _open_itself(path: str, flags: int) -> int:
    """Open a file but not what a link points to, and without waiting for a pipe's other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _close_to_others(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise errors.NotReady(f"The token file {path} is no regular file: delete it to get a new token.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        try:
            os.fchmod(descriptor, 0o600)
        except PermissionError as error:
            detail = (
                f"Others can read the token file {path}: run `chmod 600` on it as its owner, or delete it to get a new token."
            )
            raise errors.NotReady(detail) from error
