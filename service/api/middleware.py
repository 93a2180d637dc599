"""Around every answer: what keeps browsers from harm, counts, the audit log, a problem document for what nobody foresaw."""

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.audit import note
from service.api.dependencies import ApiParts
from service.api.health import Metrics
from service.api.problems import internal_error

_LOG = logging.getLogger("tuneyard.api")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
}
"""Set unless the route says something else: MLflow's pages and artifacts bring a policy of their own."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Shell:
    """The outermost layer. Pure ASGI: it passes streams on as they come."""

    def __init__(self, app: ASGIApp, metrics: Metrics, parts: ApiParts) -> None:
        self._app = app
        self._metrics = metrics
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                await self._noted(scope, message["status"])  # before anybody hears of it
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                self._count(scope, message["status"], time.perf_counter() - begun)
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            return  # in the middle of its body: there is nobody to answer, and nothing of ours to mend
        except Exception as error:
            if started:
                raise
            await internal_error(Request(scope), error)(scope, receive, answer)

    async def _noted(self, scope: Scope, status_code: int) -> None:
        """What was done is done: where the audit log cannot be written, this log has the entry."""
        try:
            await note(scope, status_code, self._parts)
        except Exception:
            _LOG.exception("not in the audit log: %s %r %d", scope["method"], scope["path"], status_code)

    def _count(self, scope: Scope, status_code: int, seconds: float) -> None:
        # A stranger must not be able to make metrics: no raw paths, no made-up methods.
        route = getattr(scope.get("route"), "path_format", "(none)")
        method = scope["method"] if scope["method"] in _METHODS else "(other)"
        self._metrics.count(method, route, status_code, seconds)
