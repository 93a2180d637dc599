"""What happened to a study, in order: the stream a client watches."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class EventKind(StrEnum):
    """What an event tells."""

    STUDY_CREATED = "study.created"
    STUDY_STATE = "study.state"
    STUDY_CHANGED = "study.changed"
    STUDY_REPAIRED = "study.repaired"
    STUDY_QUARANTINE = "study.quarantine"
    CHECKPOINT_DELETED = "checkpoint.deleted"
    CHECKPOINT_BUDGET = "checkpoint.budget"
    TRIAL_REQUESTED = "trial.requested"
    TRIAL_STOP_REQUESTED = "trial.stop_requested"
    TRIAL_CREATED = "trial.created"
    TRIAL_STATE = "trial.state"
    TRIAL_REPORT = "trial.report"


@dataclass(frozen=True)
class Event:
    """One event; `id` grows by time within a study. It is 0 until the store has numbered it."""

    kind: EventKind
    study_id: str
    at: datetime
    payload: Mapping[str, Any]
    id: int = 0
