"""Requests to the service: the token, retries where a repeat does no harm, and problem documents as exceptions."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from pydantic import ValidationError

from service.api.schemas import Problem
from service.client.address import Address, is_loopback
from service.client.errors import NotLetIn, ProblemError, ServiceUnreachable, UnusableAddress

RETRY_SECONDS = (0.2, 0.5, 1.0)
"""Pauses before the second and later tries of a request."""
_UNAVAILABLE = 503
_FIRST_ERROR = 400

Content = bytes | Callable[[], Iterator[bytes]]
"""A body: whole, or a function that starts it anew for each try."""


class Connection:
    """A service's address with a pool of connections to it."""

    def __init__(
        self,
        address: Address,
        *,
        timeout: float,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        user: str | None = None,
        project: str | None = None,
    ) -> None:
        self.url = address.url
        self._address = address
        self.sleep = sleep
        headers = {"User-Agent": "tuneyard"}
        if user:
            headers["Tuneyard-User"] = user
        if project:
            if not re.fullmatch("[ -~]+", project):
                raise UnusableAddress(f"{project!r} is no project's name: that is small letters, digits and dashes.")
            headers["Tuneyard-Project"] = project
        if address.token:
            headers["Authorization"] = f"Bearer {address.token}"
        self._timeout = timeout
        self._http = httpx.Client(
            base_url=address.url,
            headers=headers,
            timeout=timeout,
            transport=transport,
            trust_env=not is_loopback(address.url),  # a proxy from the environment has no way to this machine's own ports
        )

    def close(self) -> None:
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Content | None = None,
    ) -> httpx.Response:
        """The answer to a request that may safely be sent twice; raises `ProblemError`, `ServiceUnreachable`."""
        for pause in (*RETRY_SECONDS, None):
            body = content() if callable(content) else content
            try:
                response = self._http.request(method, path, params=params, headers=headers, content=body)
            except httpx.TransportError as error:
                if pause is None:
                    raise ServiceUnreachable(self.url, reason_of(error)) from error
                self.sleep(pause)
                continue
            if response.status_code != _UNAVAILABLE or pause is None:
                break
            self.sleep(max(pause, _retry_after(response)))
        self._raise_for_problem(response)
        return response

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str], params: Mapping[str, Any] | None = None, idle_seconds: float
    ) -> Iterator[httpx.Response]:
        """One answer read piece by piece, tried once; raises `ProblemError` and httpx's transport errors."""
        timeout = httpx.Timeout(self._timeout, read=idle_seconds)
        with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as response:
            if response.status_code >= _FIRST_ERROR:
                response.read()
                self._raise_for_problem(response)
            yield response

    def _raise_for_problem(self, response: httpx.Response) -> None:
        try:
            raise_for_problem(response)
        except ProblemError as error:
            if error.problem.status != httpx.codes.UNAUTHORIZED:
                raise
            sent = self._address.token is not None
            raise NotLetIn(error.problem, self.url, sent=sent, origin=self._address.origin) from error


def raise_for_problem(response: httpx.Response) -> None:
    """Raise `ProblemError` for an answer that is an error, whether it carries a problem document or not."""
    if response.status_code < _FIRST_ERROR:
        return
    try:
        problem = Problem.model_validate_json(response.content)
    except ValidationError:
        detail = f"{response.url} answered {response.status_code} {response.reason_phrase}: is this a Tuneyard service?"
        problem = Problem(type="about:blank", title=response.reason_phrase or "Error", status=response.status_code, detail=detail)
    raise ProblemError(problem)


def reason_of(error: httpx.TransportError) -> str:
    """What happened, in a few words."""
    if isinstance(error, httpx.LocalProtocolError):  # its text repeats the header that it stumbles over
        return "a request cannot be sent as it stands"
    return str(error) or type(error).__name__


def _retry_after(response: httpx.Response) -> float:
    """Seconds the service asks to wait, at most 10."""
    value = response.headers.get("Retry-After", "")
    return min(float(value), 10.0) if value.isdigit() else 0.0
