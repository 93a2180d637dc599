"""Population-based training: who ends, whom the copies are of, and what becomes of their parameters."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import CategoricalParameter, FloatParameter, Space, Value, identity
from service.domain.definition import parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.history import History
from service.domain.lineage import members_of
from service.domain.strategy import PbtStrategy
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.search import Cut, Promote, Simulation, Start, next_action, simulate
from service.search.draws import random_of
from service.search.perturb import perturbed
from tests.builders import NOW, a_document, a_study, as_number

SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-6, "high": 1.0, "log": True},
    "label_smoothing": {"kind": "float", "low": 0.0, "high": 0.3, "step": 0.05},
    "class_weights": {"kind": "categorical", "choices": ["none", "balanced"]},
}


def a_population(epochs: int = 6, workers: int = 3, seed: int = 0, **changes: Any) -> Study:
    strategy = {"kind": "pbt", **changes.pop("strategy", {})}
    study = a_study(
        trainer={"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": epochs},
        strategy=strategy,
        resources={"max_concurrent_trials": workers},
        seed=seed,
        **{"space": SPACE, "budget": {}, **changes},
    )
    return replace(study, state=StudyState.RUNNING, started_at=NOW)


def quality(parameters: Mapping[str, Value], report: int) -> float:
    return -abs(math.log10(as_number(parameters["learning_rate"])) + 3) - 1 / report


def in_slots(found: Simulation) -> list[list[Trial]]:
    return [list(trials) for _, trials in sorted(members_of(found.history.trials.values()).items())]


def violations(**changes: Any) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(a_document(**{"strategy": {"kind": "pbt"}, "budget": {}, **changes}))
    return {violation.pointer: violation.detail for violation in refused.value.violations}


@settings(deadline=None, max_examples=40)
@given(
    population=st.integers(2, 12),
    interval=st.integers(1, 3),
    quantile=st.floats(0.05, 0.5),
    workers=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
def test_every_member_is_trained_to_its_end_by_one_trial_after_the_other(
    population: int, interval: int, quantile: float, workers: int, seed: int
) -> None:
    study = a_population(
        epochs=7, workers=workers, seed=seed, strategy={"population": population, "interval": interval, "quantile": quantile}
    )
    found = simulate(study, quality, workers=workers)
    assert found.reason is StudyReason.BUDGET_SPENT
    assert len(in_slots(found)) == population
    for trials in in_slots(found):
        assert [trial.parent_report for trial in trials] == [0, *(trial.reports for trial in trials[:-1])], "nothing twice"
        assert (trials[-1].reports, trials[-1].reason) == (7, TrialReason.EPOCHS_DONE)
        assert {trial.reason for trial in trials[:-1]} <= {TrialReason.EXPLOITED}
    assert found.history.spending(study, NOW).epochs == population * 7


def test_at_each_comparison_the_worst_end_and_copies_of_the_best_take_their_places() -> None:
    study = a_population(strategy={"population": 8, "quantile": 0.25})
    found = simulate(study, quality, workers=8)
    trials = found.history.trials
    for generation in range(1, 6):
        there = [trial for trial in trials.values() if trial.parent_report < generation <= trial.reports]
        ranked = sorted(there, key=lambda trial: (-found.history.values[trial.number][generation - 1], trial.number))
        ended = {trial.number for trial in there if trial.reason is TrialReason.EXPLOITED and trial.reports == generation}
        assert len(there) == 8
        assert ended == {trial.number for trial in ranked[-2:]}
        copies = [trial for trial in trials.values() if trial.parent_report == generation]
        assert {trial.bracket for trial in copies} == {trials[number].bracket for number in ended}
        assert {trial.parent for trial in copies} <= {trial.number for trial in ranked[:2]}


def test_what_counts_is_the_value_at_the_comparison_and_not_a_better_one_before() -> None:
    study = a_population(epochs=3, strategy={"population": 2, "interval": 2})
    falling = iter([0.9, 0.1])  # the first member's reports 1 and 2

    def objective(parameters: Mapping[str, Value], report: int) -> float:
        return next(falling, 0.5) if parameters == first else 0.2 * report

    start = next_action(study, History(), NOW)
    assert isinstance(start, Start)
    first = start.parameters
    found = simulate(study, objective, workers=1)
    assert found.history.trials[0].reason is TrialReason.EXPLOITED
    assert found.history.trials[2].parent == 1


def test_a_member_that_breaks_an_outcome_comes_behind_those_that_keep_it() -> None:
    study = a_population(epochs=2, workers=1, strategy={"population": 2}, outcomes=["validation/loss <= 1.0"])
    start = next_action(study, History(), NOW)
    assert isinstance(start, Start)
    first = start.parameters
    found = simulate(
        study,
        lambda parameters, _: 0.9 if parameters == first else 0.1,
        workers=1,
        measure=lambda parameters, _: {"validation/loss": 2.0 if parameters == first else 0.5},
    )
    assert found.history.trials[0].reason is TrialReason.EXPLOITED
    assert found.history.trials[2].parent == 1


def test_copies_begin_before_those_they_are_of_go_on() -> None:
    found = simulate(a_population(strategy={"population": 6, "quantile": 0.34}), quality, workers=2)
    gone_on: set[tuple[int, int]] = set()
    for action in found.actions:
        if isinstance(action, Promote):
            gone_on.add((action.number, action.rung))
        if isinstance(action, Start) and action.parent is not None:
            assert (action.parent, action.rung) not in gone_on


def test_a_member_in_the_middle_goes_on_before_the_last_has_come() -> None:
    study = a_population(workers=4, strategy={"population": 4, "quantile": 0.25})
    slow = simulate(study, quality, workers=4, stop_after_reports=3)  # three are there, the fourth trains on
    action = next(action for action in slow.actions if isinstance(action, Promote))
    values = sorted(history[0] for history in slow.history.values.values())
    assert slow.history.values[action.number][0] == values[1], "one of the three is better for sure, and one worse"
    assert not any(isinstance(action, Cut) for action in slow.actions)


def test_the_best_and_the_worst_wait_for_the_last() -> None:
    study = a_population(workers=2, strategy={"population": 2})
    found = simulate(study, quality, workers=2, stop_after_reports=1)
    assert [trial.state for trial in found.history.trials.values()] == [TrialState.PAUSED, TrialState.RUNNING]


@pytest.mark.parametrize("workers", [1, 3, 8])
def test_a_replay_in_the_middle_decides_the_same(workers: int) -> None:
    study = a_population(workers=workers, strategy={"population": 5})

    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.DIVERGED if report == trial.bracket and trial.parent is None else None

    whole = simulate(study, quality, workers=workers, fail=fail)
    for reports in range(1, 30):
        before = simulate(study, quality, workers=workers, fail=fail, stop_after_reports=reports)
        after = simulate(study, quality, workers=workers, fail=fail, history=before.history)
        assert lineage(after) == lineage(whole)


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_how_many_train_at_once_and_who_is_slow_changes_no_decision(workers: int) -> None:
    one = simulate(a_population(workers=1), quality)
    many = simulate(
        a_population(workers=workers), quality, workers=workers, seconds=lambda _, report: 1 + (workers * 37 * report) % 11
    )
    assert lineage(one) == lineage(many)


def lineage(found: Simulation) -> list[list[tuple[Any, ...]]]:
    """Without the trials' numbers, which depend on who was faster."""
    numbers = found.history.trials
    return [
        [
            (trial.parent_report, trial.reports, dict(trial.parameters), trial.parent and numbers[trial.parent].bracket)
            for trial in trials
        ]
        for trials in in_slots(found)
    ]


