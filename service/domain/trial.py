"""A trial: one configuration tried, in one attempt or several."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from search_spaces import Value
from service.domain.errors import IllegalMove
from service.domain.objective import Objective


class TrialState(StrEnum):
    """Where a trial is; the last six are ends."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    PRUNED = "pruned"
    STOPPED = "stopped"
    CANCELLED = "cancelled"
    INFEASIBLE = "infeasible"
    FAILED = "failed"

    @property
    def is_end(self) -> bool:
        return self in _ENDS


_ENDS = frozenset(
    {
        TrialState.COMPLETED,
        TrialState.PRUNED,
        TrialState.STOPPED,
        TrialState.CANCELLED,
        TrialState.INFEASIBLE,
        TrialState.FAILED,
    }
)

TRIAL_MOVES: Mapping[TrialState, frozenset[TrialState]] = {
    TrialState.QUEUED: frozenset(
        {
            TrialState.RUNNING,
            TrialState.PRUNED,
            TrialState.STOPPED,
            TrialState.CANCELLED,
            TrialState.INFEASIBLE,
            TrialState.FAILED,
        }
    ),
    TrialState.RUNNING: frozenset(
        {
            TrialState.QUEUED,
            TrialState.PAUSED,
            TrialState.COMPLETED,
            TrialState.PRUNED,
            TrialState.STOPPED,
            TrialState.CANCELLED,
            TrialState.INFEASIBLE,
            TrialState.FAILED,
        }
    ),
    TrialState.PAUSED: frozenset(
        {TrialState.QUEUED, TrialState.COMPLETED, TrialState.PRUNED, TrialState.STOPPED, TrialState.CANCELLED}
    ),
    TrialState.COMPLETED: frozenset(),
    TrialState.PRUNED: frozenset(),
    TrialState.STOPPED: frozenset({TrialState.QUEUED, TrialState.PAUSED}),
    TrialState.CANCELLED: frozenset(),
    TrialState.INFEASIBLE: frozenset(),
    TrialState.FAILED: frozenset(),
}
"""The transition table: every move of a trial goes through one of `Trial`'s methods."""


class TrialReason(StrEnum):
    """Why a trial ended."""

    EPOCHS_DONE = "epochs_done"
    NO_IMPROVEMENT = "no_improvement"
    RUNG_CUT = "rung_cut"
    BELOW_MEDIAN = "below_median"
    EXPLOITED = "exploited"
    TARGET_REACHED = "target_reached"
    BUDGET_SPENT = "budget_spent"
    STOP_REQUESTED = "stop_requested"
    CANCEL_REQUESTED = "cancel_requested"
    STUDY_FAILED = "study_failed"
    DIVERGED = "diverged"
    OUT_OF_MEMORY = "out_of_memory"
    OUTCOME_BROKEN = "outcome_broken"
    TRAINER_ERROR = "trainer_error"
    RETRIES_EXHAUSTED = "retries_exhausted"

    @property
    def end(self) -> TrialState:
        """The one end state this reason leads to."""
        return _END_OF_REASON[self]


_END_OF_REASON: Mapping[TrialReason, TrialState] = {
    TrialReason.EPOCHS_DONE: TrialState.COMPLETED,
    TrialReason.NO_IMPROVEMENT: TrialState.COMPLETED,
    TrialReason.RUNG_CUT: TrialState.PRUNED,
    TrialReason.BELOW_MEDIAN: TrialState.PRUNED,
    TrialReason.EXPLOITED: TrialState.PRUNED,
    TrialReason.TARGET_REACHED: TrialState.STOPPED,
    TrialReason.BUDGET_SPENT: TrialState.STOPPED,
    TrialReason.STOP_REQUESTED: TrialState.STOPPED,
    TrialReason.CANCEL_REQUESTED: TrialState.CANCELLED,
    TrialReason.STUDY_FAILED: TrialState.STOPPED,
    TrialReason.DIVERGED: TrialState.FAILED,
    TrialReason.OUT_OF_MEMORY: TrialState.INFEASIBLE,
    TrialReason.OUTCOME_BROKEN: TrialState.INFEASIBLE,
    TrialReason.TRAINER_ERROR: TrialState.FAILED,
    TrialReason.RETRIES_EXHAUSTED: TrialState.FAILED,
}

