"""What lies on disk of a study's trials: what they go on from, and what users pull."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class StoredKind(StrEnum):
    """What a trial goes on from; what a user pulls; and what a writer is still at, or left when it was killed."""

    RESUME = "resume"
    EXPORT = "export"
    UNFINISHED = "unfinished"


@dataclass(frozen=True)
class Stored:
    """One checkpoint of a trial. `report` and `attempt` are 0 where nobody can tell; the checkpoint store calls it `name`.

    Of files that several checkpoints share, each counts its part in `bytes`.
    """

    trial: int
    kind: StoredKind
    report: int
    bytes: int
    at: datetime
    name: str
    attempt: int = 0


@dataclass(frozen=True)
class Freed:
    """What was deleted from the disk."""

    files: int = 0
    bytes: int = 0


NOTHING_FREED = Freed()


@dataclass(frozen=True)
class Footprint:
    """What a study's checkpoints take, as it was last measured.

    `detail` says what the controller cannot help: that what the study needs is more than its budget. `missing` are the trials
    whose model should be there and is gone from the disk.
    """

    bytes: int
    at: datetime
    detail: str | None = None
    missing: tuple[int, ...] = ()
