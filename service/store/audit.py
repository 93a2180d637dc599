"""The audit log: one row for each request that may have changed something."""

from collections.abc import Sequence
from dataclasses import fields

from sqlalchemy import BigInteger, literal, select

from service.domain.access import AuditEntry, Role
from service.store import tables
from service.store.database import Database

_FIELDS = [field.name for field in fields(AuditEntry)]


class SqlAudit:
    """The port `AuditStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, entry: AuditEntry) -> None:
        row = {name: getattr(entry, name) for name in _FIELDS if name != "id"}
        with self._database.writing() as connection:
            connection.execute(tables.audit.insert().values({**row, "role": entry.role.value}))

    def after(self, entry_id: int, limit: int = 500, project: str | None = None) -> Sequence[AuditEntry]:
        columns = tables.audit.c
        seen = literal(entry_id, BigInteger)  # a client may name one that is greater than any there is
        statement = select(tables.audit).where(columns.id > seen).order_by(columns.id).limit(limit)
        if project is not None:
            statement = statement.where(columns.project == project)
        with self._database.reading() as connection:
            rows = connection.execute(statement).mappings().all()
        return [AuditEntry(**{**{name: row[name] for name in _FIELDS}, "role": Role(row["role"])}) for row in rows]
