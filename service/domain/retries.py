"""What becomes of a trial whose attempt failed: tried again after a pause, or at its end. Pure."""

from datetime import datetime, timedelta

from service.domain.trial import MAX_RETRIES, Trial, TrialReason

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0


def after_failure(trial: Trial, reason: TrialReason, detail: str | None, max_retries: int, now: datetime) -> Trial:
    """The trial queued again, from its last checkpoint, or ended for this reason.

    Only an error of the trainer may be another one's fault: a disk's, a network's, a GPU's. What diverged or did not fit would do
    so again. Lost attempts are counted apart, in `Trial.lost`.
    """
    if reason is not TrialReason.TRAINER_ERROR or trial.errors >= max_retries:
        return trial.ended(reason, now, detail)
    return trial.failed_attempt(now + timedelta(seconds=pause_seconds(trial.errors)))


def after_storage_away(trial: Trial, now: datetime) -> Trial:
    """The trial queued again, from what the object storage has of it, after a pause."""
    return trial.held_up(now + timedelta(seconds=pause_seconds(trial.retries)))


def keeps_being_held_up(trial: Trial) -> bool:
    """Whether that has happened so often without a report that somebody should look at the storage."""
    return trial.retries >= MAX_RETRIES


def pause_seconds(errors: int) -> float:
    """How long a trial waits that has failed and been tried again so often: twice as long each time, up to a minute."""
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**errors)