def test_another_seed_searches_elsewhere() -> None:
    one, other = (simulate(a_population(seed=seed), quality, workers=3) for seed in (1, 2))
    assert lineage(one) != lineage(other)


def test_a_member_that_fails_is_replaced_and_holds_nobody_up() -> None:
    study = a_population(strategy={"population": 6})

    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.DIVERGED if trial.bracket in (1, 4) and trial.parent is None and report == 2 else None

    found = simulate(study, quality, workers=3, fail=fail)
    failed = [trial for trial in found.history.trials.values() if trial.state is TrialState.FAILED]
    assert {trial.bracket for trial in failed} <= {1, 4}
    assert failed
    for trial in failed:
        successor = next(one for one in found.history.trials.values() if one.bracket == trial.bracket and one.parent is not None)
        assert successor.parent_report == 2
    assert all(trials[-1].reports == 6 for trials in in_slots(found))


def test_of_more_failures_than_the_worst_part_none_stays_empty() -> None:
    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.OUT_OF_MEMORY if trial.parent is None and trial.bracket < 5 else None

    found = simulate(a_population(strategy={"population": 6}), quality, workers=3, fail=fail)
    assert [trials[-1].reports for trials in in_slots(found)] == [6] * 6
    copies = [trial for trial in found.history.trials.values() if trial.parent_report == 1]
    assert {trial.parent for trial in copies} == {5}, "the only one that did not fail"


