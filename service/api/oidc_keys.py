"""The public keys of an identity provider: fetched by one request at a time, kept for minutes, and not fetched again at once.

Whoever sends a token decides when they are needed. So a provider that is away, or odd, costs one request its time and not all.
"""

import json
import math
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import httpx
import jwt

from service.domain.errors import NotReady

_FRESH_SECONDS = 240.0
_KEPT_SECONDS = 300.0
"""A key that was withdrawn counts no longer than this. They are fetched anew before, so that nobody has to wait for it."""
_PAUSE_SECONDS = 10.0
"""Between two fetches, whatever came of the first: nobody has the provider asked by a key that it never had, or that is away."""
_WAIT_SECONDS = 1.0
"""For the keys that another request is fetching, by one that can do nothing without."""
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1024 * 1024
_AWAY = "The identity provider cannot be asked for its keys: try again in a few seconds."

Keys = Mapping[str, jwt.PyJWK]
"""Keys by their ids."""


@dataclass(frozen=True)
class _Known:
    keys: Keys = field(default_factory=dict)
    at: float = -math.inf


class SigningKeys:
    """A provider's keys; thread-safe. `fetch` gets them and raises NotReady, `clock` gives seconds that never go back."""

    def __init__(self, fetch: Callable[[], Keys], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._fetching = Lock()
        self._known = _Known()
        self._next_at = -math.inf
        self._failure = _AWAY

    def key(self, key_id: str) -> jwt.PyJWK | None:
        """The key with this id; None where the provider has none. Raises NotReady where its keys are not known."""
        found = self._kept(key_id)
        if found is None or self._age() >= _FRESH_SECONDS:
            self._renew(_WAIT_SECONDS if found is None else 0.0)
            found = self._kept(key_id)
        if found is None and self._age() >= _KEPT_SECONDS:
            raise NotReady(self._failure)
        return found

    def _kept(self, key_id: str) -> jwt.PyJWK | None:
        known = self._known
        return known.keys.get(key_id) if self._clock() - known.at < _KEPT_SECONDS else None

    def _age(self) -> float:
        return self._clock() - self._known.at

    def _renew(self, wait_seconds: float) -> None:
        """Fetch them, unless that was tried a moment ago, or another request is at it for longer than this one waits."""
        if self._clock() < self._next_at or not self._fetching.acquire(timeout=wait_seconds):
            return
        try:
            if self._clock() < self._next_at:
                return
            self._known = _Known(self._fetch(), self._clock())
        except NotReady as error:
            self._failure = error.detail
        finally:
            self._next_at = max(self._next_at, self._clock() + _PAUSE_SECONDS)
            self._fetching.release()


def keys_of(issuer: str, keys_url: str | None, transport: httpx.BaseTransport | None = None) -> Keys:
    """The keys at this address, or where the issuer's discovery document says. Raises NotReady."""
    with httpx.Client(transport=transport, verify=ssl.create_default_context(), timeout=_TIMEOUT_SECONDS) as client:
        listed = _document(client, keys_url or _keys_url(client, issuer)).get("keys")
    if not isinstance(listed, list):
        raise NotReady(_AWAY)
    found: dict[str, jwt.PyJWK] = {}
    for one in listed:
        key_id = one.get("kid") if isinstance(one, dict) else None
        if isinstance(key_id, str) and one.get("use") in {"sig", None}:
            try:
                found.setdefault(key_id, jwt.PyJWK(one))
            except (jwt.PyJWTError, AttributeError, KeyError, TypeError, ValueError):
                continue  # of a kind that is not known here: the others count
    return found


def _keys_url(client: httpx.Client, issuer: str) -> str:
    document = _document(client, issuer.rstrip("/") + "/.well-known/openid-configuration")
    found = document.get("jwks_uri")
    if document.get("issuer") != issuer or not isinstance(found, str):
        raise NotReady("The identity provider's discovery document is another issuer's: check TUNEYARD_OIDC_ISSUER.")
    return found


def _document(client: httpx.Client, where: str) -> dict[str, Any]:
    """The JSON object at this very address: it is not followed elsewhere. Raises NotReady."""
    deadline = time.monotonic() + _TIMEOUT_SECONDS
    content = b""
    try:
        with client.stream("GET", where) as answer:
            for piece in answer.raise_for_status().iter_bytes():
                content += piece
                if len(content) > _MOST_BYTES or time.monotonic() > deadline:
                    raise NotReady(_AWAY)
        document = json.loads(content)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
        raise NotReady(_AWAY) from error
    if not isinstance(document, dict):
        raise NotReady(_AWAY)
    return document
