"""What the checkpoints of each study take."""

from collections.abc import Collection, Mapping

from sqlalchemy import select

from service.domain.stored import Footprint
from service.store import tables
from service.store.database import Database
from service.store.studies import keep_study

_FOOTPRINTS = tables.footprints.c


class SqlFootprints:
    """The port `FootprintStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, study_ids: Collection[str]) -> Mapping[str, Footprint]:
        statement = select(tables.footprints).where(_FOOTPRINTS.study_id.in_(list(study_ids)))
        with self._database.reading() as connection:
            return {
                row["study_id"]: Footprint(row["bytes"], row["at"], row["detail"], tuple(row["missing"]))
                for row in connection.execute(statement).mappings()
            }

    def set(self, study_id: str, footprint: Footprint) -> None:
        row = {"bytes": footprint.bytes, "at": footprint.at, "detail": footprint.detail, "missing": list(footprint.missing)}
        here = _FOOTPRINTS.study_id == study_id
        with self._database.writing() as connection:
            if not keep_study(connection, study_id):
                return
            if connection.execute(tables.footprints.update().where(here).values(row)).rowcount == 0:
                connection.execute(tables.footprints.insert().values(study_id=study_id, **row))
