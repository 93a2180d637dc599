"""Tokens of an identity provider that is no process: its keys come, change, are late and are withheld as told."""

import base64
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from service.api import oidc_keys
from service.api.oidc import OidcIdentities
from service.api.oidc_keys import Keys, SigningKeys, keys_of
from service.domain.errors import NotReady
from service.settings import Settings

ISSUER = "https://id.example.org"
OLD, NEW = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))


def a_key(key: Any, **changes: Any) -> dict[str, Any]:
    return {**json.loads(ECAlgorithm.to_jwk(key.public_key())), "use": "sig", **changes}


def a_token(kid: str = "old", key: Any = OLD, header: dict[str, Any] | None = None, **changes: Any) -> str:
    now = datetime.now(UTC)
    claims = {
        "iss": ISSUER, "aud": "tuneyard", "sub": "ada", "iat": now, "exp": now + timedelta(minutes=5),
        "tuneyard_role": "editor", "tuneyard_project": "vision", **changes,
    }  # fmt: skip
    return jwt.encode(claims, key, "ES256", {"kid": kid, **(header or {})})


@dataclass
class Provider:
    """Its keys and the time; `asked` is how often it was asked, `is_away` whether it fails."""

    keys: dict[str, Any] = field(default_factory=lambda: {"old": OLD})
    is_away: bool = False
    asked: int = 0
    now: float = 0.0

    def fetch(self) -> Keys:
        self.asked += 1
        if self.is_away:
            raise NotReady("It is away.")
        return {kid: jwt.PyJWK(a_key(key, kid=kid)) for kid, key in self.keys.items()}

    def identities(self) -> OidcIdentities:
        settings = Settings(oidc_issuer=ISSUER, oidc_audience="tuneyard")
        return OidcIdentities(settings, ISSUER, "tuneyard", SigningKeys(self.fetch, lambda: self.now))


def test_a_key_that_was_withdrawn_counts_for_minutes_and_no_longer() -> None:
    provider = Provider()
    identities = provider.identities()
    assert identities.caller_of(a_token()) is not None
    provider.keys = {"new": NEW}
    provider.now = 239
    assert identities.caller_of(a_token()) is not None
    provider.now = 301
    assert identities.caller_of(a_token()) is None
    assert identities.caller_of(a_token("new", NEW)) is not None


def test_a_key_that_is_new_counts_at_once_if_nobody_asked_a_moment_ago() -> None:
    provider = Provider()
    identities = provider.identities()
    assert identities.caller_of(a_token()) is not None
    provider.keys = {"old": OLD, "new": NEW}
    assert identities.caller_of(a_token("new", NEW)) is None
    provider.now = 10
    assert identities.caller_of(a_token("new", NEW)) is not None


def test_unknown_keys_have_the_provider_asked_once_in_a_while_and_do_not_disturb_others() -> None:
    provider = Provider()
    identities = provider.identities()
    for second in range(30):
        provider.now = second
        assert identities.caller_of(a_token(f"made-up-{second}")) is None
        assert identities.caller_of(a_token()) is not None
    assert provider.asked == 3


def test_of_a_provider_that_is_away_a_failure_is_remembered_for_some_seconds() -> None:
    provider = Provider(is_away=True)
    identities = provider.identities()
    for _ in range(5):
        with pytest.raises(NotReady, match="It is away"):
            identities.caller_of(a_token())
    assert provider.asked == 1
    provider.is_away, provider.now = False, 10
    assert identities.caller_of(a_token()) is not None


def test_keys_count_to_their_end_while_the_provider_is_away() -> None:
    provider = Provider()
    identities = provider.identities()
    assert identities.caller_of(a_token()) is not None
    provider.is_away, provider.now = True, 299
    assert identities.caller_of(a_token()) is not None
    provider.now = 300
    with pytest.raises(NotReady):
        identities.caller_of(a_token())


