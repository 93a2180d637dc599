"""Whose the tracker's experiments, runs and registered models are."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import Column, Select, select

from service.store import tables
from service.store.database import Database

_STUDIES, _EXPERIMENTS, _RUNS = tables.studies.c, tables.experiments.c, tables.mirrored.c
_MOST_NAMED = 500


class SqlTracked:
    """The port `TrackedStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def experiments(self, project: str, experiment_ids: Collection[str]) -> frozenset[str]:
        owners = select(_EXPERIMENTS.experiment_id, _STUDIES.project).join_from(tables.experiments, tables.studies)
        return self._of(project, owners, _EXPERIMENTS.experiment_id, experiment_ids)

    def runs(self, project: str, run_ids: Collection[str]) -> frozenset[str]:
        owners = select(_RUNS.run_id, _STUDIES.project).join_from(tables.mirrored, tables.studies)
        return self._of(project, owners, _RUNS.run_id, run_ids)

    def studies(self, project: str, study_ids: Collection[str]) -> frozenset[str]:
        return self._of(project, select(_STUDIES.id, _STUDIES.project), _STUDIES.id, study_ids)

    def _of(self, project: str, owners: Select[Any], key: Column[Any], asked: Collection[str]) -> frozenset[str]:
        """Those keys that are the project's and no other's: a tracker that was emptied gives out the same ids once more."""
        keys = list(asked)
        found: dict[str, set[str]] = {}
        with self._database.reading() as connection:
            for start in range(0, len(keys), _MOST_NAMED):
                for owned, owner in connection.execute(owners.where(key.in_(keys[start : start + _MOST_NAMED]))):
                    found.setdefault(owned, set()).add(owner)
        return frozenset(owned for owned, all_owners in found.items() if all_owners == {project})
