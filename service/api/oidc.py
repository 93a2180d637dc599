"""Tokens of an OpenID Connect provider: who somebody is, what they may do, and in which project, by claims that it signs."""

import re
from datetime import UTC, datetime
from typing import Any

import httpx
import jwt

from service.api.dependencies import Identities
from service.domain.access import PROJECT_PATTERN, Caller, Role, Source
from service.domain.errors import NotReady
from service.settings import Settings

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key alone. With HS256 whoever knows the public key, which is everybody, could sign."""
_NAMES = ("preferred_username", "email", "sub")
_EVERY_PROJECT = "*"
_LEEWAY_SECONDS = 30
_TIMEOUT_SECONDS = 5
_MOST_BYTES = 16 * 1024


def open_identities(settings: Settings) -> Identities | None:
    """The provider that the settings name, if they name one. Raises ValueError for half of one."""
    if settings.oidc_issuer is None:
        return None
    if not settings.oidc_audience:
        raise ValueError("TUNEYARD_OIDC_ISSUER needs TUNEYARD_OIDC_AUDIENCE: without it every token of that provider would count")
    return OidcIdentities(settings, settings.oidc_issuer, settings.oidc_audience)


class OidcIdentities:
    """One provider. Its keys are asked for when a token names one that is not known yet, and kept for five minutes."""

    def __init__(self, settings: Settings, issuer: str, audience: str) -> None:
        self._settings = settings
        self._issuer = issuer
        self._audience = audience
        self._keys: jwt.PyJWKClient | None = None

    def caller_of(self, token: str) -> Caller | None:
        if len(token) > _MOST_BYTES:
            return None
        try:
            key = self._key_client().get_signing_key_from_jwt(token)
            claims = jwt.decode(
                token,
                key,
                algorithms=list(_ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWKClientConnectionError as error:
            raise NotReady("The identity provider cannot be asked for its keys: try again in a few seconds.") from error
        except jwt.PyJWTError:
            return None
        return self._caller(claims)

    def _caller(self, claims: dict[str, Any]) -> Caller | None:
        """Who the claims speak of; None for somebody without a role or a project here."""
        role, project = claims.get(self._settings.oidc_role_claim), claims.get(self._settings.oidc_project_claim)
        if not isinstance(role, str) or role not in set(Role) or not isinstance(project, str):
            return None
        if project != _EVERY_PROJECT and not re.fullmatch(PROJECT_PATTERN, project):
            return None
        name = next((str(claims[claim]) for claim in _NAMES if claims.get(claim)), "")
        printable = re.sub(r"[^ -~]", "?", name)[:64].strip()
        if not printable:
            return None
        return Caller(
            printable,
            Role(role),
            Source.OIDC,
            project=None if project == _EVERY_PROJECT else project,
            ends_at=datetime.fromtimestamp(claims["exp"], UTC),
        )

    def _key_client(self) -> jwt.PyJWKClient:
        if self._keys is None:
            self._keys = jwt.PyJWKClient(self._keys_url(), cache_keys=True, lifespan=300, timeout=_TIMEOUT_SECONDS)
        return self._keys

    def _keys_url(self) -> str:
        """Where its public keys are: as set, or as its discovery document says."""
        if self._settings.oidc_jwks_url:
            return self._settings.oidc_jwks_url
        where = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            document = httpx.get(where, timeout=_TIMEOUT_SECONDS, follow_redirects=False).raise_for_status().json()
        except (httpx.HTTPError, ValueError) as error:
            raise NotReady("The identity provider cannot be asked for its keys: try again in a few seconds.") from error
        if document.get("issuer") != self._issuer or not isinstance(document.get("jwks_uri"), str):
            raise NotReady("The identity provider's discovery document is another issuer's: check TUNEYARD_OIDC_ISSUER.")
        found: str = document["jwks_uri"]
        return found
