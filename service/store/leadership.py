"""Which controller leads."""

from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from service.domain.errors import LeadershipLost
from service.store import holding, tables
from service.store.database import Database

_LEADERSHIP = tables.leadership.c
_KEY = {"role": "controller"}
_HERE = _LEADERSHIP.role == _KEY["role"]


class SqlLeadership:
    """The port `LeadershipStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, owner: str, now: datetime, lasting: timedelta) -> bool:
        return holding.acquire(self._database, tables.leadership, _KEY, owner, now, lasting)

    def release(self, owner: str) -> None:
        holding.release(self._database, tables.leadership, _KEY, owner)

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