MAX_RETRIES = 5
"""Lost attempts in a row without a new report after which a trial fails."""


class AttemptOutcome(StrEnum):
    """How an attempt ended.

    It reached its last report, its process or driver was lost, its study or a user ended it, it gave up its slot, for another
    study or to go on in another place, its study was paused, it failed, or it was short of memory on a GPU that it shared.
    """

    DONE = "done"
    LOST = "lost"
    STOPPED = "stopped"
    PREEMPTED = "preempted"
    PAUSED = "paused"
    FAILED = "failed"
    CROWDED = "crowded"


@dataclass(frozen=True)
class Report:
    """One report of a trial as the store remembers it: `seconds` is what it took.

    `number` counts without gaps from 1, or on from `parent_report` where the trial began as a copy.
    """

    number: int
    epoch: float
    step: int
    metrics: Mapping[str, float]
    seconds: float
    attempt: int
    worker: str
    at: datetime


@dataclass(frozen=True)
class TrialRequest:
    """A configuration that a user asked for while the study ran; `number` counts from 1 within the study."""

    number: int
    parameters: Mapping[str, Value]
    at: datetime


@dataclass(frozen=True)
class Attempt:
    """One unbroken execution of a trial, from report `first` (exclusive) towards report `until`.

    It holds `gpus` of them, or that share of one. `peak_bytes` is the most memory that it took of its GPU, which has `gpu_bytes`;
    None where nobody measured.
    """

    number: int
    first: int
    until: int
    started_at: datetime
    ended_at: datetime | None = None
    outcome: AttemptOutcome | None = None
    worker: str | None = None
    detail: str | None = None
    gpus: float = 0.0
    peak_bytes: int | None = None
    gpu_bytes: int | None = None


