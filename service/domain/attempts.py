"""What the attempts of a study's trials came to, as far as it says something of what surrounds them. Pure."""

from collections.abc import Mapping, Sequence

from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason

Attempts = Mapping[int, Sequence[Attempt]]
"""The attempts of each trial, in order."""

DRIVER_GONE = "the study's driver ended"
"""What is said of an attempt that was lost with its driver, and through no fault of its worker."""

OF_CONFIGURATION = frozenset({TrialReason.DIVERGED, TrialReason.OUT_OF_MEMORY, TrialReason.OUTCOME_BROKEN})
"""Ends that say something of a trial's configuration, and nothing of its surroundings."""


def with_attempt(attempts: Attempts, trial: int, attempt: Attempt) -> Attempts:
    """These attempts with a new or changed one of that trial."""
    others = [one for one in attempts.get(trial, ()) if one.number != attempt.number]
    return {**attempts, trial: sorted([*others, attempt], key=lambda one: one.number)}


def is_fault(trial: Trial, attempt: Attempt) -> bool:
    """Whether the attempt failed for no reason of its configuration, as all that are tried again did."""
    if attempt.outcome is not AttemptOutcome.FAILED:
        return False
    return attempt.number < trial.attempts or trial.reason not in OF_CONFIGURATION
