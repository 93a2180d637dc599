"""How far the tracker got."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, and_, case, func, null, select, union

from service.domain.deletion import Forgotten
from service.domain.ports import MirroredTrial
from service.domain.study import StudyState
from service.store import tables
from service.store.database import Database
from service.store.deletions import set_forgotten
from service.store.studies import keep_study

_STUDIES, _TRIALS = tables.studies.c, tables.trials.c
_EXPERIMENTS, _MIRRORED, _DELETIONS = tables.experiments.c, tables.mirrored.c, tables.deletions.c
_OF_STUDY = -1
_DRIVEN = tuple(state.value for state in (StudyState.RUNNING, StudyState.PAUSING, StudyState.STOPPING))
"""Where a driver writes, which changes some things of a trial that have no event."""
_MOST_NAMED = 500
"""Studies that a statement names; of more than these, all are looked at."""


class SqlMirror:
    """The port `MirrorStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def experiment(self, study_id: str) -> str | None:
        statement = select(_EXPERIMENTS.experiment_id).where(_EXPERIMENTS.study_id == study_id)
        with self._database.reading() as connection:
            return connection.execute(statement).scalar()

    def experiments(self, study_ids: Collection[str]) -> Mapping[str, str]:
        statement = select(_EXPERIMENTS.study_id, _EXPERIMENTS.experiment_id).where(_EXPERIMENTS.study_id.in_(study_ids))
        with self._database.reading() as connection:
            return {row.study_id: row.experiment_id for row in connection.execute(statement)}

    def set_experiment(self, study_id: str, experiment_id: str) -> None:
        here = _EXPERIMENTS.study_id == study_id
        with self._database.writing() as connection:
            changed = connection.execute(tables.experiments.update().where(here).values(experiment_id=experiment_id)).rowcount
            if not changed and keep_study(connection, study_id):
                connection.execute(tables.experiments.insert().values(study_id=study_id, experiment_id=experiment_id))

    def mirrored(self, study_id: str) -> Mapping[int, MirroredTrial]:
        statement = select(tables.mirrored).where(_MIRRORED.study_id == study_id)
        with self._database.reading() as connection:
            return {row["number"]: MirroredTrial(**row) for row in connection.execute(statement).mappings()}

    def set_mirrored(self, entries: Sequence[MirroredTrial]) -> None:
        with self._database.writing() as connection:
            for study_id in {entry.study_id for entry in entries}:
                if not keep_study(connection, study_id):
                    continue
                own = [entry for entry in entries if entry.study_id == study_id]
                numbers = [entry.number for entry in own]
                old = (_MIRRORED.study_id == study_id) & _MIRRORED.number.in_(numbers)
                connection.execute(tables.mirrored.delete().where(old))
                connection.execute(tables.mirrored.insert(), [entry.__dict__ for entry in own])

    def marks(self) -> Mapping[str, int | None]:
        grown = case((_STUDIES.state.in_(_DRIVEN), null()), else_=_STUDIES.version + _STUDIES.last_event)
        with self._database.reading() as connection:
            return {row.id: row.mark for row in connection.execute(select(_STUDIES.id, grown.label("mark")))}

    def behind(self, among: Collection[str] | None = None) -> Sequence[str]:
        if among is not None and not among:
            return []
        of_study = _behind(_STUDIES.id, _STUDIES.version, _MIRRORED.number == _OF_STUDY)
        own = select(_STUDIES.id.label("id")).select_from(tables.studies.outerjoin(tables.mirrored, of_study[0]))
        of_trial = _behind(_TRIALS.study_id, _TRIALS.version, _MIRRORED.number == _TRIALS.number)
        others = select(_TRIALS.study_id.label("id")).select_from(tables.trials.outerjoin(tables.mirrored, of_trial[0]))
        if among is not None and len(among) <= _MOST_NAMED:
            own, others = own.where(_STUDIES.id.in_(among)), others.where(_TRIALS.study_id.in_(among))
        statement = union(own.where(of_study[1]), others.where(of_trial[1])).order_by("id")
        with self._database.reading() as connection:
            found = list(connection.execute(statement).scalars())
        return found if among is None else [study_id for study_id in found if study_id in among]

    def ahead(self) -> Sequence[MirroredTrial]:
        of_study = (_MIRRORED.study_id == _STUDIES.id) & (_MIRRORED.number == _OF_STUDY)
        of_trial = (_MIRRORED.study_id == _TRIALS.study_id) & (_MIRRORED.number == _TRIALS.number)
        own = select(tables.mirrored).join(tables.studies, of_study).where(_MIRRORED.version > _STUDIES.version)
        others = select(tables.mirrored).join(tables.trials, of_trial)
        says_more = (_MIRRORED.version > _TRIALS.version) | (_MIRRORED.reports > _TRIALS.reports)
        with self._database.reading() as connection:
            rows = [*connection.execute(own).mappings(), *connection.execute(others.where(says_more)).mappings()]
        return [MirroredTrial(**row) for row in rows]

    def deleted(self) -> Sequence[str]:
        statement = select(_DELETIONS.study_id).where(_DELETIONS.forgotten_at.is_(None)).order_by(_DELETIONS.study_id)
        with self._database.reading() as connection:
            return list(connection.execute(statement).scalars())

    def set_forgotten(self, study_id: str, forgotten: Forgotten, at: datetime) -> None:
        with self._database.writing() as connection:
            set_forgotten(connection, study_id, forgotten, at)


def _behind(
    study_id: ColumnElement[str], version: ColumnElement[int], same: ColumnElement[bool]
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """How a row meets what is mirrored of it, and whether that is older; what never was mirrored is."""
    return and_(_MIRRORED.study_id == study_id, same), version > func.coalesce(_MIRRORED.version, -1)
