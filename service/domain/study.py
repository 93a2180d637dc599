"""A study: what was asked for, and how far it is."""

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from service.domain.definition import StudyDefinition
from service.domain.errors import IllegalMove


class StudyState(StrEnum):
    """Where a study is; the last four are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        return not STUDY_MOVES[self]


STUDY_MOVES: Mapping[StudyState, frozenset[StudyState]] = {
    StudyState.QUEUED: frozenset({StudyState.RUNNING, StudyState.STOPPING}),
    StudyState.RUNNING: frozenset({StudyState.STOPPING}),
    StudyState.STOPPING: frozenset(
        {StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED, StudyState.STOPPING}
    ),
    StudyState.COMPLETED: frozenset(),
    StudyState.STOPPED: frozenset(),
    StudyState.CANCELLED: frozenset(),
    StudyState.FAILED: frozenset(),
}
"""The transition table: every move of a study goes through `Study.stopping` or `Study.move_to`."""


class StudyReason(StrEnum):
    """Why a study ends."""

    BUDGET_SPENT = "budget_spent"
    SPACE_EXHAUSTED = "space_exhausted"
    TARGET_REACHED = "target_reached"
    STOP_REQUESTED = "stop_requested"
    CANCEL_REQUESTED = "cancel_requested"
    TOO_MANY_FAILURES = "too_many_failures"
    DRIVER_FAILED = "driver_failed"

    @property
    def end(self) -> StudyState:
        """The one end state this reason leads to."""
        return _END_OF_REASON[self]


_END_OF_REASON: Mapping[StudyReason, StudyState] = {
    StudyReason.BUDGET_SPENT: StudyState.COMPLETED,
    StudyReason.SPACE_EXHAUSTED: StudyState.COMPLETED,
    StudyReason.TARGET_REACHED: StudyState.COMPLETED,
    StudyReason.STOP_REQUESTED: StudyState.STOPPED,
    StudyReason.CANCEL_REQUESTED: StudyState.CANCELLED,
    StudyReason.TOO_MANY_FAILURES: StudyState.FAILED,
    StudyReason.DRIVER_FAILED: StudyState.FAILED,
}


@dataclass(frozen=True)
class WarmStart:
    """What became of the trials of the studies that a study starts from: how many it knows, and why it does not know the others.

    `because` has the number of trials for each reason.
    """

    carried_over: int
    because: Mapping[str, int]


@dataclass(frozen=True)
class Study:
    """A study as the store remembers it. `version` counts its writes; times are aware and in UTC."""

    id: str
    definition: StudyDefinition
    created_at: datetime
    state: StudyState = StudyState.QUEUED
    reason: StudyReason | None = None
    detail: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    version: int = 0
    warm_start: WarmStart | None = None

    def running(self, now: datetime) -> "Study":
        """The study with a driver at work on it."""
        return replace(self._moved(StudyState.RUNNING), started_at=self.started_at or now)

    def stopping(self, reason: StudyReason, detail: str | None = None) -> "Study":
        """The study on its way to its end; a later reason only replaces an earlier one when it is more urgent.

        Raises `IllegalMove` when it has ended.
        """
        moved = self._moved(StudyState.STOPPING)
        if self.reason is not None and reason is not StudyReason.CANCEL_REQUESTED:
            return self
        return replace(moved, reason=reason, detail=detail)

    def ended(self, now: datetime) -> "Study":
        """The study at the end its reason leads to."""
        if self.reason is None:
            raise IllegalMove(f"Study {self.id!r} has no reason to end.")
        return replace(self._moved(self.reason.end), ended_at=now)

    def _moved(self, state: StudyState) -> "Study":
        if state not in STUDY_MOVES[self.state]:
            raise IllegalMove(f"Study {self.id!r} is {self.state}: it cannot become {state} any more.")
        return replace(self, state=state)


def new_study_id(name: str) -> str:
    """An id that reads like the name and is not guessed twice: `banking-intents-k3v9x2`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "study"
    suffix = base64.b32encode(secrets.token_bytes(5)).decode().lower()[:6]
    return f"{slug}-{suffix}"
