"""Whose request it is: by the service's own token, one that was handed out, an identity provider's, or a browser's session."""

import hashlib
import secrets
from datetime import timedelta

from fastapi import Request

from service.api.dependencies import ApiParts
from service.api.limits import Limits
from service.domain import errors
from service.domain.access import OPERATOR, Caller, Role, Source

SESSION_COOKIE = "tuneyard_session"
_LONGEST_ADDRESS = 64
"""In characters. Where a proxy is trusted it may be any text."""
TOKEN_PREFIX = "ty_"  # noqa: S105 - what tokens begin with, so that scanners find them where they should not be
_NOTE_USE_EVERY = timedelta(minutes=1)
_HOW = "Send a token as `Authorization: Bearer TOKEN`, or open a login link (`tuneyard login`)."
_INVALID = (
    "The token that was sent is not valid: it has run out, was revoked, or is none of this service. Send one that is as "
    "`Authorization: Bearer TOKEN`."
)
_ENDED = "Your browser's session is not valid any more: open another login link (`tuneyard login`)."
_NO_SESSION = "A browser's session cannot do this: send a token as `Authorization: Bearer TOKEN`."
_SECRET_BYTES = 32


def new_secret(prefix: str = "") -> str:
    """A secret of 256 random bits."""
    return prefix + secrets.token_urlsafe(_SECRET_BYTES)


def session_cookie(request: Request) -> str:
    """What the cookie is called. Over TLS browsers take one of this name from this very host alone, and from no neighbour's."""
    return f"__Host-{SESSION_COOKIE}" if request.url.scheme == "https" else SESSION_COOKIE


def sha256_of(secret: str) -> str:
    """What is stored of a secret. It needs no salt and no slow hash: nobody guesses 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def operator(token: str) -> Caller:
    """Whoever holds the service's own token, which is this one."""
    return Caller(OPERATOR, Role.ADMIN, Source.OPERATOR, fingerprint=sha256_of(token))


def bearer(request: Request, parts: ApiParts) -> Caller:
    """Whose token the request carries. Raises NotAuthenticated, TooOften."""
    given = _given(request)
    if given is None:
        raise refused(request, errors.NotAuthenticated(_HOW))
    caller = _caller_with(given, parts)
    if caller is None:
        raise refused(request, errors.NotAuthenticated(_INVALID, is_of_token=True, needs_token=True))
    return caller


def token_holder(request: Request) -> Caller:
    """Who was let through, by a token and no browser's session. Raises NotAuthenticated, TooOften."""
    if "Authorization" not in request.headers:
        raise refused(request, errors.NotAuthenticated(_NO_SESSION, needs_token=True))
    caller: Caller = request.state.caller
    return caller


def session_of(request: Request, parts: ApiParts) -> Caller:
    """Whose session the request's cookie names. Raises NotAuthenticated, TooOften."""
    if not request.cookies.get(session_cookie(request)):
        raise errors.NotAuthenticated(_HOW)
    caller = _with_session(request, parts)
    if caller is None:
        raise refused(request, errors.NotAuthenticated(_ENDED))
    return caller


def counts(caller: Caller, parts: ApiParts) -> bool:
    """Whether what let them in has not run out, nor been replaced."""
    return caller.counts(parts.clock.now(), sha256_of(parts.token))


def is_still_let_in(request: Request, parts: ApiParts) -> bool:
    """Whether who was let in with this request would be again: nobody revoked their token, or ended their session."""
    caller: Caller = request.state.caller
    if "Authorization" not in request.headers:
        return _with_session(request, parts) is not None
    given = _given(request)
    is_revoked = caller.source is Source.TOKEN and (given is None or _with_token(given, parts) is None)
    return counts(caller, parts) and not is_revoked


def refused(request: Request, error: errors.TuneyardError) -> errors.TuneyardError:
    """The error to answer a wrong secret with: another one where this address sends too many."""
    limits: Limits = request.app.state.limits
    seconds = limits.failures.count(address_of(request))
    if seconds:
        return errors.TooOften(f"Too many wrong tokens came from your address: try again in {seconds} s.", seconds)
    return error


def address_of(request: Request) -> str:
    """Where the request came from."""
    return request.client.host[:_LONGEST_ADDRESS] if request.client else "unknown"


def _given(request: Request) -> str | None:
    """The token that the request carries."""
    headers = request.headers.getlist("Authorization")
    scheme, _, given = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")  # of two, others might read the other
    return given.strip() or None if scheme.lower() == "bearer" else None


def _caller_with(given: str, parts: ApiParts) -> Caller | None:
    # As bytes: compare_digest refuses text that is not ASCII.
    if secrets.compare_digest(given.encode(), parts.token.encode()):
        return operator(parts.token)
    if given.startswith(TOKEN_PREFIX):
        return _with_token(given, parts)
    if parts.identities is not None and given.count(".") == 2:  # noqa: PLR2004 - the three parts of a JSON Web Token
        return parts.identities.caller_of(given)
    return None


def _with_token(given: str, parts: ApiParts) -> Caller | None:
    found = parts.store.access.token_with(sha256_of(given))
    now = parts.clock.now()
    if found is None or not found.works(now):
        return None
    if found.last_used_at is None or now - found.last_used_at >= _NOTE_USE_EVERY:
        parts.store.access.note_use(found.id, now)
    return found.caller


def _with_session(request: Request, parts: ApiParts) -> Caller | None:
    session = request.cookies.get(session_cookie(request), "")
    caller = parts.store.access.caller_of(sha256_of(session), parts.clock.now())
    return caller if caller is not None and counts(caller, parts) else None
