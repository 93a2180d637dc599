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


def end_trial_with(study: Study, trial: Trial, now: datetime) -> Trial:
    """The trial at the end that the study's reason means for it."""
    return trial.ended(_TRIAL_REASON[study.reason or StudyReason.DRIVER_FAILED], now)


def closing_changes(study: Study, history: History, now: datetime) -> list[Change]:
    """The changes that end every trial which has not ended, because `study` is ending."""
    return [Change(trial=end_trial_with(study, trial, now)) for trial in history.in_state(*_NOT_ENDED)]


def hopeless(history: History) -> str | None:
    """Why there is no point in going on: every trial so far failed before its first report. None while there is."""
    trials = list(history.trials.values())
    failed = [trial for trial in trials if trial.state is TrialState.FAILED]
    if len(failed) < FAILURES_BEFORE_GIVING_UP or any(trial.reports for trial in trials):
        return None
    last = (failed[-1].detail or "").strip().splitlines()
    said = last[-1] if last else "nothing"
    return f"The first {len(failed)} trials all failed before their first report; the last one said: {said}"


_NOT_ENDED = [state for state in TrialState if not state.is_end]
