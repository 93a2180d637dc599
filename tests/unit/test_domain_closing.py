"""How trials end when their study does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.closing import closing_changes, end_trial_with
from service.domain.history import History
from service.domain.study import StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from tests.builders import NOW, a_study, a_trial

ENDING = [reason for reason in StudyReason if reason.end is not StudyState.PAUSED]
STATES = st.sampled_from(TrialState)
END_OF = {
    StudyReason.BUDGET_SPENT: TrialReason.BUDGET_SPENT,
    StudyReason.SPACE_EXHAUSTED: TrialReason.BUDGET_SPENT,
    StudyReason.TARGET_REACHED: TrialReason.TARGET_REACHED,
    StudyReason.STOP_REQUESTED: TrialReason.STOP_REQUESTED,
    StudyReason.CANCEL_REQUESTED: TrialReason.CANCEL_REQUESTED,
    StudyReason.NO_IMPROVEMENT: TrialReason.BUDGET_SPENT,
    StudyReason.DRIVER_FAILED: TrialReason.STUDY_FAILED,
}


def a_history(*trials: Trial) -> History:
    return History({trial.number: trial for trial in trials})


@pytest.mark.parametrize("reason", ENDING)
@pytest.mark.parametrize("state", [state for state in TrialState if not state.is_end])
def test_a_trial_ends_as_its_study_does_wherever_it_is(reason: StudyReason, state: TrialState) -> None:
    ended = end_trial_with(a_study().stopping(reason), a_trial(state=state), NOW)
    assert (ended.reason, ended.state, ended.ended_at) == (END_OF[reason], END_OF[reason].end, NOW)


def test_a_study_that_does_not_say_why_has_failed() -> None:
    assert end_trial_with(a_study(), a_trial(), NOW).reason is TrialReason.STUDY_FAILED


@given(states=st.lists(STATES, max_size=10), reason=st.sampled_from(ENDING))
def test_every_trial_that_has_not_ended_is_ended_and_no_other(states: list[TrialState], reason: StudyReason) -> None:
    history = a_history(*(a_trial(number, state=state) for number, state in enumerate(states)))
    changes = closing_changes(a_study().stopping(reason), history, NOW)
    assert [change.trial.number for change in changes] == [number for number, state in enumerate(states) if not state.is_end]
    assert all(change.trial.state.is_end and change.report is None and change.attempt is None for change in changes)
