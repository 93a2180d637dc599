"""What becomes of a study's trials when the study ends, or its driver does: for drivers, and for the controller without one."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from service.domain.attempts import DRIVER_GONE, Attempts
from service.domain.history import History
from service.domain.ports import Change
from service.domain.study import Study, StudyReason
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState

_TRIAL_REASON = {
    StudyReason.BUDGET_SPENT: TrialReason.BUDGET_SPENT,
    StudyReason.SPACE_EXHAUSTED: TrialReason.BUDGET_SPENT,
    StudyReason.TARGET_REACHED: TrialReason.TARGET_REACHED,
    StudyReason.NO_IMPROVEMENT: TrialReason.BUDGET_SPENT,
    StudyReason.STOP_REQUESTED: TrialReason.STOP_REQUESTED,
    StudyReason.CANCEL_REQUESTED: TrialReason.CANCEL_REQUESTED,
    StudyReason.DRIVER_FAILED: TrialReason.STUDY_FAILED,
}


def end_trial_with(study: Study, trial: Trial, now: datetime) -> Trial:
    """The trial at the end that the study's reason means for it."""
    return trial.ended(_TRIAL_REASON[study.reason or StudyReason.DRIVER_FAILED], now)


def closing_changes(study: Study, history: History, now: datetime, attempts: Attempts | None = None) -> list[Change]:
    """The changes that end every trial which has not ended, because `study` is ending.

    Of `attempts`, those that are open ran under a driver that is gone.
    """
    left = [_left_by_driver(study, history, trial, attempts or {}, now) for trial in history.in_state(*_NOT_ENDED)]
    return [Change(trial=end_trial_with(study, trial, now), attempt=attempt) for trial, attempt in left]


def revived(history: History, can_go_on: Callable[[Trial], bool], *, is_searching: bool = True) -> list[Change]:
    """The changes that undo the ends of trials which their study's end stopped, now that it goes on.

    What a user stopped stays stopped, and so does what ended by itself, or cannot go on from where it was; and what the search's
    end stopped, where it is not to go on but its final is.
    """
    stopped = [
        trial
        for trial in history.in_state(TrialState.STOPPED)
        if trial.reason is not TrialReason.STUDY_FAILED
        and trial.number not in history.stops
        and (is_searching or trial.repeats is not None)
    ]
    return [Change(trial=trial.revived()) for trial in stopped if not trial.reports or can_go_on(trial)]


def lost_with_driver(study: Study, history: History, attempts: Attempts, now: datetime) -> list[Change]:
    """The changes that queue again every trial that ran under a driver that is gone."""
    left = [_left_by_driver(study, history, trial, attempts, now) for trial in history.in_state(TrialState.RUNNING)]
    return [Change(trial=trial.interrupted(), attempt=attempt) for trial, attempt in left]


def _left_by_driver(
    study: Study, history: History, trial: Trial, attempts: Attempts, now: datetime
) -> tuple[Trial, Attempt | None]:
    """The trial with what its open attempt has cost, and that attempt, lost."""
    closed = [
        replace(attempt, ended_at=now, outcome=AttemptOutcome.LOST, detail=DRIVER_GONE)
        for attempt in attempts.get(trial.number, ())
        if attempt.ended_at is None
    ]
    for attempt in closed:  # nobody knows when it was lost: within a report
        trial = history.charged(study, trial, attempt, history.longest_seconds)
    return trial, closed[-1] if closed else None


_NOT_ENDED = [state for state in TrialState if not state.is_end]
