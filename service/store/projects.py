"""Projects, and what their studies have taken."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, func, select
from sqlalchemy.exc import IntegrityError

from service.domain.access import DEFAULT_PROJECT, Project, Quotas, Usage
from service.domain.errors import ProjectExists, ProjectNotFound
from service.store import tables
from service.store.database import Database, insert_or_change

_PROJECTS, _PAST = tables.projects.c, tables.past_usage.c
_QUOTAS = [field.name for field in fields(Quotas)]
_ALWAYS = Project(DEFAULT_PROJECT, datetime(1970, 1, 1, tzinfo=UTC))
"""It is there before anybody makes it; a row holds its quotas once it has some."""


class SqlProjects:
    """The port `ProjectStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, project: Project) -> Project:
        if project.name == DEFAULT_PROJECT:
            raise ProjectExists(project.name)
        try:
            with self._database.writing() as connection:
                connection.execute(tables.projects.insert().values(_row(project)))
        except IntegrityError as error:
            raise ProjectExists(project.name) from error
        return project

    def get(self, name: str) -> Project:
        with self._database.reading() as connection:
            row = connection.execute(select(tables.projects).where(_PROJECTS.name == name)).mappings().one_or_none()
        if row is not None:
            return _project_of(row)
        if name == DEFAULT_PROJECT:
            return _ALWAYS
        raise ProjectNotFound(name)

    def all(self) -> Sequence[Project]:
        with self._database.reading() as connection:
            found = [_project_of(row) for row in connection.execute(select(tables.projects)).mappings()]
        is_there = any(project.name == DEFAULT_PROJECT for project in found)
        return sorted([*found, *([] if is_there else [_ALWAYS])], key=lambda project: project.name)

    def set_quotas(self, name: str, quotas: Quotas) -> Project:
        project = Project(name, self.get(name).created_at, quotas)
        with self._database.writing() as connection:
            changed = connection.execute(tables.projects.update().where(_PROJECTS.name == name).values(asdict(quotas)))
            if not changed.rowcount:
                connection.execute(tables.projects.insert().values(_row(project)))
        return project

    def usage(self, names: Collection[str]) -> Mapping[str, Usage]:
        studies, trials, footprints = tables.studies.c, tables.trials.c, tables.footprints.c
        of_these = studies.project.in_(list(names))
        spent = select(studies.project, func.sum(trials.gpu_seconds)).join_from(
            tables.trials, tables.studies, trials.study_id == studies.id
        )
        held = select(studies.project, func.sum(footprints.bytes)).join_from(
            tables.footprints, tables.studies, footprints.study_id == studies.id
        )
        past = select(_PAST.project, _PAST.gpu_seconds).where(_PAST.project.in_(list(names)))
        with self._database.reading() as connection:
            seconds = _by_project(connection, spent.where(of_these))
            stored = _by_project(connection, held.where(of_these))
            before = {row.project: row.gpu_seconds for row in connection.execute(past)}
        return {name: Usage((seconds.get(name) or 0.0) + before.get(name, 0.0), int(stored.get(name) or 0)) for name in names}


def keep_usage(connection: Connection, study_id: str, project: str) -> None:
    """Let what a study has used, which is about to be deleted in this transaction, go on to count."""
    of_study = tables.trials.c.study_id == study_id
    seconds = connection.execute(select(func.sum(tables.trials.c.gpu_seconds)).where(of_study)).scalar()
    if not seconds:
        return
    row = {"project": project, "gpu_seconds": seconds}
    insert_or_change(connection, tables.past_usage, row, {"gpu_seconds": _PAST.gpu_seconds + seconds})


def _by_project(connection: Connection, sums: Select[Any]) -> Mapping[str, float]:
    return {row[0]: row[1] for row in connection.execute(sums.group_by(tables.studies.c.project))}


def _row(project: Project) -> dict[str, Any]:
    return {"name": project.name, "created_at": project.created_at, **asdict(project.quotas)}


def _project_of(row: Mapping[Any, Any]) -> Project:
    return Project(row["name"], row["created_at"], Quotas(**{name: row[name] for name in _QUOTAS}))
