"""How many slots each study has, and how many it could use."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, case, select

from service.domain.errors import StudyNotFound
from service.domain.share import Share
from service.domain.waiting import Waiting, WaitingCause
from service.store import tables
from service.store.database import Database, insert_or_change
from service.store.studies import keep_study

_SHARES = tables.shares.c
_STUDIES = tables.studies.c


class SqlShares:
    """The port `ShareStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Mapping[str, Share]:
        with self._database.reading() as connection:
            return {row["study_id"]: _share_of(row) for row in connection.execute(select(tables.shares)).mappings()}

    def get(self, study_id: str) -> Share | None:
        return self.of([study_id]).get(study_id)

    def of(self, study_ids: Collection[str]) -> Mapping[str, Share]:
        statement = select(tables.shares).where(_SHARES.study_id.in_(study_ids))
        with self._database.reading() as connection:
            return {row["study_id"]: _share_of(row) for row in connection.execute(statement).mappings()}

    def poll(self, study_id: str) -> tuple[int, int]:
        joined = tables.studies.outerjoin(tables.shares, _SHARES.study_id == _STUDIES.id)
        counted_so = _SHARES.trials_per_gpu == _STUDIES.trials_per_gpu
        slots = case((counted_so, _SHARES.slots), else_=0).label("slots")
        statement = select(_STUDIES.version, slots).select_from(joined).where(_STUDIES.id == study_id)
        with self._database.reading() as connection:
            row = connection.execute(statement).one_or_none()
        if row is None:
            raise StudyNotFound(study_id)
        return row.version, row.slots

    def grant(self, shares: Mapping[str, Share]) -> None:
        if not shares:
            return
        with self._database.writing() as connection:
            for study_id, share in shares.items():
                waiting = share.waiting and _waiting_row(share.waiting)
                row = {"slots": share.slots, "lag": share.lag, "waiting": waiting, "trials_per_gpu": share.trials_per_gpu}
                _put(connection, study_id, row)

    def want(self, study_id: str, wanted: int | None) -> None:
        with self._database.writing() as connection:
            _put(connection, study_id, {"wanted": wanted})

    def drop(self, study_id: str) -> None:
        with self._database.writing() as connection:
            connection.execute(tables.shares.delete().where(_SHARES.study_id == study_id))


def _put(connection: Connection, study_id: str, row: dict[str, Any]) -> None:
    """Write some columns: the controller and the study's driver have each their own, and either may be the first."""
    if connection.execute(tables.shares.update().where(_SHARES.study_id == study_id).values(row)).rowcount:
        return
    if keep_study(connection, study_id):
        insert_or_change(connection, tables.shares, {"study_id": study_id, "slots": 0, "lag": 0.0, **row}, row)


def _share_of(row: RowMapping) -> Share:
    return Share(row["slots"], row["wanted"], row["lag"], row["waiting"] and _waiting_of(row["waiting"]), row["trials_per_gpu"])


def _waiting_row(waiting: Waiting) -> dict[str, str]:
    return {"cause": waiting.cause.value, "detail": waiting.detail, "since": waiting.since.isoformat()}


def _waiting_of(row: Mapping[str, str]) -> Waiting:
    return Waiting(WaitingCause(row["cause"]), row["detail"], datetime.fromisoformat(row["since"]))
