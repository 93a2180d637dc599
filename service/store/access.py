"""Login links and browser sessions, by the SHA-256 of their secrets."""

from datetime import datetime

from sqlalchemy import Table, select

from service.domain.ports import Clock
from service.store import tables
from service.store.database import Database


class SqlAccess:
    """The port `AccessStore`. Adding one forgets those that have run out."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add_login_code(self, code_sha256: str, expires_at: datetime) -> None:
        self._add(tables.login_codes, code_sha256, expires_at)

    def use_login_code(self, code_sha256: str, now: datetime) -> bool:
        columns = tables.login_codes.c
        taken = tables.login_codes.delete().where(columns.sha256 == code_sha256).returning(columns.expires_at)
        with self._database.writing() as connection:
            expires_at: datetime | None = connection.execute(taken).scalar()
        return expires_at is not None and now < expires_at

    def add_session(self, session_sha256: str, expires_at: datetime) -> None:
        self._add(tables.sessions, session_sha256, expires_at)

    def has_session(self, session_sha256: str, now: datetime) -> bool:
        columns = tables.sessions.c
        statement = select(columns.sha256).where(columns.sha256 == session_sha256, columns.expires_at > now)
        with self._database.reading() as connection:
            return connection.execute(statement).first() is not None

    def delete_session(self, session_sha256: str) -> None:
        with self._database.writing() as connection:
            connection.execute(tables.sessions.delete().where(tables.sessions.c.sha256 == session_sha256))

    def _add(self, table: Table, sha256: str, expires_at: datetime) -> None:
        with self._database.writing() as connection:
            connection.execute(table.delete().where(table.c.expires_at <= self._clock.now()))
            connection.execute(table.insert().values(sha256=sha256, expires_at=expires_at))
