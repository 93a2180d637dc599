"""What one request sees: the parts behind the API, as far as the caller's project reaches.

A route asks for its parts and finds only what it may show. What belongs to another project is not there: it is not forbidden.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from service.api.dependencies import ApiParts
from service.domain.access import DEFAULT_PROJECT
from service.domain.deletion import Deletion
from service.domain.errors import StudyNotFound
from service.domain.history import PriorTrial
from service.domain.ports import DeletionStore, IdempotencyKey, Page, StudyQuery, StudyStore, TrackedStore
from service.domain.stored import NOTHING_FREED, Freed
from service.domain.study import Study

_MOST_DELETIONS = 5000


def parts_within(parts: ApiParts, project: str | None) -> ApiParts:
    """The parts as a project sees them; None sees every study, and the data sets of the project `default`."""
    own = project or DEFAULT_PROJECT
    scoped = replace(
        parts, project=own, datasets=parts.datasets.of(own), catalog=parts.catalog.of(own), models=parts.models.of(own)
    )
    if project is None:
        return scoped
    studies = _StudiesOf(parts.store.studies, project)
    deletions = _DeletionsOf(parts.store.deletions, project)
    return replace(scoped, store=replace(parts.store, studies=studies, deletions=deletions))


@dataclass(frozen=True)
class _StudiesOf:
    """The port `StudyStore`, with the studies of one project."""

    studies: StudyStore
    project: str

    def add(self, study: Study, idempotency: IdempotencyKey | None = None, prior: Sequence[PriorTrial] = ()) -> Study:
        return self.studies.add(study, idempotency, prior)

    def with_key(self, idempotency: IdempotencyKey) -> Study | None:
        return self.studies.with_key(idempotency)

    def get(self, study_id: str) -> Study:
        return self._own(self.studies.get(study_id))

    def project_of(self, study_id: str) -> str:
        return self.get(study_id).project

    def find(self, query: StudyQuery) -> Page[Study]:
        return self.studies.find(replace(query, project=self.project))

    def save(self, study: Study, by: str | None = None) -> Study:
        return self.studies.save(self._own(study), by)

    def delete(self, study_id: str, by: str | None = None) -> Deletion:
        self.get(study_id)
        return self.studies.delete(study_id, by)

    def _own(self, study: Study) -> Study:
        if study.project != self.project:
            raise StudyNotFound(study.id)
        return study


@dataclass(frozen=True)
class _DeletionsOf:
    """The port `DeletionStore`, with the deleted studies of one project."""

    deletions: DeletionStore
    project: str

    def recent(self, limit: int = 100) -> Sequence[Deletion]:
        return [one for one in self.deletions.recent(_MOST_DELETIONS) if one.project == self.project][:limit]

    def freed(self, study_id: str, checkpoints: Freed = NOTHING_FREED, prepared: Freed = NOTHING_FREED) -> None:
        self.deletions.freed(study_id, checkpoints, prepared)


@dataclass(frozen=True)
class TrackedOf:
    """What the tracker has of one project, as the gateway looks it up."""

    tracked: TrackedStore
    project: str

    def experiments(self, ids: Collection[str]) -> frozenset[str]:
        return self.tracked.experiments(self.project, ids)

    def runs(self, ids: Collection[str]) -> frozenset[str]:
        return self.tracked.runs(self.project, ids)

    def studies(self, ids: Collection[str]) -> frozenset[str]:
        return self.tracked.studies(self.project, ids)
