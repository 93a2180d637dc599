"""The final: after the search, and beside everything that searches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.history import History
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.search import Simulation, Start, next_action, simulate
from service.search.decide import end_of
from service.search.final import seeds
from tests.builders import NOW, a_study, as_number

STRATEGIES: list[dict[str, Any]] = [
    {"kind": "random"},
    {"kind": "sobol"},
    {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 3}},
    {"kind": "hyperband"},
    {"kind": "hyperband", "mode": "async", "sampler": {"kind": "tpe", "startup_trials": 3}},
    {"kind": "median", "sampler": {"kind": "random"}, "min_trials": 2},
]
SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"kind": "categorical", "choices": [8, 16, 32]},
}


def a_search(strategy: dict[str, Any] | None = None, **changes: Any) -> Study:
    definition = {
        "strategy": strategy or {"kind": "random"},
        "space": SPACE,
        "budget": {"trials": 8},
        "final": {"top": 3, "seeds": 2},
    }
    return replace(
        a_study(**{**definition, "resources": {"max_concurrent_trials": 3}, **changes}), state=StudyState.RUNNING, started_at=NOW
    )


def accuracy(parameters: Any, report: int) -> float:
    return 1 - abs(as_number(parameters["learning_rate"]) - 3e-3) * 50 - 0.3 / report


def runs_of(done: Simulation) -> list[Trial]:
    return [trial for trial in done.history.trials.values() if trial.repeats is not None]


def searched(done: Simulation) -> list[tuple[Any, ...]]:
    trials = done.history.searched.trials.values()
    return [(trial.number, dict(trial.parameters), trial.reports, trial.state) for trial in trials]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_the_best_configurations_are_trained_again_whole_after_the_search_as_it_would_have_been(strategy: dict[str, Any]) -> None:
    with_final, without = a_search(strategy), a_search(strategy, final=None)
    done, plain = simulate(with_final, accuracy, workers=3), simulate(without, accuracy, workers=3)
    assert searched(done) == searched(plain), "the final changes nothing of the search"
    assert done.reason is plain.reason
    ranked = sorted(plain.history.trials.values(), key=lambda trial: (-(trial.best_value or 0.0), trial.number))
    best = [trial.number for trial in ranked[:3]]
    runs = runs_of(done)
    assert [run.repeats for run in runs] == [*best, *best], "one seed after the other"
    assert [run.seed for run in runs] == [seed for seed in seeds(with_final.definition) for _ in best]
    assert all((run.state, run.reports, run.until) == (TrialState.COMPLETED, 3, 3) for run in runs)
    assert all(run.parameters == done.history.trials[run.repeats or 0].parameters for run in runs)


@settings(max_examples=40, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    workers=st.integers(1, 4),
    top=st.integers(1, 5),
    count=st.integers(2, 4),
    stop_after=st.integers(0, 40),
)
def test_a_crash_anywhere_loses_and_doubles_no_run(
    strategy: dict[str, Any], workers: int, top: int, count: int, stop_after: int
) -> None:
    study = a_search(strategy, final={"top": top, "seeds": count}, resources={"max_concurrent_trials": workers})
    before = simulate(study, accuracy, workers=workers, stop_after_reports=stop_after)
    after = simulate(study, accuracy, workers=workers, history=before.history)
    pairs = [(run.repeats, run.seed) for run in runs_of(after)]
    assert len(pairs) == len(set(pairs)) == top * count
    assert all(trial.state.is_end for trial in after.history.trials.values())
    for number, values in before.history.values.items():
        assert after.history.values[number][: len(values)] == values


def test_a_search_interrupted_in_its_final_goes_on_with_the_very_next_run() -> None:
    study = a_search(resources={"max_concurrent_trials": 1})
    whole = simulate(study, accuracy)
    before = simulate(study, accuracy, stop_after_reports=8 * 3 + 4)
    after = simulate(study, accuracy, history=before.history)
    assert [(run.number, run.repeats, run.seed) for run in runs_of(after)] == [
        (run.number, run.repeats, run.seed) for run in runs_of(whole)
    ]


def test_the_final_costs_no_trials_and_no_reports_of_the_budget() -> None:
    study = a_search(budget={"trials": 8, "epochs": 24})
    done = simulate(study, accuracy, workers=3)
    spent = done.history.spending(study, NOW)
    assert (spent.trials, spent.epochs, len(runs_of(done))) == (8, 24, 6)


def test_wall_clock_holds_for_the_final_too() -> None:
    study = a_search(budget={"trials": 8, "wall_clock": "31s"}, resources={"max_concurrent_trials": 1})
    done = simulate(study, accuracy)
    assert (done.reason, done.seconds) == (StudyReason.BUDGET_SPENT, 31)
    assert [(run.state, run.reason) for run in runs_of(done)] == [
        (TrialState.COMPLETED, TrialReason.EPOCHS_DONE),
        (TrialState.COMPLETED, TrialReason.EPOCHS_DONE),
        (TrialState.STOPPED, TrialReason.BUDGET_SPENT),
    ]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_a_target_ends_the_search_and_not_the_final(strategy: dict[str, Any]) -> None:
    study = a_search(strategy, budget={"trials": 30, "target": 0.7})
    done = simulate(study, accuracy, workers=3)
    trials = done.history.searched.trials.values()
    assert done.reason is StudyReason.TARGET_REACHED
    assert any((trial.best_value or 0) >= 0.7 for trial in trials)
    assert len(trials) < 30
    assert {trial.state for trial in trials} <= {
        TrialState.COMPLETED, TrialState.PRUNED, TrialState.STOPPED,
    }  # fmt: skip
    assert [run.state for run in runs_of(done)] == [TrialState.COMPLETED] * len(runs_of(done))
    assert runs_of(done)


def test_a_live_trial_ends_with_the_report_after_a_target_was_reached_and_says_why() -> None:
    study = a_search(budget={"trials": 30, "target": 0.7})
    done = simulate(study, accuracy, workers=3)
    best = done.history.best(study.definition.objective)
    assert best is not None
    live = replace(best, number=99, state=TrialState.RUNNING, best_value=0.1, ended_at=None, reason=None)
    ended = end_of(study, done.history.with_trial(live), live)
    assert ended is not None
    assert ended[0] is TrialReason.TARGET_REACHED
    assert ended[1].sentence.startswith(f"Ended, as trial {best.number} reached the target with 0.")


def test_the_final_waits_for_the_last_trial_of_the_search() -> None:
    study = a_search(budget={"trials": 2}, resources={"max_concurrent_trials": 9})
    done = simulate(study, accuracy, workers=9)
    last = max(attempt.ended for attempt in done.attempts if done.history.trials[attempt.number].repeats is None)
    assert min(attempt.began for attempt in done.attempts if done.history.trials[attempt.number].repeats is not None) >= last


def test_fewer_trials_than_finalists_are_all_trained_again() -> None:
    assert len(runs_of(simulate(a_search(budget={"trials": 2}), accuracy, workers=3))) == 2 * 2


def test_a_trial_that_failed_is_no_finalist_however_good() -> None:
    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.DIVERGED if report == 3 and trial.repeats is None and trial.number % 2 else None

    done = simulate(a_search(), accuracy, workers=3, fail=fail)
    assert {(run.repeats or 0) % 2 for run in runs_of(done)} == {0}


def test_a_run_is_never_stopped_for_being_worse_than_the_searchs_trials() -> None:
    study = a_search({"kind": "median", "sampler": {"kind": "random"}, "min_trials": 2})
    done = simulate(study, accuracy, workers=1)
    bad = replace(runs_of(done)[0], state=TrialState.RUNNING, reports=1, best_value=-9.0, value=-9.0)
    assert end_of(study, done.history, bad) is None


def test_a_failed_run_is_not_tried_again() -> None:
    def fail(trial: Trial, _: int) -> TrialReason | None:
        return TrialReason.DIVERGED if trial.repeats is not None else None

    done = simulate(a_search(), accuracy, workers=3, fail=fail)
    assert [run.state for run in runs_of(done)] == [TrialState.FAILED] * 6
    assert done.reason is StudyReason.BUDGET_SPENT


@pytest.mark.parametrize(
    "change", [lambda one: one, lambda one: replace(one, definition=one.definition.model_copy(update={"seed": 5}))]
)
def test_the_seeds_are_those_of_the_study_and_not_the_one_it_searched_with(change: Callable[[Study], Study]) -> None:
    study = change(a_search(final={"top": 1, "seeds": 20}))
    found = seeds(study.definition)
    assert len(set(found)) == 20
    assert study.definition.trainer.seed not in found
    assert all(study.definition.configured({}, seed).seed == seed for seed in found), "each is one that the trainer takes"
    assert seeds(a_search(final={"top": 1, "seeds": 20}, seed=6).definition) != found


def test_rows_are_split_as_in_the_search() -> None:
    definition = a_search().definition
    again = definition.configured({"learning_rate": 1e-3}, 7)
    assert (again.seed, again.data) == (7, definition.trainer.data)


def test_why_a_run_began_is_told() -> None:
    study = a_search(budget={"trials": 1})
    done = simulate(a_search(budget={"trials": 1}, final=None), accuracy)
    action = next_action(study, done.history, NOW)
    assert isinstance(action, Start)
    assert action.why is not None
    assert action.why.sentence == "A run under another seed of trial 0."


def test_a_history_without_a_final_is_its_own_search() -> None:
    history = simulate(a_search(final=None), accuracy).history
    assert history.searched is history
    assert History().searched == History()
