"""Tokens, login links and browser sessions, by the SHA-256 of their secrets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Table, select

from service.domain.access import OPERATOR, AccessToken, Caller, Role, Source
from service.domain.errors import TokenNotFound
from service.domain.ports import Clock
from service.store import tables
from service.store.database import Database

_TOKENS = tables.tokens.c
_TOKEN_FIELDS = [field.name for field in fields(AccessToken)]


class SqlAccess:
    """The port `AccessStore`. Adding a link or a session forgets those that have run out."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add_token(self, token: AccessToken, sha256: str) -> None:
        row = {**{name: getattr(token, name) for name in _TOKEN_FIELDS}, "role": token.role.value, "sha256": sha256}
        with self._database.writing() as connection:
            connection.execute(tables.tokens.insert().values(row))

    def token_with(self, sha256: str) -> AccessToken | None:
        with self._database.reading() as connection:
            row = connection.execute(select(tables.tokens).where(_TOKENS.sha256 == sha256)).mappings().one_or_none()
        return None if row is None else _token_of(row)

    def tokens(self, project: str | None = None) -> Sequence[AccessToken]:
        statement = select(tables.tokens).order_by(_TOKENS.created_at.desc(), _TOKENS.id)
        if project is not None:
            statement = statement.where(_TOKENS.project == project)
        with self._database.reading() as connection:
            return [_token_of(row) for row in connection.execute(statement).mappings()]

    def revoke(self, token_id: str, now: datetime, project: str | None = None) -> AccessToken:
        here = _TOKENS.id == token_id
        if project is not None:
            here &= _TOKENS.project == project
        with self._database.writing() as connection:
            connection.execute(tables.tokens.update().where(here, _TOKENS.revoked_at.is_(None)).values(revoked_at=now))
            row = connection.execute(select(tables.tokens).where(here)).mappings().one_or_none()
        if row is None:
            raise TokenNotFound(token_id)
        return _token_of(row)

    def note_use(self, token_id: str, now: datetime) -> None:
        with self._database.writing() as connection:
            connection.execute(tables.tokens.update().where(_TOKENS.id == token_id).values(last_used_at=now))

    def add_login_code(self, code_sha256: str, expires_at: datetime, caller: Caller) -> None:
        self._add(tables.login_codes, code_sha256, expires_at, caller)

    def use_login_code(self, code_sha256: str, now: datetime) -> Caller | None:
        columns = tables.login_codes.c
        taken = tables.login_codes.delete().where(columns.sha256 == code_sha256).returning(columns.expires_at, columns.caller)
        with self._database.writing() as connection:
            row = connection.execute(taken).one_or_none()
        return None if row is None or row.expires_at <= now else _caller_of(row.caller)

    def add_session(self, session_sha256: str, expires_at: datetime, caller: Caller) -> None:
        self._add(tables.sessions, session_sha256, expires_at, caller)

    def caller_of(self, session_sha256: str, now: datetime) -> Caller | None:
        columns = tables.sessions.c
        statement = select(columns.caller).where(columns.sha256 == session_sha256, columns.expires_at > now)
        with self._database.reading() as connection:
            row = connection.execute(statement).one_or_none()
            if row is None:
                return None
            caller = _caller_of(row.caller)
            if caller.token is None:
                return caller
            token = connection.execute(select(tables.tokens).where(_TOKENS.id == caller.token)).mappings().one_or_none()
        return caller if token is not None and _token_of(token).works(now) else None

    def delete_session(self, session_sha256: str) -> None:
        with self._database.writing() as connection:
            connection.execute(tables.sessions.delete().where(tables.sessions.c.sha256 == session_sha256))

    def delete_sessions(self) -> None:
        with self._database.writing() as connection:
            connection.execute(tables.login_codes.delete())
            connection.execute(tables.sessions.delete())

    def _add(self, table: Table, sha256: str, expires_at: datetime, caller: Caller) -> None:
        with self._database.writing() as connection:
            connection.execute(table.delete().where(table.c.expires_at <= self._clock.now()))
            connection.execute(table.insert().values(sha256=sha256, expires_at=expires_at, caller=_row_of(caller)))


def _token_of(row: Mapping[Any, Any]) -> AccessToken:
    return AccessToken(**{**{name: row[name] for name in _TOKEN_FIELDS}, "role": Role(row["role"])})


def _row_of(caller: Caller) -> Mapping[str, Any]:
    return {**asdict(caller), "ends_at": None if caller.ends_at is None else caller.ends_at.isoformat()}


def _caller_of(stored: Mapping[str, Any] | None) -> Caller:
    """Who it was written for; before there were others it was always the operator."""
    if stored is None:
        return Caller(OPERATOR, Role.ADMIN, Source.OPERATOR)
    source, ends_at = stored.get("source") or _source_of(stored), stored.get("ends_at")
    return Caller(
        name=stored["name"],
        role=Role(stored["role"]),
        source=Source(source),
        project=stored["project"],
        token=stored["token"],
        ends_at=None if ends_at is None else datetime.fromisoformat(ends_at),
        fingerprint=stored.get("fingerprint"),
    )


def _source_of(stored: Mapping[str, Any]) -> Source:
    """What let them in, of whom an earlier version wrote this: it did not say."""
    if stored["token"] is not None:
        return Source.TOKEN
    is_operator = (stored["name"], stored["role"], stored["project"]) == (OPERATOR, Role.ADMIN, None)
    return Source.OPERATOR if is_operator else Source.OIDC
