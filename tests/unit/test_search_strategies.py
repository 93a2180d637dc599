"""The strategies beside hyperband and the models: sequences, evolution, the median rule, what a user asked for, and `auto`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Value
from service.domain.definition import parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.history import History, PriorTrial
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import TrialReason, TrialState
from service.search import Cut, Start, next_action, simulate
from tests.builders import NOW, a_document, a_study, as_number

UNIT = {"dropout": {"kind": "float", "low": 0.0, "high": 0.9}, "weight_decay": {"kind": "float", "low": 0.0, "high": 1.0}}
CHOICES = {"batch_size": {"kind": "categorical", "choices": [8, 16, 32]}}
MINIMIZE = {"metric": "validation/loss", "direction": "minimize"}


def trainer(epochs: int) -> dict[str, Any]:
    return {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": epochs}


def a_search(strategy: dict[str, Any], epochs: int = 1, seed: int = 0, workers: int = 2, **changes: Any) -> Study:
    definition: dict[str, Any] = {
        "trainer": trainer(epochs), "space": UNIT, "objective": MINIMIZE, "budget": {"trials": 20},
        "resources": {"max_concurrent_trials": workers}, "seed": seed, "strategy": strategy, **changes,
    }  # fmt: skip
    return replace(a_study(**definition), state=StudyState.RUNNING, started_at=NOW)


def bowl(parameters: Mapping[str, Value], report: int) -> float:
    return (as_number(parameters["dropout"]) - 0.3) ** 2 + (as_number(parameters["weight_decay"]) - 0.8) ** 2 + 1 / report


def tried(study: Study) -> list[tuple[Value, ...]]:
    done = simulate(study, bowl, workers=2)
    return [tuple(trial.parameters.values()) for _, trial in sorted(done.history.trials.items())]


def test_a_sobol_sequence_fills_the_space_more_evenly_than_chance() -> None:
    def cells(kind: str) -> list[int]:
        counts = []
        for seed in range(8):
            points = tried(a_search({"kind": kind}, seed=seed, budget={"trials": 64}))
            counts.append(len({(int(as_number(x) / 0.9 * 8), int(as_number(y) * 8)) for x, y in points}))
        return counts

    assert min(cells("sobol")) == 64  # each of 64 points in a cell of its own
    assert max(cells("random")) < 50


def test_a_sobol_sequence_ends_where_a_finite_space_does() -> None:
    study = a_search({"kind": "sobol"}, space=CHOICES, budget={"trials": 50})
    done = simulate(study, lambda parameters, _: as_number(parameters["batch_size"]))
    assert sorted(as_number(trial.parameters["batch_size"]) for trial in done.history.trials.values()) == [8, 16, 32]
    assert done.reason is StudyReason.SPACE_EXHAUSTED


def test_an_evolution_finds_much_better_than_chance() -> None:
    def best(strategy: dict[str, Any]) -> float:
        found = []
        for seed in range(6):
            study = a_search(strategy, seed=seed, budget={"trials": 80})
            trial = simulate(study, bowl, workers=2).history.best(study.definition.objective)
            found.append((trial.best_value if trial and trial.best_value is not None else math.inf) - 1)
        return median(found)

    assert best({"kind": "bayesian", "sampler": {"kind": "cmaes"}}) < 0.2 * best({"kind": "random"})


def test_an_evolution_of_a_single_parameter_works_too() -> None:
    study = a_search({"kind": "bayesian", "sampler": {"kind": "cmaes"}}, space={"dropout": UNIT["dropout"]})
    done = simulate(study, lambda parameters, _: as_number(parameters["dropout"]))
    assert len(done.history.trials) == 20


@pytest.mark.parametrize(
    ("space", "place"),
    [
        (CHOICES, "/space/batch_size"),
        ({**UNIT, "momentum": {"kind": "float", "low": 0, "high": 0.9, "when": {"optimizer": "sgd"}},
          "optimizer": {"kind": "categorical", "ordered": True, "choices": ["adamw", "sgd"]}}, "/space/momentum/when"),
    ],
)  # fmt: skip
def test_an_evolution_is_refused_where_values_have_no_order(space: dict[str, Any], place: str) -> None:
    strategy = {"kind": "bayesian", "sampler": {"kind": "cmaes"}}
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(a_document(space=space, strategy=strategy, budget={"trials": 5}))
    assert [violation.pointer for violation in refused.value.violations] == [place]


MEDIAN = {"kind": "median", "sampler": {"kind": "random"}, "grace_reports": 2, "min_trials": 3}


def test_the_median_rule_stops_the_worse_half_and_none_before_its_time() -> None:
    study = a_search(MEDIAN, epochs=9, workers=1, budget={"trials": 30})
    done = simulate(study, bowl)
    ends = [trial.reason for _, trial in sorted(done.history.trials.items())]
    assert ends[:3] == [TrialReason.EPOCHS_DONE] * 3  # nobody to compare with yet
    cut = [trial for trial in done.history.trials.values() if trial.reason is TrialReason.BELOW_MEDIAN]
    assert 5 <= len(cut) <= 25
    assert all(trial.state is TrialState.PRUNED and 2 <= trial.reports < 9 for trial in cut)
    best = done.history.best(study.definition.objective)
    assert best is not None
    assert best.reason is TrialReason.EPOCHS_DONE


def test_the_median_rule_cuts_a_trial_whose_driver_died_before_it_could() -> None:
    study = a_search(MEDIAN, epochs=9, workers=1, budget={"trials": 30})
    whole = simulate(study, bowl)
    number = next(number for number, trial in whole.history.trials.items() if trial.reason is TrialReason.BELOW_MEDIAN)
    trials = {other: trial for other, trial in whole.history.trials.items() if other < number}
    dying = replace(whole.history.trials[number], state=TrialState.QUEUED, reason=None, ended_at=None)
    history = History({**trials, number: dying}, whole.history.values)
    action = next_action(study, history, NOW)
    assert action == Cut((number,), TrialReason.BELOW_MEDIAN)
    assert isinstance(action, Cut)
    assert "Cut by `median` at report" in action.why[0].sentence


def test_what_was_asked_for_comes_first_each_once() -> None:
    initial = [{"dropout": 0.5, "weight_decay": 0.5}, {"dropout": 0.1, "weight_decay": 0.1}]
    study = a_search({"kind": "random"}, initial=initial)
    asked = {"dropout": 0.7, "weight_decay": 0.7}
    first = next_action(study, History(requested=(asked,)), NOW)
    assert isinstance(first, Start)
    assert (first.parameters, first.why and first.why.by) == (asked, "request")
    assert [dict(zip(UNIT, values, strict=True)) for values in tried(study)[:2]] == initial


def test_a_grid_goes_through_all_of_itself_beside_what_was_asked_for() -> None:
    grid = {"dropout": {**UNIT["dropout"], "grid": [0.0, 0.1]}, "weight_decay": {**UNIT["weight_decay"], "grid": [0.0, 0.5]}}
    initial = [{"dropout": 0.6, "weight_decay": 0.6}, {"dropout": 0.1, "weight_decay": 0.5}]
    values = tried(a_search({"kind": "grid"}, space=grid, initial=initial, budget={}))
    assert values[:2] == [(0.6, 0.6), (0.1, 0.5)]
    assert sorted(map(repr, values[1:])) == sorted(map(repr, [(0.0, 0.0), (0.0, 0.5), (0.1, 0.0), (0.1, 0.5)]))


def test_trials_of_an_earlier_study_lead_the_model_from_the_first_trial_on() -> None:
    study = a_search({"kind": "bayesian", "sampler": {"kind": "tpe"}})
    random = np.random.default_rng(0)
    before = [{"dropout": float(x) * 0.9, "weight_decay": float(y)} for x, y in random.random((60, 2))]
    prior = tuple(PriorTrial("old", n, one, (bowl(one, 1),), is_whole=True) for n, one in enumerate(before))
    first = next_action(study, History(prior=prior), NOW)
    assert isinstance(first, Start)
    assert first.why is not None
    assert (first.why.by, first.why.observations) == ("tpe", 60)
    assert bowl(first.parameters, 1) < median(bowl(one, 1) for one in before)


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"epochs": 27, "budget": {"trials": 50}}, "hyperband", "27 reports allow stopping"),
        ({"epochs": 1, "budget": {"trials": 30}}, "bayesian", "small numeric space and few trials suit a Gaussian process"),
        ({"epochs": 1, "budget": {"trials": 300}}, "bayesian", "many trials suit a Parzen estimator"),
        ({"epochs": 1, "budget": {"trials": 30}, "space": {**UNIT, **CHOICES}}, "bayesian", "suit a Parzen estimator"),
        ({"epochs": 27, "budget": {"trials": 3}, "workers": 1}, "bayesian", "too few trials"),
        ({"epochs": 27, "budget": {"trials": 8}}, "hyperband", "too few for a model"),
        ({"epochs": 27, "budget": {"trials": 8}, "space": CHOICES}, "grid", "Every one of the 3 configurations"),
    ],
)
def test_auto_chooses_what_fits_and_says_why(changes: dict[str, Any], kind: str, words: str) -> None:
    plan = a_search({"kind": "auto"}, **changes).definition.plan
    assert plan.strategy.kind == kind
    assert plan.reason is not None
    assert words in plan.reason


def test_auto_needs_a_budget_as_what_it_chooses_does() -> None:
    with pytest.raises(InvalidDefinition, match="would never end"):
        parse_definition(a_document(strategy={"kind": "auto"}, budget={}))


STRATEGIES: Mapping[str, dict[str, Any]] = {
    "auto": {"kind": "auto"},
    "random": {"kind": "random"},
    "sobol": {"kind": "sobol"},
    "tpe": {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 4}},
    "gp": {"kind": "bayesian", "sampler": {"kind": "gp", "startup_trials": 4}},
    "cmaes": {"kind": "bayesian", "sampler": {"kind": "cmaes", "population": 4}},
    "sync": {"kind": "hyperband", "sampler": {"kind": "tpe", "startup_trials": 4}},
    "async": {"kind": "hyperband", "mode": "async", "sampler": {"kind": "tpe", "startup_trials": 4}},
    "median": {"kind": "median", "min_trials": 2, "sampler": {"kind": "tpe", "startup_trials": 4}},
    "nsga2": {"kind": "bayesian", "sampler": {"kind": "nsga2", "population": 4}},
    "pbt": {"kind": "pbt", "population": 4},
}


def outcome(done: Any) -> list[tuple[Any, ...]]:
    """What became of each trial."""
    return [
        (number, trial.parameters, trial.reason, trial.reports, trial.rung, trial.bracket, trial.parent)
        for number, trial in sorted(done.history.trials.items())
    ]


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_same_reports_in_the_same_order_give_the_same_decisions_also_after_a_crash(name: str) -> None:
    # A Gaussian process takes a hundred times as long as all others.
    @settings(max_examples=2 if name == "gp" else 12, deadline=None, database=None)
    @given(seed=st.integers(0, 2**20), reports=st.integers(1, 40))
    def holds(seed: int, reports: int) -> None:
        study = a_search(STRATEGIES[name], epochs=9, seed=seed, budget={"trials": 12} if name != "pbt" else {})
        assert outcome(simulate(study, bowl, workers=2)) == outcome(simulate(study, bowl, workers=2))
        # With one worker a crash changes no order: what follows it is what would have followed.
        half = simulate(study, bowl, workers=1, stop_after_reports=reports)
        rest = simulate(study, bowl, workers=1, history=half.history)
        assert outcome(rest) == outcome(simulate(study, bowl, workers=1))

    holds()


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_trial_says_why_it_was_proposed(name: str) -> None:
    study = a_search(STRATEGIES[name], epochs=9, budget={"trials": 12} if name != "pbt" else {})
    starts = [action for action in simulate(study, bowl, workers=2).actions if isinstance(action, Start)]
    assert len(starts) >= 12
    assert all(action.why is not None and action.why.kind == "proposed" for action in starts)
    assert all(action.why and action.why.sentence.endswith(".") for action in starts)
    assert starts[0].why is not None
    assert starts[0].why.incumbent is None
    assert starts[-1].why is not None
    assert starts[-1].why.incumbent is not None


def test_auto_takes_a_training_of_very_many_reports() -> None:
    plan = a_search({"kind": "auto"}, trainer={**trainer(1), "max_steps": 60_000, "report_every": 1}).definition.plan
    assert plan.strategy.kind == "hyperband"
    assert plan.strategy.min_epochs * 81 <= 60_000


def test_auto_does_not_take_a_grid_of_some_values_for_all_of_the_space() -> None:
    some = {"batch_size": {"kind": "int", "low": 1, "high": 16, "grid": [4, 8]}}
    assert a_search({"kind": "auto"}, space=some).definition.plan.strategy.kind == "bayesian"


def test_auto_fills_the_space_where_most_trials_begin_before_one_ends() -> None:
    plan = a_search({"kind": "auto"}, workers=8, budget={"trials": 12}).definition.plan
    assert plan.strategy.kind == "sobol"


@pytest.mark.parametrize(
    ("strategy", "changes", "place"),
    [
        ({"kind": "random"}, {"budget": {"gpu_hours": 1}}, "/budget"),
        ({"kind": "hyperband", "mode": "async"}, {"budget": {"gpu_hours": 1}}, "/budget"),
        ({"kind": "random"}, {"epochs": 3, "budget": {"epochs": 2}}, "/budget/epochs"),
        ({"kind": "median"}, {"epochs": 3, "budget": {"epochs": 2}}, "/budget/epochs"),
        (
            {"kind": "pbt", "population": 2},
            {"epochs": 3, "space": {**UNIT, "epochs": {"kind": "constant", "value": 5}}, "budget": {}},
            "/space/epochs",
        ),
    ],
)
def test_a_study_that_would_never_end_or_never_begin_is_refused(
    strategy: dict[str, Any], changes: dict[str, Any], place: str
) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        a_search(strategy, **changes)
    assert place in [violation.pointer for violation in refused.value.violations]


def test_hours_of_gpu_alone_do_not_repeat_brackets_for_ever_on_a_cpu() -> None:
    study = a_search({"kind": "hyperband"}, epochs=9, budget={"gpu_hours": 1})
    assert simulate(study, bowl, workers=2).reason is StudyReason.BUDGET_SPENT


def test_a_sobol_sequence_goes_on_where_a_constraint_takes_out_most_of_it() -> None:
    study = a_search({"kind": "sobol"}, constraints=["dropout + weight_decay <= 0.1"], budget={"trials": 120})
    starts = [action for action in simulate(study, bowl, workers=2).actions if isinstance(action, Start)]
    assert [action.why and action.why.by for action in starts] == ["sobol"] * 120


def test_a_space_of_which_hardly_anything_meets_the_constraints_is_searched_to_its_budget() -> None:
    study = a_search({"kind": "random"}, seed=1, constraints=["dropout + weight_decay <= 0.02"], budget={"trials": 6})
    assert len(simulate(study, bowl).history.trials) == 6


def test_a_grid_with_a_point_left_is_not_called_exhausted() -> None:
    grid = {"dropout": {**UNIT["dropout"], "grid": [0.0, 0.1]}}
    study = a_search({"kind": "grid"}, space=grid, initial=[{"dropout": 0.5}], budget={"trials": 2})
    assert simulate(study, lambda parameters, _: as_number(parameters["dropout"])).reason is StudyReason.BUDGET_SPENT
