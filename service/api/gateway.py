"""MLflow behind our token, to read only: what the tracking UI and a reading client ask for is passed on, all else is refused.

What may pass is listed in `gateway_rules`, and what of it is one project's is for `gateway_scope` to say. A request goes on as
method, canonical path, query, body and a handful of headers; its credentials, its Host and its Origin stay here. The tracking
server itself listens on this machine only.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
from fastapi import APIRouter, Request, Response, status
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse, StreamingResponse

from service.api.bodies import limited_body
from service.api.dependencies import parts_of
from service.api.gateway_answers import is_looked_through, looked_through
from service.api.gateway_graphql import narrowed_query
from service.api.gateway_rules import PREFIX, Kind, canonical_path, is_listed, kind_of, read_only_query
from service.api.gateway_scope import Asked, within
from service.api.gateway_values import Refusal
from service.api.scope import TrackedOf
from service.domain import errors

_MAX_BODY_BYTES = 1024 * 1024
_TIMEOUT = httpx.Timeout(60.0, connect=5.0, pool=15.0)
_LIMITS = httpx.Limits(max_connections=40, max_keepalive_connections=20)
_ASKED = (
    "accept", "accept-language", "content-type", "if-match", "if-modified-since", "if-none-match", "if-range",
    "if-unmodified-since", "range", "user-agent",
)  # fmt: skip
"""Headers that go on to MLflow. No cookie, token, Host, Origin, Referer, X-Forwarded-*, nor one that overrides the method."""
_ANSWERED = (
    "accept-ranges", "cache-control", "content-disposition", "content-encoding", "content-length", "content-range",
    "content-type", "etag", "expires", "last-modified", "vary",
)  # fmt: skip
"""Headers that come back. No Set-Cookie and no Access-Control-*."""
_PARTIAL = frozenset({"if-match", "if-modified-since", "if-none-match", "if-range", "if-unmodified-since", "range"})
"""Headers that ask for a part of an answer, or for none."""
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; "
    "frame-src 'self' data: blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
"""The UI needs inline styles, eval and workers from blobs; it needs nothing of another host."""
_HOME, _GRAPHQL = f"{PREFIX}/", f"{PREFIX}/graphql"
_NO_ASSISTANT = b"<script>localStorage.setItem('mlflow.assistant.fab.autoOpenedOnFirstLoad_v1', 'true')</script>"
_POLICIES = {
    Kind.PAGE: {"Content-Security-Policy": _PAGE_POLICY},
    Kind.API: {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"},
    # What a run logged may be a page with a script in it: it gets an origin of its own, and the type it says it has.
    Kind.ARTIFACT: {"Content-Security-Policy": "sandbox"},
}


@asynccontextmanager
async def _lifespan(app: object) -> AsyncIterator[None]:
    """Close the connections that requests have opened."""
    yield
    client = getattr(getattr(app, "state", None), "mlflow_client", None)
    if client is not None:
        await client.aclose()


router = APIRouter(include_in_schema=False, lifespan=_lifespan)
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


@router.api_route(PREFIX, methods=["GET", "HEAD"])
async def open_ui() -> Response:
    """The UI's own links are relative to the slash."""
    return RedirectResponse(f"{PREFIX}/", status.HTTP_308_PERMANENT_REDIRECT)


@router.api_route(PREFIX + "/{path:path}", methods=_METHODS)
async def pass_on(request: Request) -> Response:
    """Pass a reading request on to MLflow and stream its answer; who sees one project asks for that project's alone."""
    path = canonical_path(_raw_path(request))
    if path is None or not is_listed(request.method, path):
        raise _refusal(request)
    body = await limited_body(request, _MAX_BODY_BYTES, f"A request to MLflow has at most {_MAX_BODY_BYTES} bytes.")
    asked = Asked(request.method, path, request.scope.get("query_string", b""), body)
    if request.state.project is not None:
        return await _pass_within(request, asked, TrackedOf(parts_of(request).store.tracked, request.state.project))
    if path == _GRAPHQL:
        asked = replace(asked, body=read_only_query(body))
    headers = {name: request.headers[name] for name in _ASKED if name in request.headers}
    headers["accept-encoding"] = "identity" if path == _HOME else request.headers.get("accept-encoding", "identity")
    return await _answered(request, asked, await _ask(request, asked, headers))