def test_a_population_that_has_failed_as_a_whole_ends() -> None:
    found = simulate(a_population(), quality, workers=3, fail=lambda *_: TrialReason.DIVERGED)
    assert found.reason is StudyReason.BUDGET_SPENT
    assert len(found.history.trials) == 8


def test_a_number_of_trials_bounds_the_copies_and_the_others_go_on() -> None:
    found = simulate(a_population(budget={"trials": 9}, strategy={"population": 8}), quality, workers=4)
    assert len(found.history.trials) == 9
    assert Counter(trial.reason for trial in found.history.trials.values()) == {
        TrialReason.EXPLOITED: 1,
        TrialReason.EPOCHS_DONE: 8,
    }
    ends = " is number 8 of 8; the cut was at ", "; it stays, as no trial is left of `budget.trials` for a copy in its place."
    promotions = [action.why for action in found.actions if isinstance(action, Promote)]
    last = [why for why in promotions if why and why.report == 5 and why.rank == 8]
    assert [(why.rung, all(end in why.sentence for end in ends)) for why in last] == [(5, True)]
    assert not any("it stays" in why.sentence for why in promotions if why and why.rank is not None and why.rank < 7)
    assert all(why and why.sentence.startswith(f"Goes on after generation {why.rung} by `pbt` at report ") for why in promotions)


def test_a_number_of_trials_that_leaves_none_for_a_copy_is_refused_and_says_how_many_it_takes() -> None:
    found = violations(budget={"trials": 8}, space=SPACE)["/budget/trials"]
    assert found.startswith("copies are trials too, so that no member of a population of 8 could be replaced: raise it to ")
    assert f"raise it to {8 + 2 * (a_document()['trainer']['epochs'] - 1)} for all comparisons" in found
    assert "a copy 1 more" in violations(budget={"epochs": 8}, space=SPACE)["/budget/epochs"]


@pytest.mark.parametrize(
    ("strategy", "epochs"),
    [({"population": 8}, 9), ({"population": 5, "interval": 4}, 9), ({"population": 4, "quantile": 0.5}, 3)],
)
def test_a_population_takes_as_many_trials_as_are_said(strategy: dict[str, Any], epochs: int) -> None:
    study = a_population(epochs=epochs, strategy=strategy)
    found = simulate(study, quality, workers=2)
    plan = study.definition.plan.strategy
    assert isinstance(plan, PbtStrategy)
    assert len(found.history.trials) == plan.most_trials(epochs)


def test_a_number_of_reports_ends_it_between_two_comparisons_and_nobody_is_called_worse() -> None:
    study = a_population(budget={"epochs": 19}, strategy={"population": 8})
    found = simulate(study, quality, workers=4)
    assert found.reason is StudyReason.BUDGET_SPENT
    assert found.history.spending(study, NOW).epochs == 19
    last = [trials[-1] for trials in in_slots(found)]
    assert {trial.reason for trial in last} == {TrialReason.BUDGET_SPENT}


