"""Who drives which study."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select

from service.store import holding, tables
from service.store.database import Database

_LEASES = tables.leases.c


class SqlLeases:
    """The port `LeaseStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, study_id: str, owner: str, now: datetime, lasting: timedelta) -> bool:
        return holding.acquire(self._database, tables.leases, {"study_id": study_id}, owner, now, lasting)

    def release(self, study_id: str, owner: str) -> None:
        holding.release(self._database, tables.leases, {"study_id": study_id}, owner)

    def holders(self, now: datetime) -> Mapping[str, str]:
        statement = select(_LEASES.study_id, _LEASES.owner).where(_LEASES.expires_at > now)
        with self._database.reading() as connection:
            return {row.study_id: row.owner for row in connection.execute(statement)}