async def _pass_within(request: Request, asked: Asked, sees: TrackedOf) -> Response:
    """Pass on what the request asks for of one project, in MLflow's own words where there is nothing of it to pass."""
    is_looked_at = is_looked_through(asked.path)
    is_api = kind_of(asked.path) is Kind.API
    headers = {name: request.headers[name] for name in _ASKED if name in request.headers and not (is_api and name in _PARTIAL)}
    headers["accept-encoding"] = "identity" if is_looked_at else request.headers.get("accept-encoding", "identity")
    headers |= {"content-type": "application/json"} if asked.method == "POST" else {}
    try:
        narrowed = await run_in_threadpool(_narrowed, asked, sees)
        # MLflow reads a HEAD as a request without parameters, which some routes take for all: its length would tell of them.
        narrowed = replace(narrowed, method="GET" if narrowed.method == "HEAD" else narrowed.method)
        answer = await _ask(request, narrowed, headers)
        if not is_looked_at or answer.status_code != httpx.codes.OK:
            return await _answered(request, narrowed, answer)
        content = await run_in_threadpool(looked_through, asked.path, await _whole(answer), sees)
    except Refusal as refusal:
        return JSONResponse(refusal.document, refusal.status, _policy(asked.path))
    return Response(content, answer.status_code, _policy(asked.path), answer.headers.get("content-type"))


def _narrowed(asked: Asked, sees: TrackedOf) -> Asked:
    if asked.path == _GRAPHQL:
        return Asked(asked.method, asked.path, body=narrowed_query(asked.body, sees))
    return within(asked, sees)


async def _answered(request: Request, asked: Asked, answer: httpx.Response) -> Response:
    """MLflow's answer as it goes out: a handful of its headers, and its content as it comes."""
    headers = {name: answer.headers[name] for name in _ANSWERED if name in answer.headers} | _policy(asked.path)
    if "location" in answer.headers:
        headers["location"] = _local(answer.headers["location"])
    if request.method == "HEAD":
        await answer.aclose()
        return Response(status_code=answer.status_code, headers=headers)
    if asked.path == _HOME and answer.status_code == httpx.codes.OK:
        return _home(await _whole(answer), answer.status_code, headers)
    return StreamingResponse(_content(answer), answer.status_code, headers)


def _policy(path: str) -> dict[str, str]:
    return {**_POLICIES[kind_of(path)], "X-Content-Type-Options": "nosniff"}


def _raw_path(request: Request) -> bytes:
    """The path as it was sent, percent-encoded, without the query."""
    raw: bytes | None = request.scope.get("raw_path")
    return (raw if raw is not None else request.scope["path"].encode()).partition(b"?")[0]


def _refusal(request: Request) -> errors.TuneyardError:
    if request.method in {"GET", "HEAD"}:
        return errors.NotFound("The tracking server is for reading runs and models here; it has no such page.")
    return errors.Forbidden(
        "MLflow can only be read here: its runs mirror the studies. Change a study through `/v1/studies` or `tuneyard study`."
    )


async def _ask(request: Request, asked: Asked, headers: Mapping[str, str]) -> httpx.Response:
    base = parts_of(request).mlflow_url
    if base is None:
        raise errors.NotReady("This service runs without a tracking server.")
    client = _client(request)
    # The server's address ends with the prefix, which canonical paths begin with.
    url = httpx.URL(base).copy_with(raw_path=_target(asked.path, asked.query))
    sent = client.build_request(asked.method, url, headers=headers, content=asked.body or None)
    try:
        return await client.send(sent, stream=True, follow_redirects=False)
    except httpx.TimeoutException as error:
        raise errors.NotReady("MLflow is too busy to answer: try again in a few seconds.") from error
    except httpx.HTTPError as error:
        raise errors.NotReady("MLflow is not up yet, or is starting again: try again in a few seconds.") from error


def _target(path: str, query: bytes) -> bytes:
    return path.encode("ascii") + (b"?" + query if query else b"")


def _client(request: Request) -> httpx.AsyncClient:
    """One for all requests, so that connections are kept; made at the first one. No proxy of the environment stands between."""
    state = request.app.state
    client: httpx.AsyncClient | None = getattr(state, "mlflow_client", None)
    if client is None:
        client = httpx.AsyncClient(timeout=_TIMEOUT, limits=_LIMITS, trust_env=False)
        state.mlflow_client = client
    return client


def _home(page: bytes, status_code: int, headers: Mapping[str, str]) -> Response:
    """The UI's page, told to leave its assistant closed: it cannot be asked here, and would say so at every first visit."""
    passed = {name: value for name, value in headers.items() if name != "content-length"}
    return Response(page.replace(b"<head>", b"<head>" + _NO_ASSISTANT, 1), status_code, passed)


async def _whole(answer: httpx.Response) -> bytes:
    return b"".join([chunk async for chunk in _content(answer)])


async def _content(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The bytes as MLflow sent them; a client that leaves early frees the connection too."""
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:
        await answer.aclose()


def _local(location: str) -> str:
    """Where MLflow redirects to, as seen from outside."""
    return httpx.URL(location).raw_path.decode("ascii") if httpx.URL(location).is_absolute_url else location
