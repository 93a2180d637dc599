"""How a study's remaining trials end when the study does. Used by its driver, and by the controller when there is none."""

from datetime import datetime

from service.domain.history import History
from service.domain.ports import Change
from service.domain.study import Study, StudyReason
from service.domain.trial import Trial, TrialReason, TrialState

_TRIAL_REASON = {
    StudyReason.BUDGET_SPENT: TrialReason.BUDGET_SPENT,
    StudyReason.SPACE_EXHAUSTED: TrialReason.BUDGET_SPENT,
    StudyReason.TARGET_REACHED: TrialReason.TARGET_REACHED,
    StudyReason.STOP_REQUESTED: TrialReason.STOP_REQUESTED,
    StudyReason.CANCEL_REQUESTED: TrialReason.CANCEL_REQUESTED,
    StudyReason.TOO_MANY_FAILURES: TrialReason.STUDY_FAILED,
    StudyReason.DRIVER_FAILED: TrialReason.STUDY_FAILED,
}

FAILURES_BEFORE_GIVING_UP = 3
FAILURES_IN_A_ROW = 10
_FAULTS = frozenset({TrialReason.TRAINER_ERROR, TrialReason.RETRIES_EXHAUSTED})
"""Ends that say something of the study's surroundings; a diverged or infeasible trial says something of its configuration."""


def end_trial_with(study: Study, trial: Trial, now: datetime) -> Trial:
    """The trial at the end that the study's reason means for it."""
    return trial.ended(_TRIAL_REASON[study.reason or StudyReason.DRIVER_FAILED], now)


def closing_changes(study: Study, history: History, now: datetime) -> list[Change]:
    """The changes that end every trial which has not ended, because `study` is ending."""
    return [Change(trial=end_trial_with(study, trial, now)) for trial in history.in_state(*_NOT_ENDED)]


def hopeless(history: History) -> str | None:
    """Why to give up: some failed, or none fitted, and none has reported; or many in a row failed. None while there is hope."""
    trials = list(history.searched.trials.values())  # a final whose runs all fail takes nothing from what was found
    failed = [trial for trial in trials if trial.reason in _FAULTS]
    if len(failed) >= FAILURES_BEFORE_GIVING_UP and not any(trial.reports for trial in trials):
        return f"{len(failed)} trials failed and none has given a report; the last one said: {_said(failed[-1])}"
    ended = sorted((trial for trial in trials if trial.ended_at), key=lambda trial: (trial.ended_at, trial.number))
    latest = ended[-FAILURES_IN_A_ROW:]
    if len(latest) == FAILURES_IN_A_ROW and all(trial.reason in _FAULTS for trial in latest):
        return f"The last {len(latest)} trials all failed; the last one said: {_said(latest[-1])}"
    if len(latest) == FAILURES_IN_A_ROW and not any(trial.reports for trial in trials):
        advice = "lower the learning rate, the length or the batch size in the space, or take a smaller model"
        return f"No configuration fits: {advice}; the last one said: {_said(latest[-1])}"
    return None


def _said(trial: Trial) -> str:
    lines = (trial.detail or "").strip().splitlines()
    return lines[-1] if lines else "nothing"


_NOT_ENDED = [state for state in TrialState if not state.is_end]
