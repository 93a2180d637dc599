"""What decisions are made from: trials, and their objective at each report."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.budget import Spending
from service.domain.definition import Objective
from service.domain.history import History
from service.domain.trial import Trial, TrialState
from tests.builders import NOW, a_study, a_trial

MAXIMIZE = Objective(metric="validation/accuracy", direction="maximize")
MINIMIZE = Objective(metric="validation/loss", direction="minimize")
STATES = st.sampled_from(TrialState)


def a_history(*trials: Trial) -> History:
    history = History()
    for trial in trials:
        history = history.with_trial(trial)
    return history


def test_a_history_does_not_change_but_gives_a_new_one() -> None:
    before = a_history(a_trial(0))
    after = before.with_trial(a_trial(1)).with_value(0, 0.5)
    assert (list(before.trials), before.values) == ([0], {})
    assert (list(after.trials), after.values) == ([0, 1], {0: (0.5,)})


def test_a_changed_trial_takes_the_place_of_the_one_before() -> None:
    running = a_trial(0).started(NOW)
    assert a_history(a_trial(0), a_trial(1), running).trials == {0: running, 1: a_trial(1)}


def test_the_values_of_a_trial_are_in_the_order_of_its_reports() -> None:
    history = History().with_value(0, 0.1).with_value(1, 0.9).with_value(0, 0.2).with_value(0, 0.1)
    assert history.values == {0: (0.1, 0.2, 0.1), 1: (0.9,)}


def test_trials_in_a_state_come_by_number() -> None:
    states = {3: TrialState.RUNNING, 1: TrialState.QUEUED, 2: TrialState.RUNNING, 0: TrialState.FAILED}
    history = a_history(*(a_trial(number, state=state) for number, state in states.items()))
    assert [trial.number for trial in history.in_state(TrialState.RUNNING)] == [2, 3]
    assert [trial.number for trial in history.in_state(TrialState.RUNNING, TrialState.QUEUED)] == [1, 2, 3]
    assert history.in_state() == history.in_state(TrialState.PRUNED) == []


@pytest.mark.parametrize(
    ("objective", "values", "best"),
    [
        (MAXIMIZE, [], None),
        (MAXIMIZE, [None, None], None),
        (MAXIMIZE, [0.1, 0.7, 0.3], 1),
        (MAXIMIZE, [0.7, None, 0.7], 0),
        (MAXIMIZE, [None, -5.0], 1),
        (MINIMIZE, [0.5, 0.0, 0.0, None], 1),
        (MINIMIZE, [0.5, -0.1, float("inf")], 1),
    ],
)
def test_the_best_trial_is_the_earlier_of_equals(objective: Objective, values: list[float | None], best: int | None) -> None:
    trials = [a_trial(number, best_value=value) for number, value in enumerate(values)]
    for history in (a_history(*trials), a_history(*reversed(trials))):
        found = history.best(objective)
        assert (found and found.number) == best


@pytest.mark.parametrize(
    ("state", "until", "reports", "epochs"),
    [
        (TrialState.QUEUED, 3, 0, 3),
        (TrialState.RUNNING, 3, 1, 3),
        (TrialState.RUNNING, 3, 3, 3),
        (TrialState.RUNNING, 1, 2, 2),
        (TrialState.PAUSED, 3, 1, 1),
        (TrialState.COMPLETED, 3, 3, 3),
        (TrialState.FAILED, 3, 0, 0),
    ],
)
def test_a_live_attempt_has_spent_the_epochs_it_has_still_to_run(
    state: TrialState, until: int, reports: int, epochs: int
) -> None:
    history = a_history(a_trial(0, state=state, until=until, reports=reports))
    assert history.spending(a_study(), NOW).epochs == epochs


def test_spending_adds_up_over_all_trials() -> None:
    study = a_study(resources={"gpus_per_trial": 1}).running(NOW)
    history = a_history(
        a_trial(0, state=TrialState.RUNNING, reports=1, until=3, gpu_seconds=4.5),
        a_trial(1, state=TrialState.PRUNED, reports=2, until=3, gpu_seconds=0.5),
    )
    assert history.spending(study, NOW + timedelta(minutes=2)) == Spending(2, 5, 120.0, 5.0)
    assert history.spending(a_study(), NOW).gpu_seconds == 0, "of a study on processors there are none"


def test_the_clock_of_a_study_starts_with_its_first_run() -> None:
    assert History().spending(a_study(), NOW + timedelta(days=1)) == Spending(0, 0, 0.0, 0.0)
    resumed = replace(a_study().running(NOW), version=5)
    assert History().spending(resumed, NOW + timedelta(days=1)).wall_clock_seconds == 86400


@given(drawn=st.lists(st.tuples(STATES, st.integers(0, 9), st.integers(1, 9)), max_size=10))
def test_nothing_is_spent_twice_when_an_attempt_goes_on(drawn: list[tuple[TrialState, int, int]]) -> None:
    trials = [
        a_trial(n, state=state, reports=min(reports, until), until=until) for n, (state, reports, until) in enumerate(drawn)
    ]
    spent = a_history(*trials).spending(a_study(), NOW).epochs
    for trial in trials:
        if trial.state is TrialState.RUNNING and trial.reports < trial.until:
            further = a_history(*trials).with_trial(replace(trial, reports=trial.reports + 1))
            assert further.spending(a_study(), NOW).epochs == spent


_CHANGES = st.lists(
    st.tuples(st.integers(0, 5), STATES, st.none() | st.floats(0, 1), st.integers(0, 4), st.booleans()), max_size=20
)


@given(changes=_CHANGES)
def test_what_a_history_has_worked_out_before_a_change_is_the_same_as_worked_out_after_it(
    changes: list[tuple[int, TrialState, float | None, int, bool]],
) -> None:
    history = History()
    for number, state, value, gave, reports in changes:
        for objective in (MAXIMIZE, MINIMIZE):
            history.best(objective)
        _ = history.reports_given, history.greatest
        repeats = 0 if number > 3 else None
        trial = a_trial(number, state=state, best_value=value, repeats=repeats, reports=gave)
        history = history.with_trial(trial)
        if reports:
            history = history.with_value(number, 0.5)
        anew = replace(history)
        assert [history.in_state(each) for each in TrialState] == [anew.in_state(each) for each in TrialState]
        assert [history.best(each) for each in (MAXIMIZE, MINIMIZE)] == [anew.best(each) for each in (MAXIMIZE, MINIMIZE)]
        assert history.searched == anew.searched
        assert (history.reports_given, history.greatest) == (anew.reports_given, anew.greatest)


def test_a_value_that_is_no_number_is_never_the_best() -> None:
    assert a_history(a_trial(0, best_value=math.nan)).best(MAXIMIZE) is None
    assert a_history(a_trial(0, best_value=math.nan), a_trial(1, best_value=0.1)).best(MAXIMIZE) == a_trial(1, best_value=0.1)
