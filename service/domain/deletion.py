"""What became of a study that was deleted: the one thing that is remembered of it."""

from dataclasses import dataclass
from datetime import datetime

from service.domain.access import DEFAULT_PROJECT
from service.domain.stored import NOTHING_FREED, Freed


@dataclass(frozen=True)
class Forgotten:
    """What the tracker had of a study and has no more, its files included."""

    experiment: str | None = None
    runs: int = 0
    registered_model: bool = False


@dataclass(frozen=True)
class Deletion:
    """What was removed with a study: rows of the store, files, and what the tracker had, which is None until it has been."""

    study_id: str
    name: str
    at: datetime
    by: str | None = None
    trials: int = 0
    attempts: int = 0
    reports: int = 0
    events: int = 0
    checkpoints: Freed = NOTHING_FREED
    prepared: Freed = NOTHING_FREED
    forgotten: Forgotten | None = None
    forgotten_at: datetime | None = None
    project: str = DEFAULT_PROJECT
