"""What became of the studies that were deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, select

from service.domain.deletion import Deletion, Forgotten
from service.domain.stored import NOTHING_FREED, Freed
from service.store import tables
from service.store.database import Database

_DELETIONS = tables.deletions.c
_COUNTED = {"trials": tables.trials, "attempts": tables.attempts, "reports": tables.reports, "events": tables.events}


class SqlDeletions:
    """The port `DeletionStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self, limit: int = 100) -> Sequence[Deletion]:
        known = select(tables.deletions).where(_DELETIONS.document.is_not(None))
        statement = known.order_by(_DELETIONS.at.desc(), _DELETIONS.study_id).limit(limit)
        with self._database.reading() as connection:
            return [_deletion_of(row) for row in connection.execute(statement).mappings()]

    def freed(self, study_id: str, checkpoints: Freed = NOTHING_FREED, prepared: Freed = NOTHING_FREED) -> None:
        here = _DELETIONS.study_id == study_id
        with self._database.writing() as connection:
            row = connection.execute(select(tables.deletions).where(here).with_for_update()).mappings().one_or_none()
            if row is not None and row["document"] is not None:
                known = _deletion_of(row)
                more = replace(
                    known, checkpoints=_sum(known.checkpoints, checkpoints), prepared=_sum(known.prepared, prepared)
                )  # fmt: skip
                connection.execute(tables.deletions.update().where(here).values(document=_document(more)))


def add_deletion(connection: Connection, study_id: str, name: str, project: str, at: datetime, by: str | None) -> Deletion:
    """Remember that a study is about to be deleted in this transaction, and what goes with it."""
    counts = {
        what: connection.execute(select(func.count()).select_from(table).where(table.c.study_id == study_id)).scalar_one()
        for what, table in _COUNTED.items()
    }
    deletion = Deletion(
        study_id, name, at, by, counts["trials"], counts["attempts"], counts["reports"], counts["events"],
        project=project,
    )  # fmt: skip
    connection.execute(tables.deletions.delete().where(_DELETIONS.study_id == study_id))
    connection.execute(tables.deletions.insert().values(study_id=study_id, at=at, document=_document(deletion)))
    return deletion


def set_forgotten(connection: Connection, study_id: str, forgotten: Forgotten, at: datetime) -> None:
    """Note what the tracker had of it; nothing happens where the study was not deleted."""
    here = _DELETIONS.study_id == study_id
    connection.execute(tables.deletions.update().where(here).values(forgotten=asdict(forgotten), forgotten_at=at))


def _document(deletion: Deletion) -> Mapping[str, Any]:
    left_out = ("study_id", "at", "forgotten", "forgotten_at")
    return {key: value for key, value in asdict(deletion).items() if key not in left_out}


def _deletion_of(row: Mapping[Any, Any]) -> Deletion:
    known = dict(row["document"])
    return Deletion(
        study_id=row["study_id"],
        at=row["at"],
        forgotten=row["forgotten"] and Forgotten(**row["forgotten"]),
        forgotten_at=row["forgotten_at"],
        **{**known, "checkpoints": Freed(**known["checkpoints"]), "prepared": Freed(**known["prepared"])},
    )


def _sum(one: Freed, other: Freed) -> Freed:
    return Freed(one.files + other.files, one.bytes + other.bytes)
