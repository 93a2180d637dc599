"""Tokens of an OpenID Connect provider: who somebody is, what they may do, and in which project, by claims that it signs."""

import re
import time
from datetime import UTC, datetime
from functools import partial
from typing import Any

import jwt

from service.api.dependencies import Identities
from service.api.oidc_keys import SigningKeys, keys_of
from service.domain.access import PROJECT_PATTERN, Caller, Role, Source
from service.settings import Settings

_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a private key alone. With HS256 whoever knows the public key, which is everybody, could sign."""
_NAMES = ("preferred_username", "email", "sub")
_EVERY_PROJECT = "*"
_LEEWAY_SECONDS = 30
_MOST_BYTES = 16 * 1024


def open_identities(settings: Settings) -> Identities | None:
    """The provider that the settings name, if they name one. Raises ValueError for half of one."""
    if settings.oidc_issuer is None:
        return None
    if not settings.oidc_audience:
        raise ValueError("TUNEYARD_OIDC_ISSUER needs TUNEYARD_OIDC_AUDIENCE: without it every token of that provider would count")
    keys = SigningKeys(partial(keys_of, settings.oidc_issuer, settings.oidc_jwks_url), time.monotonic)
    return OidcIdentities(settings, settings.oidc_issuer, settings.oidc_audience, keys)


class OidcIdentities:
    """One provider. Its keys are asked for when a token comes that they may have signed."""

    def __init__(self, settings: Settings, issuer: str, audience: str, keys: SigningKeys) -> None:
        self._settings = settings
        self._issuer = issuer
        self._audience = audience
        self._keys = keys

    def caller_of(self, token: str) -> Caller | None:
        if len(token) > _MOST_BYTES:
            return None
        key_id = self._key_id(token)
        key = None if key_id is None else self._keys.key(key_id)
        if key is None:
            return None
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=list(_ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
            ends_at = datetime.fromtimestamp(int(claims["exp"]), UTC)
        except (jwt.PyJWTError, OverflowError, ValueError):
            return None
        return self._caller(claims, ends_at)

    def _key_id(self, token: str) -> str | None:
        """The key that the token names; None where no key of the provider's could make it count.

        Nothing here is verified: it spares the provider the questions of strangers.
        """
        try:
            unverified = jwt.decode_complete(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return None
        header, claims = unverified["header"], unverified["payload"]
        if header.get("alg") not in _ALGORITHMS or claims.get("iss") != self._issuer:
            return None
        key_id = header.get("kid")
        return key_id if isinstance(key_id, str) else None

    def _caller(self, claims: dict[str, Any], ends_at: datetime) -> Caller | None:
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
        seen = None if project == _EVERY_PROJECT else project
        return Caller(printable, Role(role), Source.OIDC, project=seen, ends_at=ends_at)