def test_a_configuration_that_is_asked_for_is_the_next_copys() -> None:
    study = a_population(workers=1, strategy={"population": 2})
    begun = simulate(study, quality, workers=1, stop_after_reports=1)
    wanted: dict[str, Value] = {"learning_rate": 0.5, "label_smoothing": 0.1, "class_weights": "none"}
    found = simulate(study, quality, workers=1, history=replace(begun.history, requested=[wanted]))
    copy = found.history.trials[2]
    assert (copy.parameters, copy.parent_report) == (wanted, 1)
    start = next(action for action in found.actions if isinstance(action, Start))
    assert start.why is not None
    assert start.why.sentence.startswith(f"Asked for while the study ran, with the weights of trial {copy.parent} at report 1")


def test_each_decision_says_what_was_compared_and_who_is_copied() -> None:
    found = simulate(a_population(workers=2, strategy={"population": 2}), quality, workers=2)
    cut = next(action for action in found.actions if isinstance(action, Cut))
    start = next(action for action in found.actions if isinstance(action, Start) and action.parent is not None)
    assert (cut.reason, start.why and start.why.parent) == (TrialReason.EXPLOITED, cut.why[0].parent)
    worst, best = (found.history.values[number][0] for number in (cut.numbers[0], start.parent))  # type: ignore[index]
    said = f"Cut by `pbt` at report 1: {worst:.4g} is number 2 of 2; the cut was at {best:.4g}; "
    assert cut.why[0].sentence == f"{said}a copy of trial {start.parent} takes its place."
    assert start.why is not None
    assert start.why.sentence.startswith(f"A copy of trial {start.parent} at report 1; ")


CONDITIONAL = {
    **SPACE,
    "optimizer": {"kind": "constant", "value": "adamw"},
    "momentum": {"kind": "float", "low": 0.1, "high": 0.9, "when": {"class_weights": "balanced"}},
    "beta1": {"kind": "categorical", "choices": [0.5, 0.8, 0.9, 0.95], "ordered": True, "when": {"class_weights": "none"}},
}


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_changed_parameters_stay_in_the_space(seed: int, resample: float) -> None:
    space = a_population(space=CONDITIONAL, constraints=["learning_rate * 10 >= label_smoothing"]).definition.search_space
    strategy = PbtStrategy(kind="pbt", resample_probability=resample)
    random = random_of(seed, 0, "test")
    parameters = space.draw(random)
    seen = {space.key(parameters)}
    for _ in range(10):
        parameters = perturbed(space, parameters, strategy, seen, random)
        assert space.contains(parameters)
        assert space.key(parameters) not in seen
        seen.add(space.key(parameters))


def test_a_number_is_multiplied_by_a_factor_or_moves_to_its_neighbour() -> None:
    space = a_population(space=CONDITIONAL).definition.search_space
    strategy = PbtStrategy(kind="pbt", resample_probability=0.0)
    parameters: dict[str, Value] = {
        "learning_rate": 0.01, "label_smoothing": 0.1, "class_weights": "none", "optimizer": "adamw", "beta1": 0.8,
    }  # fmt: skip
    found = [perturbed(space, parameters, strategy, set(), random_of(seed, 0, "test")) for seed in range(30)]
    assert {one["learning_rate"] for one in found} == {0.01 * 0.8, 0.01 * 1.25}
    assert {one["label_smoothing"] for one in found} == {0.05, 0.15}
    assert {one["beta1"] for one in found} == {0.5, 0.9}
    assert {one["class_weights"] for one in found} == {"none"}, "without an order there is no neighbour"


def test_a_choice_has_the_neighbours_of_its_own_place_beside_one_that_is_equal_in_python() -> None:
    places = CategoricalParameter(kind="categorical", choices=(1, True, 2), ordered=True)
    strategy = PbtStrategy(kind="pbt", resample_probability=0.0, factors=(2.0,))
    found = perturbed(Space({"dropout": places}), {"dropout": True}, strategy, set(), random_of(0, 0, "test"))
    assert identity(found["dropout"]) == "2"


