"""What a study does next, whatever its strategy: it ends, stays in its budget, and does not depend on luck or on a crash."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.history import History
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.search import Cut, Done, Promote, Resume, Start, Wait, next_action, simulate
from service.search.memory import key_of
from tests.builders import NOW, a_study, a_trial, as_number

STRATEGIES: list[dict[str, Any]] = [
    {"kind": "grid"},
    {"kind": "random"},
    {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 3}},
    {"kind": "hyperband"},
    {"kind": "hyperband", "sampler": {"kind": "tpe", "startup_trials": 3}},
    {"kind": "hyperband", "mode": "async", "reduction_factor": 2},
]
CONTINUOUS = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"kind": "categorical", "choices": [8, 16, 32]},
}
FINITE = {"batch_size": {"kind": "categorical", "choices": [8, 16, 32]}, "frozen_layers": {"kind": "int", "low": 0, "high": 3}}


def a_search(strategy: dict[str, Any], epochs: int = 4, workers: int = 2, **changes: Any) -> Study:
    trainer = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": epochs}
    space = FINITE if strategy["kind"] == "grid" else CONTINUOUS
    definition = {"trainer": trainer, "space": space, "resources": {"max_concurrent_trials": workers}, **changes}
    study = a_study(strategy=strategy, **{"budget": {} if strategy["kind"] == "grid" else {"trials": 12}, **definition})
    return replace(study, state=StudyState.RUNNING, started_at=NOW)


def accuracy(parameters: Mapping[str, Any], report: int) -> float:
    """Better with every report, and differently good for different parameters."""
    rate = as_number(parameters.get("learning_rate", 1e-3))
    return 1 - abs(rate - 3e-3) * 50 - 0.3 / report + int(parameters["batch_size"]) * 1e-3


def fails_sometimes(trial: Trial, report: int) -> TrialReason | None:
    return TrialReason.DIVERGED if (trial.number * 7 + report) % 5 == 0 else None


@settings(max_examples=60, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    epochs=st.integers(1, 12),
    workers=st.integers(1, 5),
    seed=st.integers(0, 10),
    trials=st.integers(1, 25),
    total=st.one_of(st.none(), st.floats(12, 80)),
    failing=st.booleans(),
)
def test_every_study_ends_within_its_budget_with_no_trial_left_open(  # noqa: PLR0917 - drawn by hypothesis
    strategy: dict[str, Any],
    epochs: int,
    workers: int,
    seed: int,
    trials: int,
    total: float | None,
    failing: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    budget = {"trials": trials if strategy["kind"] != "grid" else max(trials, 12)} | ({} if total is None else {"epochs": total})
    study = a_search(strategy, epochs, workers, budget=budget, seed=seed)
    done = simulate(
        study,
        accuracy,
        workers=workers,
        seconds=lambda p, _: as_number(p["batch_size"]),
        fail=fails_sometimes if failing else None,
    )
    found = done.history.trials
    assert done.reason in {StudyReason.BUDGET_SPENT, StudyReason.SPACE_EXHAUSTED}
    assert list(found) == list(range(len(found)))
    assert len(found) <= budget["trials"]
    assert all(trial.state.is_end for trial in found.values())
    assert total is None or sum(trial.reports for trial in found.values()) <= total
    assert len({key_of(study.definition.search_space, trial.parameters) for trial in found.values()}) == len(found)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_finite_space_is_tried_out_without_a_repetition_and_then_exhausted(strategy: dict[str, Any]) -> None:
    study = a_search(strategy, space=FINITE, budget={} if strategy["kind"] == "grid" else {"trials": 100})
    done = simulate(study, accuracy, workers=2)
    configurations = Counter(tuple(trial.parameters.values()) for trial in done.history.trials.values())
    assert done.reason is StudyReason.SPACE_EXHAUSTED
    assert len(configurations) == 12
    assert set(configurations.values()) == {1}


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
@pytest.mark.parametrize("reports", [0, 1, 2, 5, 9, 14])
def test_a_crash_at_any_report_changes_nothing_that_is_decided_after_it(strategy: dict[str, Any], reports: int) -> None:
    study = a_search(strategy, workers=1)
    whole = simulate(study, accuracy)
    before = simulate(study, accuracy, stop_after_reports=reports)
    after = simulate(study, accuracy, history=before.history)
    assert _decided(after.history) == _decided(whole.history)
    assert after.history.best(study.definition.objective) is not None
    assert after.history.values == whole.history.values


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_crash_with_three_workers_loses_and_doubles_nothing(strategy: dict[str, Any]) -> None:
    study = a_search(strategy, workers=3)
    before = simulate(study, accuracy, workers=3, stop_after_reports=7)
    after = simulate(study, accuracy, workers=3, history=before.history)
    for number, values in before.history.values.items():
        assert after.history.values[number][: len(values)] == values
    assert all(trial.state.is_end for trial in after.history.trials.values())


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_minimising_the_negative_decides_the_same_as_maximising(strategy: dict[str, Any]) -> None:
    loss = {"metric": "validation/loss", "direction": "minimize"}
    up = simulate(a_search(strategy), accuracy, workers=2)
    down = simulate(a_search(strategy, objective=loss), lambda parameters, report: -accuracy(parameters, report), workers=2)
    assert _decided(up.history) == _decided(down.history)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_another_seed_tries_something_else(strategy: dict[str, Any]) -> None:
    one, other = (simulate(a_search(strategy, seed=seed), accuracy) for seed in (1, 2))
    assert [trial.parameters for trial in one.history.trials.values()] != [
        trial.parameters for trial in other.history.trials.values()
    ]


def test_parallel_starts_before_anything_is_known_differ() -> None:
    study, history = a_search(STRATEGIES[2]), History()
    for number in range(6):
        action = next_action(study, history, NOW)
        assert isinstance(action, Start)
        assert action.number == number
        history = history.with_trial(_running(action))
    assert len({trial.parameters["learning_rate"] for trial in history.trials.values()}) == 6


def test_a_queued_trial_goes_on_before_anything_new_starts_the_highest_rung_first() -> None:
    study = a_search({"kind": "hyperband"})
    history = History().with_trial(_trial(0)).with_trial(_trial(1, rung=1)).with_trial(_trial(2, rung=1))
    assert next_action(study, history, NOW) == Resume(1)


def test_once_time_is_up_nothing_starts_any_more() -> None:
    study = a_search({"kind": "random"}, budget={"wall_clock": "1h"})
    queued = History().with_trial(_trial(0))
    late = NOW + timedelta(hours=1)
    assert next_action(study, queued, NOW) == Resume(0)
    assert next_action(study, queued, late) == Done(StudyReason.BUDGET_SPENT)
    assert next_action(study, queued.with_trial(_trial(0).started(NOW)), late) == Wait()


def test_a_trial_that_would_need_more_epochs_than_are_left_does_not_start() -> None:
    study = a_search({"kind": "random"}, epochs=4, budget={"epochs": 7})
    done = simulate(study, accuracy)
    assert [trial.reports for trial in done.history.trials.values()] == [4]
    assert done.reason is StudyReason.BUDGET_SPENT


def test_a_study_that_searches_its_epochs_gives_each_trial_its_own_number_of_reports() -> None:
    space = {**CONTINUOUS, "epochs": {"kind": "int", "low": 1, "high": 5}}
    done = simulate(a_search({"kind": "random"}, space=space), accuracy)
    trials = done.history.trials.values()
    assert {trial.reports for trial in trials} > {1, 5}
    assert all(trial.reports == trial.parameters["epochs"] for trial in trials)


def test_the_target_ends_a_simulated_study_at_the_report_that_reaches_it() -> None:
    study = a_search({"kind": "random"}, epochs=9, budget={"trials": 50, "target": 0.3})
    done = simulate(study, lambda _, report: report / 10, workers=2)
    assert done.reason is StudyReason.TARGET_REACHED
    assert [trial.reports for trial in done.history.trials.values()] == [3, 2]
    assert {trial.state for trial in done.history.trials.values()} == {TrialState.STOPPED}


def test_paused_trials_that_cannot_go_on_are_cut_before_the_study_is_done() -> None:
    study = a_search({"kind": "hyperband", "mode": "async"}, budget={"trials": 1, "epochs": 2})
    paused = replace(_trial(0), state=TrialState.PAUSED, reports=1, until=1, value=0.5, best_value=0.5)
    history = replace(History().with_trial(paused), values={0: (0.5,)})
    action = next_action(study, history, NOW)
    assert action == Cut((0,), TrialReason.RUNG_CUT)
    ended = history.with_trial(paused.ended(TrialReason.RUNG_CUT, NOW))
    assert next_action(study, ended, NOW) == Done(StudyReason.BUDGET_SPENT)


def test_the_same_history_gives_the_same_action_again() -> None:
    study = a_search(STRATEGIES[2])
    history = simulate(study, accuracy, stop_after_reports=25).history
    history = replace(history, trials=dict(sorted(history.trials.items(), reverse=True)))
    first = next_action(study, history, NOW)
    assert isinstance(first, Start | Resume | Promote | Wait)
    assert all(next_action(study, history, NOW) == first for _ in range(3))


def _decided(history: History) -> list[tuple[Any, ...]]:
    """Everything that was decided of each trial."""
    return [
        (number, tuple(trial.parameters.items()), trial.bracket, trial.rung, trial.reports, trial.state, trial.reason)
        for number, trial in sorted(history.trials.items())
    ]


def _running(start: Start) -> Trial:
    return a_trial(start.number, parameters=start.parameters, until=start.until).started(NOW)


def _trial(number: int, rung: int = 0) -> Trial:
    parameters = {"learning_rate": 1e-3 + number * 1e-4, "batch_size": 8}
    return a_trial(number, parameters=parameters, rung=rung, until=4)
