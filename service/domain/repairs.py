"""What was found to differ from what the store says, and was put right. Each repair is an event that one can read."""

from datetime import datetime
from enum import StrEnum

from service.domain.events import Event, EventKind


class Repaired(StrEnum):
    """What was wrong."""

    LEASE = "lease"
    """A driver was killed, and its lease would have kept the next one waiting."""
    ATTEMPTS = "attempts"
    """Attempts were open in the store with no driver at work on them."""
    DRIVER = "driver"
    """A driver was left at work on a study that has ended or is gone."""
    MIRROR = "mirror"
    """The tracker was thought to be further than the store is."""
    RUNS = "runs"
    """Runs stood as running in the tracker although their trials have ended."""
    EXPORT = "export"
    """The model of one of the best trials is gone from the disk. Nothing can be done about it but to know."""
    FOLDERS = "folders"
    """Folders of the study were left by processes that were killed."""


def repaired(study_id: str, at: datetime, what: Repaired, detail: str) -> Event:
    """The event that tells of a repair; `detail` is a sentence."""
    return Event(EventKind.STUDY_REPAIRED, study_id, at, {"what": what.value, "detail": detail})
