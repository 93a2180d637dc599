"""Where an attempt finds what it needs and leaves what it makes: folders that the service sees too, or object storage."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from service.checkpoints.local import Resume, TrialFolder
from service.checkpoints.space import Free
from service.domain.checkpoint import Manifest
from service.domain.ports import LocalSources
from service.execution.assignment import Assignment


class Folder(Protocol):
    """The checkpoints of one trial, for the worker that trains it. Raises NoSpace, and StorageAway where they are in storage."""

    def resume(self) -> Resume | None: ...

    def save_resume(
        self, reports: Sequence[Mapping[str, Any]], write_state: Callable[[Path], None] | None, *, midway: bool = False
    ) -> None: ...

    def save_export(
        self,
        report: int,
        write_model: Callable[[Path], None],
        before: int | None = None,
        analysis: Mapping[str, Any] | None = None,
    ) -> Manifest: ...

    def model(self, report: int) -> Path: ...


@dataclass(frozen=True)
class Place:
    """`study` is where it is noted what had no room, `cache` is for prepared rows, and `fetch` makes rows and models be here.

    `fetch` may take minutes. Raises DamagedObject, StorageAway.
    """

    folder: Folder
    study: Path
    cache: Path
    fetch: Callable[[], LocalSources]


def shared_disk(assignment: Assignment, free: Free) -> Place:
    """The folders that the assignment names: all is there."""
    root = Path(assignment.checkpoints)
    sources = LocalSources(
        models={name: Path(path) for name, path in assignment.models.items()},
        sources={name: Path(path) for name, path in assignment.sources.items()},
    )
    folder = TrialFolder(root, assignment.study_id, assignment.number, free, assignment.attempt)
    return Place(folder, root / assignment.study_id, Path(assignment.cache), lambda: sources)
