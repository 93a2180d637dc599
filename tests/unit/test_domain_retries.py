"""Which failures are tried again, and after how long."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.retries import LONGEST_PAUSE_SECONDS, after_failure, pause_seconds
from service.domain.trial import TrialReason, TrialState
from tests.builders import NOW, a_trial


def test_a_trial_is_tried_again_after_an_error_of_its_trainer() -> None:
    after = after_failure(a_trial(state=TrialState.RUNNING), TrialReason.TRAINER_ERROR, "boom", 2, NOW)
    assert (after.state, after.errors, after.reason, after.not_before) == (
        TrialState.QUEUED, 1, None, NOW + timedelta(seconds=1),
    )  # fmt: skip


@pytest.mark.parametrize("most", [0, 1, 2, 10])
def test_a_trial_fails_after_as_many_retries_as_its_study_allows(most: int) -> None:
    trial, tried = a_trial(state=TrialState.RUNNING), 0
    while not trial.state.is_end:
        trial = after_failure(trial, TrialReason.TRAINER_ERROR, "boom", most, NOW)
        tried += 1
        if not trial.state.is_end:
            trial = trial.started(NOW)
    assert (tried, trial.reason, trial.detail) == (most + 1, TrialReason.TRAINER_ERROR, "boom")


@pytest.mark.parametrize("reason", [TrialReason.DIVERGED, TrialReason.OUT_OF_MEMORY])
def test_what_would_go_wrong_again_is_not_tried_again(reason: TrialReason) -> None:
    after = after_failure(a_trial(state=TrialState.RUNNING), reason, "lower the learning rate", 2, NOW)
    assert (after.state, after.errors) == (reason.end, 0)


@given(errors=st.integers(0, 50))
def test_a_trial_waits_longer_each_time_and_never_long(errors: int) -> None:
    assert pause_seconds(errors) <= pause_seconds(errors + 1) <= LONGEST_PAUSE_SECONDS