def test_a_number_that_is_nothing_is_drawn_anew_as_no_factor_moves_it() -> None:
    space = Space({"dropout": FloatParameter(kind="float", low=0.0, high=0.5)})
    strategy = PbtStrategy(kind="pbt", resample_probability=0.0)
    assert as_number(perturbed(space, {"dropout": 0.0}, strategy, set(), random_of(0, 0, "test"))["dropout"]) > 0


def test_the_same_configuration_comes_again_only_when_there_is_no_other() -> None:
    space = {"class_weights": {"kind": "categorical", "choices": ["none", "balanced"]}}
    found = simulate(a_population(space=space, strategy={"population": 2}), lambda *_: 0.5, workers=2)
    assert len(found.history.trials) == 7
    assert {str(trial.parameters["class_weights"]) for trial in found.history.trials.values()} == {"none", "balanced"}


@pytest.mark.parametrize("seed", range(5))
def test_a_schedule_that_the_population_finds_beats_every_constant(seed: int) -> None:
    """Gradient descent on a noisy bowl: a large step is fast, and only a small one comes close to the bottom."""

    def descended(parameters: Mapping[str, Value], _: int, before: float | None) -> float:
        rate = as_number(parameters["learning_rate"])
        return (1 - rate) ** 2 * (100.0 if before is None else before) + rate**2

    space = {"learning_rate": {"kind": "float", "low": 1e-3, "high": 1.0, "log": True}}
    objective = {"metric": "validation/loss", "direction": "minimize"}
    study = a_population(epochs=40, workers=8, seed=seed, space=space, objective=objective)
    found = simulate(study, quality, gain=descended, workers=8)

    def after(rate: float) -> float:
        value = None
        for report in range(40):
            value = descended({"learning_rate": rate}, report, value)
        return value or math.inf

    best_constant = min(after(10 ** (-3 + 3 * step / 1000)) for step in range(1001))
    best = min(trial.value or math.inf for trial in found.history.trials.values() if trial.reports == 40)
    assert best < best_constant


def test_only_what_may_change_in_the_middle_of_a_training_may_vary() -> None:
    space = {
        **SPACE,
        "batch_size": {"kind": "categorical", "choices": [8, 16]},
        "lora.rank": {"kind": "int", "low": 1, "high": 4},
    }
    found = violations(space=space)
    assert set(found) == {"/space/batch_size", "/space/lora.rank"}
    assert "search `attention_dropout`, `augmentation.span_masking`" in found["/space/batch_size"]
    assert "`lora.dropout`" in found["/space/batch_size"]
    parse_definition(
        a_document(strategy={"kind": "pbt"}, budget={}, space={**SPACE, "batch_size": {"kind": "constant", "value": 16}})
    )


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"strategy": {"kind": "pbt", "interval": 3}}, "/strategy/interval"),
        ({"space": {"class_weights": SPACE["class_weights"]}}, "/strategy/population"),
        ({"budget": {"trials": 7}}, "/budget/trials"),
        ({"budget": {"epochs": 7}}, "/budget/epochs"),
        ({"strategy": {"kind": "pbt", "population": 1}}, "/strategy/population"),
        ({"strategy": {"kind": "pbt", "quantile": 0.6}}, "/strategy/quantile"),
        ({"strategy": {"kind": "pbt", "factors": [0.8, 0.0]}}, "/strategy/factors/1"),
        ({"trainer": {**a_document()["trainer"], "early_stopping": {"patience": 2}}}, "/trainer/early_stopping"),
    ],
)  # fmt: skip
def test_a_population_that_cannot_be_is_refused(changes: dict[str, Any], pointer: str) -> None:
    assert set(violations(**{"space": SPACE, **changes})) == {pointer}


def test_nothing_but_its_kind_need_be_said_of_it() -> None:
    study = a_population()
    assert study.definition.plan.strategy == PbtStrategy(
        kind="pbt", population=8, interval=1, quantile=0.25, resample_probability=0.25, factors=(0.8, 1.25)
    )
