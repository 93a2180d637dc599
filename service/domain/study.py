"""A study: what was asked for, and how far it is."""

import base64
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from service.domain.access import DEFAULT_PROJECT
from service.domain.definition import Resources, StudyDefinition
from service.domain.errors import IllegalMove


class StudyState(StrEnum):
    """Where a study is; the last four are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    COMPLETED = "completed"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        return self in _ENDS


_ENDS = frozenset({StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED})

STUDY_MOVES: Mapping[StudyState, frozenset[StudyState]] = {
    StudyState.QUEUED: frozenset({StudyState.RUNNING, StudyState.PAUSED, StudyState.STOPPING}),
    StudyState.RUNNING: frozenset({StudyState.PAUSING, StudyState.STOPPING}),
    StudyState.PAUSING: frozenset({StudyState.RUNNING, StudyState.PAUSING, StudyState.PAUSED, StudyState.STOPPING}),
    StudyState.PAUSED: frozenset({StudyState.QUEUED, StudyState.STOPPING}),
    StudyState.STOPPING: frozenset(
        {StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED, StudyState.STOPPING}
    ),
    StudyState.COMPLETED: frozenset({StudyState.QUEUED}),
    StudyState.STOPPED: frozenset({StudyState.QUEUED}),
    StudyState.CANCELLED: frozenset(),
    StudyState.FAILED: frozenset(),
}
"""The transition table: every move of a study goes through one of `Study`'s methods."""


class StudyReason(StrEnum):
    """Why a study ends, or is paused."""

    BUDGET_SPENT = "budget_spent"
    SPACE_EXHAUSTED = "space_exhausted"
    TARGET_REACHED = "target_reached"
    NO_IMPROVEMENT = "no_improvement"
    STOP_REQUESTED = "stop_requested"
    CANCEL_REQUESTED = "cancel_requested"
    TOO_MANY_FAILURES = "too_many_failures"
    DRIVER_FAILED = "driver_failed"
    PAUSE_REQUESTED = "pause_requested"
    NO_SPACE = "no_space"

    @property
    def end(self) -> StudyState:
        """The one state this reason leads to: an end, or `paused`."""
        return _END_OF_REASON[self]


