"""How trials end when their study does."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.closing import FAILURES_BEFORE_GIVING_UP, FAILURES_IN_A_ROW, closing_changes, end_trial_with, hopeless
from service.domain.history import History
from service.domain.study import StudyReason
from service.domain.trial import Trial, TrialReason, TrialState
from tests.builders import NOW, a_study, a_trial

STATES = st.sampled_from(TrialState)
END_OF = {
    StudyReason.BUDGET_SPENT: TrialReason.BUDGET_SPENT,
    StudyReason.SPACE_EXHAUSTED: TrialReason.BUDGET_SPENT,
    StudyReason.TARGET_REACHED: TrialReason.TARGET_REACHED,
    StudyReason.STOP_REQUESTED: TrialReason.STOP_REQUESTED,
    StudyReason.CANCEL_REQUESTED: TrialReason.CANCEL_REQUESTED,
    StudyReason.TOO_MANY_FAILURES: TrialReason.STUDY_FAILED,
    StudyReason.DRIVER_FAILED: TrialReason.STUDY_FAILED,
}


def a_history(*trials: Trial) -> History:
    return History({trial.number: trial for trial in trials})


def failed(number: int, reports: int = 0, detail: str | None = "boom") -> Trial:
    return a_trial(number, state=TrialState.FAILED, reason=TrialReason.TRAINER_ERROR, reports=reports, detail=detail)


def ended(number: int, reason: TrialReason) -> Trial:
    return a_trial(number, state=reason.end, reason=reason, detail="boom")


@pytest.mark.parametrize("reason", StudyReason)
@pytest.mark.parametrize("state", [state for state in TrialState if not state.is_end])
def test_a_trial_ends_as_its_study_does_wherever_it_is(reason: StudyReason, state: TrialState) -> None:
    ended = end_trial_with(a_study().stopping(reason), a_trial(state=state), NOW)
    assert (ended.reason, ended.state, ended.ended_at) == (END_OF[reason], END_OF[reason].end, NOW)


def test_a_study_that_does_not_say_why_has_failed() -> None:
    assert end_trial_with(a_study(), a_trial(), NOW).reason is TrialReason.STUDY_FAILED


@given(states=st.lists(STATES, max_size=10), reason=st.sampled_from(StudyReason))
def test_every_trial_that_has_not_ended_is_ended_and_no_other(states: list[TrialState], reason: StudyReason) -> None:
    history = a_history(*(a_trial(number, state=state) for number, state in enumerate(states)))
    changes = closing_changes(a_study().stopping(reason), history, NOW)
    assert [change.trial.number for change in changes] == [number for number, state in enumerate(states) if not state.is_end]
    assert all(change.trial.state.is_end and change.report is None and change.attempt is None for change in changes)


@pytest.mark.parametrize(
    "trials",
    [
        [],
        [failed(number) for number in range(FAILURES_BEFORE_GIVING_UP - 1)],
        [*(failed(number) for number in range(5)), a_trial(5, state=TrialState.RUNNING, reports=1)],
        [*(failed(number) for number in range(5)), failed(5, reports=1)],
        [a_trial(number, state=TrialState.RUNNING) for number in range(9)],
        [ended(number, TrialReason.OUT_OF_MEMORY) for number in range(9)],
        [ended(number, TrialReason.DIVERGED) for number in range(9)],
        [failed(0), failed(1), *(ended(number, TrialReason.OUT_OF_MEMORY) for number in range(2, 9))],
    ],
)
def test_there_is_hope_while_few_failed_or_any_has_reported(trials: list[Trial]) -> None:
    assert hopeless(a_history(*trials)) is None


def test_there_is_none_when_the_first_trials_failed_without_a_report() -> None:
    trials = [failed(number) for number in range(FAILURES_BEFORE_GIVING_UP)]
    others = [a_trial(3, state=TrialState.RUNNING), ended(4, TrialReason.OUT_OF_MEMORY)]
    said = hopeless(a_history(*trials, *others))
    assert said is not None
    assert f"{FAILURES_BEFORE_GIVING_UP} trials failed" in said


@pytest.mark.parametrize(
    ("detail", "last"),
    [("Traceback\n  line 1\nValueError: no such column\n\n", "ValueError: no such column"), ("one line", "one line"),
     ("", "nothing"), ("  \n ", "nothing"), (None, "nothing")],
)  # fmt: skip
def test_the_last_line_of_the_last_failure_is_told(detail: str | None, last: str) -> None:
    said = hopeless(a_history(failed(0), failed(1), failed(2, detail=detail)))
    assert said is not None
    assert said.endswith(f"said: {last}")


def later(trial: Trial, reason: TrialReason) -> Trial:
    return replace(trial, state=reason.end, reason=reason, ended_at=NOW + timedelta(seconds=trial.number))


def test_many_failures_in_a_row_end_a_study_that_has_reported() -> None:
    good = later(a_trial(0, reports=3), TrialReason.EPOCHS_DONE)
    faults = [later(failed(number), TrialReason.TRAINER_ERROR) for number in range(1, FAILURES_IN_A_ROW + 1)]
    said = hopeless(a_history(good, *faults))
    assert said is not None
    assert said.endswith("the last one said: boom")
    assert hopeless(a_history(good, *faults[1:])) is None


def test_a_trial_that_ends_well_or_by_its_configuration_breaks_the_row() -> None:
    faults = [later(failed(number), TrialReason.TRAINER_ERROR) for number in range(1, FAILURES_IN_A_ROW + 1)]
    for reason in (TrialReason.EPOCHS_DONE, TrialReason.DIVERGED, TrialReason.OUT_OF_MEMORY, TrialReason.RUNG_CUT):
        between = later(a_trial(5, reports=1), reason)
        assert hopeless(a_history(*faults[:4], between, *faults[5:])) is None


@pytest.mark.parametrize("reason", [TrialReason.OUT_OF_MEMORY, TrialReason.DIVERGED])
def test_there_is_none_when_no_configuration_fits(reason: TrialReason) -> None:
    unfit = [later(replace(failed(number), detail="too large"), reason) for number in range(FAILURES_IN_A_ROW)]
    said = hopeless(a_history(*unfit))
    assert said is not None
    assert said.startswith("No configuration fits: lower")
    assert said.endswith("the last one said: too large")
    assert hopeless(a_history(*unfit[1:])) is None
    assert hopeless(a_history(*unfit, a_trial(99, state=TrialState.RUNNING, reports=1))) is None
