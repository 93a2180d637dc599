"""Which controller leads."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.exc import IntegrityError

from service.domain.errors import LeadershipLost
from service.store import tables
from service.store.database import Database

_LEADERSHIP = tables.leadership.c
_ROLE = "controller"
_HERE = _LEADERSHIP.role == _ROLE


class SqlLeadership:
    """The port `LeadershipStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, owner: str, now: datetime, lasting: timedelta) -> bool:
        row = {"owner": owner, "expires_at": now + lasting}
        may_take = _HERE & ((_LEADERSHIP.owner == owner) | (_LEADERSHIP.expires_at <= now))
        take = tables.leadership.update().where(may_take).values(row)
        try:
            with self._database.writing() as connection:
                if connection.execute(take).rowcount:
                    return True
                if connection.execute(select(_LEADERSHIP.owner).where(_HERE)).first() is not None:
                    return False
                connection.execute(tables.leadership.insert().values(role=_ROLE, **row))
                return True
        except IntegrityError:  # another was a moment faster
            return False

    def release(self, owner: str) -> None:
        with self._database.writing() as connection:
            connection.execute(tables.leadership.delete().where(_HERE & (_LEADERSHIP.owner == owner)))

    def holder(self, now: datetime) -> str | None:
        statement = select(_LEADERSHIP.owner).where(_HERE & (_LEADERSHIP.expires_at > now))
        with self._database.reading() as connection:
            return connection.execute(statement).scalar()


def led_by(owner: str) -> Callable[[Connection], None]:
    """What begins each write of a controller: it makes sure that this one leads, and goes on to until the write is done."""
    holder = select(_LEADERSHIP.owner).where(_HERE).with_for_update(read=True)

    def require(connection: Connection) -> None:
        # No matter when its time runs out by whose clock: as long as nobody else has taken it, nobody else acts.
        if connection.execute(holder).scalar() != owner:
            raise LeadershipLost("Another controller leads now, or none does: this one must stop at once.")

    return require
