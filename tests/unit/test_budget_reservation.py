"""Budgets hold: nothing starts that they do not pay, and time is not exceeded by more than a report."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.budget import Spending, may_begin, may_train, time_is_up
from service.domain.errors import InvalidDefinition
from service.domain.history import History
from service.domain.study import Study, StudyReason
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialState
from service.search import Done, Resume, Start, Wait, next_action, simulate
from service.search.draws import random_of
from service.search.simulate import Simulation
from tests.builders import NOW, a_definition, a_study, a_trial
from tests.unit.test_search_decide import STRATEGIES, a_search, accuracy

RATE = {"learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}}
TIMED: list[dict[str, Any]] = [
    *(one for one in STRATEGIES if "sampler" not in one),
    {"kind": "median"},
    {"kind": "pbt", "population": 4, "interval": 1},
]


def a_gpu_search(strategy: dict[str, Any], budget: dict[str, Any], workers: int = 2, **changes: Any) -> Study:
    changes = {"space": RATE, **changes} if strategy["kind"] == "pbt" else changes
    resources = {"gpus_per_trial": 1, "max_concurrent_trials": workers}
    return a_search(strategy, budget=budget, resources=resources, workers=workers, **changes)


def gpu_seconds(done: Simulation) -> float:
    return sum(trial.gpu_seconds for trial in done.history.trials.values())


@settings(max_examples=80, deadline=None)
@given(
    strategy=st.sampled_from(TIMED),
    epochs=st.integers(2, 9),
    workers=st.integers(1, 6),
    each=st.floats(3, 12),
    spread=st.floats(0, 0.6),
    seed=st.integers(0, 1000),
    by_cost=st.booleans(),
)
def test_gpu_time_and_cost_are_exceeded_by_one_report_at_most_whatever_is_lost(  # noqa: PLR0917 - drawn by hypothesis
    strategy: dict[str, Any],
    epochs: int,
    workers: int,
    each: float,
    spread: float,
    seed: int,
    by_cost: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    limit, luck, times = workers * each, random_of(seed, 0, "times"), list[float]()
    budget = {"cost": {"limit": limit / 1800, "per_gpu_hour": 2.0}} if by_cost else {"gpu_hours": limit / 3600}

    def seconds(_: Any, __: int) -> float:
        times.append(luck.lognormvariate(0, spread))
        return times[-1]

    def value(parameters: Any, report: int) -> float:
        return accuracy({"batch_size": 8, **parameters}, report)

    study = a_gpu_search(strategy, budget, workers, epochs=epochs, seed=seed)
    done = simulate(study, value, workers=workers, seconds=seconds, lose=lambda _, __: luck.random() < 0.05)
    assert gpu_seconds(done) <= limit + max(times)
    assert all(trial.state.is_end for trial in done.history.trials.values())


def test_lost_attempts_cost_gpu_time_too() -> None:
    study = a_gpu_search({"kind": "random"}, {"trials": 1}, epochs=2)
    losses = iter([True, True, False, False])
    done = simulate(study, accuracy, seconds=10, lose=lambda _, __: next(losses))
    trial = done.history.trials[0]
    assert (trial.seconds, trial.lost_seconds, trial.gpu_seconds) == (20, 20, 40)


def test_several_trials_start_before_anything_says_how_long_a_report_takes() -> None:
    study = a_gpu_search({"kind": "random"}, {"gpu_hours": 1}, workers=3)
    history = History()
    for _ in range(3):
        action = next_action(study, history, NOW)
        assert isinstance(action, Start)
        history = history.with_trial(action.trial(study.id, NOW).started(NOW))


def running(number: int, *seconds: float, until: int = 4, **changes: Any) -> tuple[Trial, tuple[float, ...]]:
    """A trial with reports that took so long, and these."""
    used = {"reports": len(seconds), "seconds": sum(seconds), "gpu_seconds": sum(seconds)}
    return a_trial(number, until=until, **{"state": TrialState.RUNNING, **used, **changes}), seconds


def a_history(*trials: tuple[Trial, tuple[float, ...]]) -> History:
    times = {trial.number: seconds for trial, seconds in trials if seconds}
    return History({trial.number: trial for trial, _ in trials}, seconds=times)


def test_a_trial_only_starts_when_all_its_reports_fit_beside_what_runs() -> None:
    history = a_history(running(0, 10.0))  # used 10 s, and needs 30 more
    assert isinstance(next_action(a_gpu_search({"kind": "random"}, {"gpu_hours": 80 / 3600}), history, NOW), Start)
    assert next_action(a_gpu_search({"kind": "random"}, {"gpu_hours": 79 / 3600}), history, NOW) == Wait()


def test_a_queued_trial_waits_while_what_is_left_pays_no_more_than_the_reports_under_way() -> None:
    queued = a_trial(1, until=4), ()
    history = a_history(running(0, 10.0), queued)
    assert next_action(a_gpu_search({"kind": "random"}, {"gpu_hours": 30 / 3600}), history, NOW) == Resume(1)
    assert next_action(a_gpu_search({"kind": "random"}, {"gpu_hours": 29 / 3600}), history, NOW) == Wait()


def test_a_study_ends_when_nothing_runs_and_not_one_report_is_left() -> None:
    ended = running(0, 10.0, 10.0, state=TrialState.COMPLETED)
    study = a_gpu_search({"kind": "random"}, {"gpu_hours": 29 / 3600})
    assert next_action(study, a_history(ended), NOW) == Done(StudyReason.BUDGET_SPENT)


def test_running_trials_end_once_the_next_report_of_all_of_them_does_not_fit() -> None:
    history = a_history(running(0, 10.0, 12.0), running(1, 9.0))
    for limit, is_up in ((31 + 24, False), (31 + 23.9, True)):
        study = a_gpu_search({"kind": "random"}, {"gpu_hours": limit / 3600})
        assert time_is_up(study.definition.budget, history.spending(study, NOW)) is is_up


def test_a_trial_with_three_reports_is_as_slow_as_its_own_slowest_and_no_slower() -> None:
    history = a_history(running(0, 1.0, 2.0, 1.0), running(1, 50.0, state=TrialState.COMPLETED))
    study = a_gpu_search({"kind": "random"}, {"gpu_hours": 1})
    assert history.spending(study, NOW).next_gpu_seconds == 2.0


def test_a_trial_at_the_end_of_its_attempt_has_no_next_report() -> None:
    history = a_history(running(0, 1.0, 1.0, until=2))
    spent = history.spending(a_gpu_search({"kind": "random"}, {"gpu_hours": 1}), NOW)
    assert (spent.next_gpu_seconds, spent.reserved_gpu_seconds) == (0.0, 0.0)


def test_what_live_trials_have_still_to_use_goes_by_their_own_speed() -> None:
    history = a_history(running(0, 10.0), running(1, 2.0, 2.0), (a_trial(2, until=4), ()))
    spent = history.spending(a_gpu_search({"kind": "random"}, {"gpu_hours": 1}), NOW)
    assert spent.reserved_gpu_seconds == pytest.approx(3 * 10 + 2 * 2 + 4 * 14 / 3)


def test_nothing_starts_when_what_is_left_of_the_wall_clock_pays_no_report() -> None:
    study = a_search({"kind": "random"}, budget={"wall_clock": "60s"})
    history = a_history(running(0, 10.0, state=TrialState.COMPLETED))
    assert isinstance(next_action(study, history, NOW + timedelta(seconds=50)), Start)
    assert next_action(study, history, NOW + timedelta(seconds=51)) == Done(StudyReason.BUDGET_SPENT)


def test_running_trials_go_on_to_the_end_of_the_wall_clock() -> None:
    study = a_search({"kind": "random"}, budget={"wall_clock": "60s"})
    history = a_history(running(0, 10.0))
    assert next_action(study, history, NOW + timedelta(seconds=55)) == Wait()
    assert not time_is_up(study.definition.budget, history.spending(study, NOW + timedelta(seconds=59)))


def test_the_lower_of_hours_and_cost_is_the_limit() -> None:
    budget = a_definition(
        budget={"gpu_hours": 4, "cost": {"limit": 5, "per_gpu_hour": 2.5}}, resources={"gpus_per_trial": 1}
    ).budget
    assert budget.gpu_seconds == 2 * 3600
    assert budget.cost_of(3600) == 2.5
    assert may_begin(budget, Spending(0, 0, 0, 7000))
    assert not may_train(budget, Spending(0, 0, 0, 7200), 1)


@pytest.mark.parametrize("changes", [{"objective": "one"}, {"objectives": "several"}])
def test_a_limit_that_can_mean_nothing_is_refused(changes: dict[str, Any]) -> None:
    several = [
        {"metric": "validation/accuracy", "direction": "maximize"}, {"metric": "validation/loss", "direction": "minimize"},
    ]  # fmt: skip
    if "objectives" in changes:
        budget, place, rest = {"trials": 3, "no_improvement": 2}, "/budget/no_improvement", {"objectives": several}
    else:
        budget, place, rest = {"trials": 3, "cost": {"limit": 1, "per_gpu_hour": 1}}, "/budget/cost", {}  # type: ignore[dict-item]
    with pytest.raises(InvalidDefinition) as refused:
        a_definition(budget=budget, **rest)
    assert [violation.pointer for violation in refused.value.violations] == [place]


def an_attempt(seconds: float, outcome: AttemptOutcome, first: int = 0) -> Attempt:
    return Attempt(2, first, 4, NOW, NOW + timedelta(seconds=seconds), outcome)


@pytest.mark.parametrize(
    ("outcome", "first", "lost"),
    [
        (AttemptOutcome.LOST, 0, 70), (AttemptOutcome.FAILED, 0, 70), (AttemptOutcome.LOST, 1, 80), (AttemptOutcome.LOST, 2, 100),
        (AttemptOutcome.DONE, 0, 0), (AttemptOutcome.PREEMPTED, 0, 0),
    ],
)  # fmt: skip
def test_a_lost_or_failed_attempt_costs_what_it_took_beside_its_own_reports(
    outcome: AttemptOutcome, first: int, lost: float
) -> None:
    trial, times = running(0, 10.0, 20.0)
    study = replace(a_study(), definition=a_definition(resources={"gpus_per_trial": 2}))
    charged = a_history((trial, times)).charged(study, trial, an_attempt(100, outcome, first))
    assert (charged.lost_seconds, charged.gpu_seconds) == (lost, 30 + 2 * lost)


def test_an_attempt_that_nobody_saw_ending_costs_a_report_at_most() -> None:
    trial, times = running(0, 10.0, 20.0)
    history = a_history((trial, times))
    lost = an_attempt(5000, AttemptOutcome.LOST)
    assert history.charged(a_study(), trial, lost, history.longest_seconds).lost_seconds == 20.0
