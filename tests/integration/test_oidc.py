"""Tokens of an identity provider, whose keys a real server on this machine hands out."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from service.api.oidc import open_identities
from service.domain.access import Caller, Role, Source
from service.domain.errors import NotReady
from service.settings import Settings

pytestmark = pytest.mark.integration

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ANOTHER = rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Provider:
    """A provider that knows two keys; `asked` is what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.issuer_said: str | None = None
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                body = json.dumps(provider.answer(self.path)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def answer(self, path: str) -> Any:
        if path == "/keys":
            rsa_key = json.loads(RSAAlgorithm.to_jwk(RSA.public_key()))
            ec_key = json.loads(ECAlgorithm.to_jwk(EC.public_key()))
            return {"keys": [{**rsa_key, "kid": "rsa", "use": "sig"}, {**ec_key, "kid": "ec", "use": "sig"}]}
        return {"issuer": self.issuer_said or self.issuer, "jwks_uri": f"{self.issuer}/keys"}

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def token(self, key: Any = RSA, algorithm: str = "RS256", kid: str = "rsa", **changes: Any) -> str:
        now = datetime.now(UTC)
        claims = {
            "iss": self.issuer, "aud": "tuneyard", "sub": "0042", "email": "ada@example.org", "iat": now,
            "exp": now + timedelta(minutes=5), "tuneyard_role": "editor", "tuneyard_project": "vision", **changes,
        }  # fmt: skip
        return jwt.encode({name: claim for name, claim in claims.items() if claim is not None}, key, algorithm, {"kid": kid})


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    found = Provider()
    yield found
    found.stop()


def caller_of(provider: Provider, token: str, **settings: Any) -> Caller | None:
    identities = open_identities(Settings(oidc_issuer=provider.issuer, oidc_audience="tuneyard", **settings))
    assert identities is not None
    return identities.caller_of(token)


def test_a_token_that_the_provider_signed_counts(provider: Provider) -> None:
    ends_at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=5)
    ada = Caller("ada@example.org", Role.EDITOR, Source.OIDC, "vision", ends_at=ends_at)
    assert caller_of(provider, provider.token(exp=ends_at)) == ada
    assert caller_of(provider, provider.token(EC, "ES256", "ec", exp=ends_at)) == ada
    everywhere = provider.token(tuneyard_role="admin", tuneyard_project="*", preferred_username="ada", exp=ends_at)
    assert caller_of(provider, everywhere) == Caller("ada", Role.ADMIN, Source.OIDC, ends_at=ends_at)


def test_claims_may_have_other_names(provider: Provider) -> None:
    token = provider.token(tuneyard_role=None, tuneyard_project=None, group="viewer", team="speech")
    found = caller_of(provider, token, oidc_role_claim="group", oidc_project_claim="team")
    assert found is not None
    assert (found.role, found.project) == (Role.VIEWER, "speech")


def test_the_keys_are_asked_for_once(provider: Provider) -> None:
    identities = open_identities(
        Settings(oidc_issuer=provider.issuer, oidc_audience="tuneyard", oidc_jwks_url=f"{provider.issuer}/keys")
    )
    assert identities is not None
    before = len(provider.asked)
    assert all(identities.caller_of(provider.token()) is not None for _ in range(5))
    assert provider.asked[before:] == ["/keys"]


PUBLIC = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
PAST = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "change",
    [
        {"key": ANOTHER},
        {"kid": "unknown"},
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": None},
        {"exp": PAST},
        {"exp": None},
        {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
        {"sub": None},
        {"tuneyard_role": "root"},
        {"tuneyard_role": None},
        {"tuneyard_role": ["admin"]},
        {"tuneyard_project": None},
        {"tuneyard_project": "../default"},
        {"tuneyard_project": ["*"]},
        {"key": EC, "algorithm": "ES256"},
    ],
    ids="-".join,
)
def test_any_other_token_does_not_count(provider: Provider, change: dict[str, Any]) -> None:
    assert caller_of(provider, provider.token(**change)) is None


@pytest.mark.parametrize("token", ["a.b.c", "...", "eyJhbGciOiJub25lIn0.e30.", "a" * 100_000 + ".b.c"], ids=lambda one: one[:12])
def test_what_is_no_token_does_not_count(provider: Provider, token: str) -> None:
    assert caller_of(provider, token) is None


def test_a_token_without_a_signature_or_signed_with_the_public_key_does_not_count(provider: Provider) -> None:
    whole = provider.token()
    head, body, _ = whole.split(".")
    none = jwt.utils.base64url_encode(b'{"alg":"none","typ":"JWT","kid":"rsa"}').decode()
    assert caller_of(provider, f"{none}.{body}.") is None
    hmac_head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "rsa"}).encode()).decode()
    key = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = jwt.utils.base64url_encode(key.sign(f"{hmac_head}.{body}".encode(), PUBLIC.encode())).decode()
    assert caller_of(provider, f"{hmac_head}.{body}.{signature}") is None
    assert caller_of(provider, f"{head}.{body}.{'A' * 342}") is None


def test_a_provider_that_is_away_is_said(provider: Provider) -> None:
    tries: list[dict[str, Any]] = [{"oidc_jwks_url": "http://127.0.0.1:9/keys"}, {"oidc_issuer": "http://127.0.0.1:9"}]
    for changes in tries:
        identities = open_identities(Settings(**{"oidc_issuer": provider.issuer, "oidc_audience": "tuneyard", **changes}))
        assert identities is not None
        with pytest.raises(NotReady):
            identities.caller_of(provider.token(iss=changes.get("oidc_issuer", provider.issuer)))


def test_a_provider_that_speaks_for_another_is_refused() -> None:
    liar = Provider()
    liar.issuer_said = "https://another.example"
    try:
        with pytest.raises(NotReady, match="another issuer"):
            caller_of(liar, liar.token())
    finally:
        liar.stop()


def test_half_a_provider_is_refused() -> None:
    with pytest.raises(ValueError, match="TUNEYARD_OIDC_AUDIENCE"):
        open_identities(Settings(oidc_issuer="https://id.example"))
    assert open_identities(Settings()) is None