_END_OF_REASON: Mapping[StudyReason, StudyState] = {
    StudyReason.BUDGET_SPENT: StudyState.COMPLETED,
    StudyReason.SPACE_EXHAUSTED: StudyState.COMPLETED,
    StudyReason.TARGET_REACHED: StudyState.COMPLETED,
    StudyReason.NO_IMPROVEMENT: StudyState.COMPLETED,
    StudyReason.STOP_REQUESTED: StudyState.STOPPED,
    StudyReason.CANCEL_REQUESTED: StudyState.CANCELLED,
    StudyReason.DRIVER_FAILED: StudyState.FAILED,
    StudyReason.TOO_MANY_FAILURES: StudyState.PAUSED,
    StudyReason.PAUSE_REQUESTED: StudyState.PAUSED,
    StudyReason.NO_SPACE: StudyState.PAUSED,
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
    """A study as the store remembers it. `version` counts its writes; times are aware and in UTC.

    `is_urgent` says of a pausing study that its trials leave at once and not at their next report. `idle_seconds` is the time
    since it first ran in which it was paused, or had ended before it was extended; `idle_since` is when the present such time
    began. `resumed_at` is when it was last resumed or extended after its end, `amended_at` when its budget last changed,
    `created_by` who POSTed it, where that is known, `project` whose it is. `trials_per_gpu` is how many of its trials
    share a GPU now, where its definition leaves that to be measured.
    """

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
    is_urgent: bool = False
    idle_seconds: float = 0.0
    idle_since: datetime | None = None
    resumed_at: datetime | None = None
    amended_at: datetime | None = None
    created_by: str | None = None
    trials_per_gpu: int = 1
    project: str = DEFAULT_PROJECT

    @property
    def resources(self) -> Resources:
        """What each of its trials holds now, in numbers."""
        return self.definition.resources.packed(self.trials_per_gpu)

    def running(self, now: datetime) -> "Study":
        """The study with a driver at work on it."""
        return _awake(replace(self._moved(StudyState.RUNNING), started_at=self.started_at or now), now)

    def pausing(self, reason: StudyReason, now: datetime, detail: str | None = None, *, is_urgent: bool = False) -> "Study":
        """The study on its way to a pause, or paused at once where none of its trials can be running; as it is when paused.

        A second request may make the first one urgent, and a user's takes the place of `no_space`, which ends by itself. Raises
        `IllegalMove` when it is stopping or has ended.
        """
        if reason.end is not StudyState.PAUSED:
            raise ValueError(f"{reason} ends a study")
        if self.state in {StudyState.PAUSING, StudyState.PAUSED}:
            kept = self
            if self.reason is StudyReason.NO_SPACE and reason is StudyReason.PAUSE_REQUESTED:
                kept = replace(self, reason=reason, detail=detail)
            return replace(kept, is_urgent=self.state is StudyState.PAUSING and (self.is_urgent or is_urgent))
        if self.state.is_end or self.state is StudyState.STOPPING:
            raise IllegalMove(f"Study {self.id!r} is {self.state}: there is nothing to pause.")
        if self.state is StudyState.QUEUED:
            return replace(self._moved(StudyState.PAUSED), reason=reason, detail=detail, idle_since=self._idle_since(now))
        return replace(self._moved(StudyState.PAUSING), reason=reason, detail=detail, is_urgent=is_urgent)

    def paused(self, now: datetime) -> "Study":
        """The pausing study once none of its trials runs."""
        if self.reason is None:
            raise IllegalMove(f"Study {self.id!r} has no reason to pause.")
        return replace(self._moved(StudyState.PAUSED), is_urgent=False, idle_since=self._idle_since(now))

    def resumed(self, now: datetime) -> "Study":
        """The study queued again, or running on where its trials have not left yet; as it is when nothing holds it.

        Raises `IllegalMove` when it is stopping or has ended.
        """
        if self.state in {StudyState.QUEUED, StudyState.RUNNING}:
            return self
        if self.state is not StudyState.PAUSED and self.state is not StudyState.PAUSING:
            raise IllegalMove(f"Study {self.id!r} is {self.state}: only a paused study can be resumed{_ADVICE[self.state]}.")
        return self._going_on(StudyState.RUNNING if self.state is StudyState.PAUSING else StudyState.QUEUED, now)

    def extended(self, definition: StudyDefinition, now: datetime) -> "Study":
        """The study with a larger budget, queued again where it had ended.

        As it is where it was completed with that very budget; one that was stopped has something left, and goes on. Raises
        `IllegalMove` when it is stopping, was cancelled or failed.
        """
        if self.state in {StudyState.STOPPING, StudyState.CANCELLED, StudyState.FAILED}:
            raise IllegalMove(f"Study {self.id!r} is {self.state}: it cannot be extended{_ADVICE[self.state]}.")
        if not self.state.is_end:
            return _amended(self, definition, now)
        if self.state is StudyState.COMPLETED and definition == self.definition:
            return self
        return _amended(self._going_on(StudyState.QUEUED, now), definition, now)

    def changed(self, definition: StudyDefinition, now: datetime) -> "Study":
        """The study with another definition, which takes effect at once.

        Raises `IllegalMove` when it is stopping or has ended.
        """
        if self.state.is_end or self.state is StudyState.STOPPING:
            raise IllegalMove(f"Study {self.id!r} is {self.state}: it cannot be changed any more{_ADVICE[self.state]}.")
        return _amended(self, definition, now)

    def stopping(self, reason: StudyReason, detail: str | None = None) -> "Study":
        """The study on its way to its end; a later reason only replaces an earlier one when it is more urgent.

        Raises `IllegalMove` when it has ended.
        """
        if reason.end is StudyState.PAUSED:
            raise ValueError(f"{reason} pauses a study")
        if self.state.is_end:
            asked = "cancel" if reason is StudyReason.CANCEL_REQUESTED else "stop"
            raise IllegalMove(f"Study {self.id!r} is {self.state}: there is nothing to {asked}.")
        moved = self._moved(StudyState.STOPPING)
        if self.state is StudyState.STOPPING and reason is not StudyReason.CANCEL_REQUESTED:
            return self
        return replace(moved, reason=reason, detail=detail, is_urgent=False)

    def ended(self, now: datetime) -> "Study":
        """The study at the end its reason leads to."""
        if self.reason is None or not self.reason.end.is_end:
            raise IllegalMove(f"Study {self.id!r} has no reason to end.")
        return replace(self._moved(self.reason.end), ended_at=now, idle_since=self._idle_since(now))

    def active_seconds(self, now: datetime) -> float:
        """Seconds since it first ran, without those in which it was paused, had ended or waited to go on after that."""
        if self.started_at is None:
            return 0.0
        return max(0.0, ((self.idle_since or now) - self.started_at).total_seconds() - self.idle_seconds)

    def _idle_since(self, now: datetime) -> datetime | None:
        """When the idle time began that it is in: before it first ran there is none."""
        return self.idle_since or (None if self.started_at is None else now)

    def _going_on(self, state: StudyState, now: datetime) -> "Study":
        """The study as if nothing had held it. Its idle time lasts until it runs."""
        return replace(self._moved(state), reason=None, detail=None, ended_at=None, is_urgent=False, resumed_at=now)

    def _moved(self, state: StudyState) -> "Study":
        if state not in STUDY_MOVES[self.state]:
            is_late = self.state.is_end or self.state is StudyState.STOPPING
            raise IllegalMove(f"Study {self.id!r} is {self.state}: it cannot become {state}{' any more' if is_late else ''}.")
        return replace(self, state=state)


def _amended(study: Study, definition: StudyDefinition, now: datetime) -> Study:
    same_budget = definition.budget == study.definition.budget
    return replace(study, definition=definition, amended_at=study.amended_at if same_budget else now)


def _awake(study: Study, now: datetime) -> Study:
    """The study after its idle time, where it was in one."""
    if study.idle_since is None:
        return study
    return replace(study, idle_seconds=study.idle_seconds + (now - study.idle_since).total_seconds(), idle_since=None)


_ADVICE: Mapping[StudyState, str] = {
    StudyState.STOPPING: ": wait until it has ended, and extend or fork it",
    StudyState.COMPLETED: ": extend it with a larger budget, or fork it",
    StudyState.STOPPED: ": extend it, or fork it",
    StudyState.CANCELLED: ": fork it to go on with what it knows",
    StudyState.FAILED: ": fork it to go on with what it knows",
}
"""What to do with a study that goes on no more by itself."""


def new_study_id(name: str) -> str:
    """An id that reads like the name and is not guessed twice: `banking-intents-k3v9x2`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-") or "study"
    suffix = base64.b32encode(secrets.token_bytes(5)).decode().lower()[:6]
    return f"{slug}-{suffix}"