@pytest.mark.parametrize(
    "token",
    [
        a_token(iss="https://evil.example"),
        jwt.encode({"iss": ISSUER}, "x" * 32, "HS256", {"kid": "old"}),
        jwt.encode({"iss": ISSUER}, "", "none", {"kid": "old"}),
        jwt.encode({"iss": ISSUER}, OLD, "ES256"),
        "a.b.c",
        ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"ES256"}', b"[" * 5000, b"x")),
    ],
    ids=["issuer", "symmetric", "unsigned", "no key", "no token", "deep"],
)
def test_what_no_key_could_make_count_has_nobody_asked(token: str) -> None:
    provider = Provider(is_away=True)
    assert provider.identities().caller_of(token) is None
    assert provider.asked == 0


@pytest.mark.parametrize("exp", [10**15, float("inf")])
def test_a_token_without_an_end_that_a_calendar_knows_does_not_count(exp: float) -> None:
    assert Provider().identities().caller_of(a_token(exp=exp)) is None


def test_while_one_request_fetches_the_keys_nobody_waits_who_knows_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc_keys, "_WAIT_SECONDS", 0.0)
    provider, begun, go = Provider(), threading.Event(), threading.Event()

    def slow() -> Keys:
        if provider.asked:
            begun.set()
            assert go.wait(60)
        return provider.fetch()

    keys = SigningKeys(slow, lambda: provider.now)
    assert keys.key("old") is not None
    provider.now = 250
    with ThreadPoolExecutor(1) as thread:
        fetching = thread.submit(keys.key, "old")
        assert begun.wait(60)
        assert keys.key("old") is not None
        assert keys.key("new") is None
        provider.now = 300
        with pytest.raises(NotReady):
            keys.key("old")
        go.set()
        assert fetching.result(60) is not None
    assert provider.asked == 2


def answering(page: bytes | Exception, status: int = 200) -> httpx.MockTransport:
    """A provider that answers this, whatever it is asked."""

    def answer(_: httpx.Request) -> httpx.Response:
        if isinstance(page, Exception):
            raise page
        return httpx.Response(status, content=page, headers={"Location": "/elsewhere"})

    return httpx.MockTransport(answer)


ODD = [
    b"",
    b"<html>",
    b"[]",
    b"null",
    b'"x"',
    b"\xff\xfe",
    b"[" * 100_000,
    b"{}" + b" " * 2**20,
    OSError("no route"),
    ValueError(),
]


@pytest.mark.parametrize("page", [*ODD, b"{}", b'{"keys": {}}'], ids=lambda one: str(one)[:12])
@pytest.mark.parametrize("keys_url", [None, f"{ISSUER}/keys"])
def test_an_odd_answer_is_as_a_provider_that_is_away(page: Any, keys_url: str | None) -> None:
    with pytest.raises(NotReady, match="identity provider"):
        keys_of(ISSUER, keys_url, answering(page))


@pytest.mark.parametrize("where", [3, None, "https://id.example.org:x/"])
def test_a_discovery_document_that_names_no_address_is_as_a_provider_that_is_away(where: object) -> None:
    with pytest.raises(NotReady, match="identity provider"):
        keys_of(ISSUER, None, answering(json.dumps({"issuer": ISSUER, "jwks_uri": where, "keys": []}).encode()))


@pytest.mark.parametrize("status", [301, 404, 500])
def test_an_answer_that_is_no_success_is_as_a_provider_that_is_away(status: int) -> None:
    with pytest.raises(NotReady):
        keys_of(ISSUER, f"{ISSUER}/keys", answering(b'{"keys": []}', status))


def test_of_odd_keys_the_good_ones_count() -> None:
    odd = [
        3,
        None,
        {"kid": "x"},
        {"kid": 3, "kty": "EC"},
        {"kid": "y", "kty": "EC", "alg": ["x"]},
        a_key(NEW, kid="z", use="enc"),
    ]
    page = json.dumps({"keys": [*odd, a_key(OLD, kid="old"), a_key(NEW, kid="old")]}).encode()
    found = keys_of(ISSUER, f"{ISSUER}/keys", answering(page))
    assert list(found) == ["old"]
    identities = OidcIdentities(Settings(), ISSUER, "tuneyard", SigningKeys(lambda: found, lambda: 0.0))
    assert identities.caller_of(a_token()) is not None, "of two with one id it is the first"
