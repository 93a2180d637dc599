"""What one of several holds for a while: held on to by asking again, and taken by another once its time is up."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import Table, and_, or_, select
from sqlalchemy.exc import IntegrityError

from service.store.database import Database


def acquire(database: Database, table: Table, key: Mapping[str, str], owner: str, now: datetime, lasting: timedelta) -> bool:
    """Whether `owner` holds the row of that key until `now + lasting`. The table has columns `owner` and `expires_at`."""
    columns = table.c
    here = and_(*(columns[name] == value for name, value in key.items()))
    row = {"owner": owner, "expires_at": now + lasting}
    take = table.update().where(here, or_(columns.owner == owner, columns.expires_at <= now)).values(row)
    try:
        with database.writing() as connection:
            if connection.execute(take).rowcount:
                return True
            holder = connection.execute(select(columns.owner).where(here)).scalar()
            if holder is not None:
                return bool(holder == owner)
            connection.execute(table.insert().values(**key, **row))
            return True
    except IntegrityError:  # somebody else was a moment faster, perhaps under the same name, or the key means nothing
        with database.writing() as connection:
            return connection.execute(take).rowcount > 0


def release(database: Database, table: Table, key: Mapping[str, str], owner: str) -> None:
    """Let others have it, if it is this owner's."""
    columns = table.c
    here = and_(*(columns[name] == value for name, value in key.items()))
    with database.writing() as connection:
        connection.execute(table.delete().where(here, columns.owner == owner))
