"""Who drives which study."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from service.store import tables
from service.store.database import Database

_LEASES = tables.leases.c


class SqlLeases:
    """The port `LeaseStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, study_id: str, owner: str, now: datetime, lasting: timedelta) -> bool:
        row = {"owner": owner, "expires_at": now + lasting}
        may_take = (_LEASES.study_id == study_id) & ((_LEASES.owner == owner) | (_LEASES.expires_at <= now))
        take = tables.leases.update().where(may_take).values(row)
        try:
            with self._database.writing() as connection:
                if connection.execute(take).rowcount:
                    return True
                holder = connection.execute(select(_LEASES.owner).where(_LEASES.study_id == study_id)).scalar()
                if holder is not None:
                    return bool(holder == owner)
                connection.execute(tables.leases.insert().values(study_id=study_id, **row))
                return True
        except IntegrityError:  # somebody else was a moment faster, perhaps under the same name, or there is no such study
            with self._database.writing() as connection:
                return connection.execute(take).rowcount > 0

    def release(self, study_id: str, owner: str) -> None:
        own = (_LEASES.study_id == study_id) & (_LEASES.owner == owner)
        with self._database.writing() as connection:
            connection.execute(tables.leases.delete().where(own))

    def holders(self, now: datetime) -> Mapping[str, str]:
        statement = select(_LEASES.study_id, _LEASES.owner).where(_LEASES.expires_at > now)
        with self._database.reading() as connection:
            return {row.study_id: row.owner for row in connection.execute(statement)}