@dataclass(frozen=True)
class Trial:
    """A trial as the store remembers it.

    `until` is the report its present attempt runs to, `reports` how many it has given, `value` the objective at the last of
    them, `best_value` and `best_report` the best one so far, `retries` the lost attempts since the last report,
    with those that the object storage held up.

    A trial with a `parent` began as a copy of that trial at its `parent_report`, and counts its reports on from there. One that
    `repeats` another tries that one's parameters again under a `seed` of its own. `errors` are the attempts that failed and were
    tried again; a queued trial does not go on before `not_before`. `seconds` is what its reports took, `lost_seconds` what lost
    and failed attempts took beside them; `gpu_seconds` has both.
    """

    study_id: str
    number: int
    parameters: Mapping[str, Value]
    until: int
    created_at: datetime
    state: TrialState = TrialState.QUEUED
    bracket: int = 0
    rung: int = 0
    reports: int = 0
    value: float | None = None
    best_value: float | None = None
    best_report: int | None = None
    best_epoch: float | None = None
    attempts: int = 0
    retries: int = 0
    seconds: float = 0.0
    gpu_seconds: float = 0.0
    reason: TrialReason | None = None
    detail: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    version: int = 0
    parent: int | None = None
    parent_report: int = 0
    repeats: int | None = None
    seed: int | None = None
    errors: int = 0
    not_before: datetime | None = None
    lost_seconds: float = 0.0

    def started(self, now: datetime) -> "Trial":
        """The trial with a new attempt at work on it."""
        return replace(
            self._moved(TrialState.RUNNING), attempts=self.attempts + 1, started_at=self.started_at or now, not_before=None
        )

    def reported(self, report: Report, objective: Objective, gpus: float, *, counts: bool = True) -> "Trial":
        """The trial one report further; reports arrive in order. One that does not count, for its outcomes, is not the best."""
        if report.number != self.reports + 1:
            raise IllegalMove(f"Trial {self.number} has {self.reports} reports: report {report.number} cannot be next.")
        value = report.metrics[objective.metric]
        is_best = counts and (self.best_value is None or objective.better(value, self.best_value))
        return replace(
            self,
            reports=report.number,
            value=value,
            retries=0,
            seconds=self.seconds + report.seconds,
            gpu_seconds=self.gpu_seconds + report.seconds * gpus,
            best_value=value if is_best else self.best_value,
            best_report=report.number if is_best else self.best_report,
            best_epoch=report.epoch if is_best else self.best_epoch,
        )

    def losing(self, seconds: float, gpus: float) -> "Trial":
        """The trial after so much time that came to nothing, as its process was lost or its trainer failed."""
        return replace(self, lost_seconds=self.lost_seconds + seconds, gpu_seconds=self.gpu_seconds + seconds * gpus)

    @property
    def own_reports(self) -> int:
        """Reports that it gave itself, those of the trial that it began as a copy of left out."""
        return self.reports - self.parent_report

    @property
    def stopped_early(self) -> bool:
        """Whether it ended by itself before its last report, and so has at every later one the best value it had."""
        return self.reason is TrialReason.NO_IMPROVEMENT

    def paused(self) -> "Trial":
        """The trial at its rung, waiting for a promotion or the cut."""
        return self._moved(TrialState.PAUSED)

    def promoted(self, rung: int, until: int) -> "Trial":
        """The trial queued for the next rung."""
        return replace(self._moved(TrialState.QUEUED), rung=rung, until=until)

    def lost(self, now: datetime) -> "Trial":
        """The trial queued for another attempt after a process was lost, or failed when that happened too often."""
        if self.retries >= MAX_RETRIES:
            detail = f"its worker was lost {self.retries + 1} times in a row without a new report"
            return self.ended(TrialReason.RETRIES_EXHAUSTED, now, detail)
        return replace(self._moved(TrialState.QUEUED), retries=self.retries + 1)

    def held_up(self, not_before: datetime) -> "Trial":
        """The trial queued for another attempt, after the object storage did not take or give what it had to."""
        return replace(self._moved(TrialState.QUEUED), retries=min(self.retries + 1, MAX_RETRIES), not_before=not_before)

    def interrupted(self, seconds: float = 0.0, gpus: float = 0.0) -> "Trial":
        """The trial queued for another attempt through no fault of its own.

        Its driver went away, its study was paused or another study got its slot. `seconds` is what it has trained since its last
        report, and need not train again.
        """
        moved = self._moved(TrialState.QUEUED)
        return replace(moved, seconds=self.seconds + seconds, gpu_seconds=self.gpu_seconds + seconds * gpus)

    def failed_attempt(self, not_before: datetime) -> "Trial":
        """The trial queued for another attempt, from its last checkpoint, after the trainer raised an error."""
        return replace(self._moved(TrialState.QUEUED), errors=self.errors + 1, not_before=not_before)

    def revived(self) -> "Trial":
        """The trial as it was before its study stopped it: at its rung, or queued to train on. For a study that was extended."""
        state = TrialState.PAUSED if self.reports >= self.until else TrialState.QUEUED
        if state not in TRIAL_MOVES[self.state] or not self.state.is_end:
            raise IllegalMove(f"Trial {self.number} of {self.study_id!r} is {self.state}: only a stopped trial can be revived.")
        return replace(self, state=state, reason=None, detail=None, ended_at=None)

    def ended(self, reason: TrialReason, now: datetime, detail: str | None = None) -> "Trial":
        """The trial at the end its reason leads to."""
        return replace(self._moved(reason.end), reason=reason, detail=detail or self.detail, ended_at=now)

    def _moved(self, state: TrialState) -> "Trial":
        if state not in TRIAL_MOVES[self.state] or self.state.is_end:  # what has ended is only revived
            raise IllegalMove(f"Trial {self.number} of {self.study_id!r} is {self.state}: it cannot become {state}.")
        return replace(self, state=state)
