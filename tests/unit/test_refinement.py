"""A narrower space from what a study has found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import CategoricalParameter, ConstantParameter, FloatParameter, IntParameter, Parameter, Space, contains, count
from service.domain.definition import parse_definition
from service.domain.errors import InvalidDefinition, TooFewTrials
from service.domain.history import History
from service.domain.refinement import Refinement, SpaceChange, refined
from service.domain.study import Study
from service.domain.study_analysis import Importance, ParameterImportance
from service.domain.trial import TrialState
from tests.analysed import a_history
from tests.builders import a_study, a_trial

RATE = {"kind": "float", "low": 1e-6, "high": 1e-1, "log": True}
SPACE: dict[str, dict[str, Any]] = {
    "learning_rate": RATE,
    "batch_size": {"kind": "categorical", "choices": [8, 16, 32]},
    "weight_decay": {"kind": "float", "low": 0.0, "high": 0.5},
    "frozen_layers": {"kind": "int", "low": 0, "high": 12},
}


def importance(shares: Mapping[str, float] | None = None, report: int | None = 1) -> Importance:
    return Importance([ParameterImportance(name, share) for name, share in (shares or {}).items()], 30, report)


def drawn(study: Study, trials: int, value: Callable[[Mapping[str, Any]], float], seed: int = 0) -> History:
    """So many trials drawn at random, each as good as `value` says."""
    random = Random(seed)  # noqa: S311 - a search, not a secret
    configurations = [study.definition.search_space.draw(random) for _ in range(trials)]
    return a_history(configurations, lambda one: [value(one)])


def refinement(study: Study, history: History, shares: Mapping[str, float] | None = None, *, takes: bool = True) -> Refinement:
    return refined(study, history, importance(shares), lambda _: takes)


def change(found: Refinement, name: str) -> SpaceChange:
    return next(one for one in found.changes if one.parameter == name)


def near(rate: float) -> Callable[[Mapping[str, Any]], float]:
    return lambda one: -abs(math.log10(one["learning_rate"]) - math.log10(rate))


def ends(parameter: Parameter) -> tuple[float, float]:
    assert isinstance(parameter, FloatParameter | IntParameter)
    return parameter.low, parameter.high


def test_a_range_shrinks_around_the_good_trials_on_its_own_scale() -> None:
    study = a_study(space={"learning_rate": RATE})
    found = change(refinement(study, drawn(study, 60, near(1e-3))), "learning_rate")
    low, high = ends(found.after)
    assert found.action == "narrowed"
    assert 1e-5 < low < 1e-3 < high < 5e-2
    assert found.sentence.startswith("`learning_rate` narrows from [1e-06, 0.1] to [")
    assert found.sentence.endswith("].") or "the best 15 trials lie mostly in" in found.sentence
    assert isinstance(found.after, FloatParameter)
    assert found.after.log


def test_a_range_never_shrinks_below_a_quarter_of_itself() -> None:
    study = a_study(space={"weight_decay": SPACE["weight_decay"]})
    same = [{"weight_decay": 0.2 + at * 1e-6} for at in range(5)]
    others = [{"weight_decay": 0.5 - at * 1e-2} for at in range(15)]
    history = a_history([*same, *others], lambda one: [1.0 if one["weight_decay"] < 0.3 else 0.0])
    low, high = ends(change(refinement(study, history), "weight_decay").after)
    assert high - low == pytest.approx(0.5 * 0.25, abs=2e-3)
    assert low < 0.2 < high


def test_a_range_reaches_beyond_an_edge_that_the_good_trials_sit_on_where_the_trainer_takes_it() -> None:
    study = a_study(space={"learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-3, "log": True}})
    history = drawn(study, 60, near(1e-2))
    found = change(refinement(study, history), "learning_rate")
    low, high = ends(found.after)
    assert (found.action, found.before) == ("extended", study.definition.space["learning_rate"])
    assert high == pytest.approx(1e-3 * 10**0.75, rel=0.01), "a quarter of the three decades"
    assert low > 1e-6
    refused = change(refinement(study, history, takes=False), "learning_rate")
    assert (refused.action, ends(refused.after)[1]) == ("narrowed", 1e-3)


def test_an_extension_is_made_smaller_until_the_trainer_takes_it() -> None:
    study = a_study(space={"dropout": {"kind": "float", "low": 0.1, "high": 0.9}})

    def takes(space: Mapping[str, Parameter]) -> bool:
        try:
            parse_definition({**study.definition.model_dump(mode="json"), "space": {k: v.model_dump() for k, v in space.items()}})
        except InvalidDefinition:
            return False
        return True

    history = drawn(study, 40, lambda one: one["dropout"])
    found = change(refined(study, history, importance(), takes), "dropout")
    assert found.action == "extended"
    assert 0.9 < ends(found.after)[1] <= 1.0


def test_whole_numbers_and_steps_stay_what_they_are() -> None:
    study = a_study(space={"frozen_layers": SPACE["frozen_layers"], "weight_decay": {**SPACE["weight_decay"], "step": 0.05}})
    history = drawn(study, 60, lambda one: -abs(one["frozen_layers"] - 6) - abs(one["weight_decay"] - 0.25))
    found = refinement(study, history)
    layers, decay = found.space["frozen_layers"], found.space["weight_decay"]
    assert isinstance(layers, IntParameter)
    assert 0 < layers.low <= 6 <= layers.high < 12
    assert isinstance(decay, FloatParameter)
    assert decay.step == 0.05
    assert decay.low / 0.05 == pytest.approx(round(decay.low / 0.05))


@pytest.mark.parametrize("good", [[0.3, 0.5, 0.6, 0.6, 0.7], [0.3, 0.1, 0.1, 0.2, 0.2], [0.7, 0.3, 0.4, 0.5, 0.6]], ids=str)
def test_the_ends_of_a_stepped_range_are_its_own_values_so_that_the_best_one_stays_inside(good: Sequence[float]) -> None:
    study = a_study(space={"dropout": {"kind": "float", "low": 0.0, "high": 0.9, "step": 0.1}})
    tried = [{"dropout": value, "rank": -rank} for rank, value in enumerate([*good, *[0.9] * 10])]
    after = refinement(study, a_history(tried, lambda one: [one["rank"]])).space["dropout"]
    assert isinstance(after, FloatParameter)
    assert contains(after, good[0])
    assert (after.low, after.high) == (round(after.low, 1), round(after.high, 1))


def test_a_range_that_would_reach_beyond_what_a_float_can_hold_is_not_extended() -> None:
    study = a_study()
    wide = FloatParameter(kind="float", low=1e-300, high=1e308, log=True)
    study = replace(study, definition=study.definition.model_copy(update={"space": {"learning_rate": wide}}))
    history = a_history(
        [{"learning_rate": 10.0**power} for power in [*range(-272, 248, 20), *range(300, 308)]],
        lambda one: [one["learning_rate"]],
    )
    found = change(refinement(study, history), "learning_rate")
    assert (found.action, ends(found.after)[1]) == ("narrowed", 1e308)


def test_grid_values_outside_the_new_range_go() -> None:
    study = a_study(space={"learning_rate": {**RATE, "grid": [1e-6, 1e-4, 1e-3, 1e-1]}})
    after = refinement(study, drawn(study, 60, near(3e-4))).space["learning_rate"]
    assert isinstance(after, FloatParameter)
    assert after.grid == (1e-4, 1e-3)


def test_a_choice_goes_that_many_trials_had_and_no_good_one() -> None:
    study = a_study(space={"batch_size": SPACE["batch_size"], "learning_rate": RATE})
    found = change(refinement(study, drawn(study, 60, lambda one: float(one["batch_size"] != 8))), "batch_size")
    assert found.action == "dropped"
    assert isinstance(found.after, CategoricalParameter)
    assert found.after.choices == (16, 32)
    assert found.sentence.startswith("`batch_size` loses 8 (")
    assert found.sentence.endswith("none of them is among the best 15 of 60.")


def test_a_choice_stays_that_few_trials_had() -> None:
    study = a_study(space={"batch_size": SPACE["batch_size"], "learning_rate": RATE})
    rates = [{"learning_rate": 10 ** (-6 + at / 5), "batch_size": 8 if at < 3 else 16 + 16 * (at % 2)} for at in range(20)]
    history = a_history(rates, lambda one: [float(one["batch_size"] != 8)])
    assert change(refinement(study, history), "batch_size").action == "kept"


def test_a_parameter_that_hardly_matters_is_fixed_as_in_the_best_trial() -> None:
    study = a_study(space={"learning_rate": RATE, "weight_decay": SPACE["weight_decay"]})
    history = drawn(study, 40, near(1e-3))
    found = refinement(study, history, {"learning_rate": 0.98, "weight_decay": 0.02})
    best = history.best(study.definition.objective)
    assert best is not None or history.trials
    winner = max(history.values, key=lambda number: history.values[number][0])
    fixed = change(found, "weight_decay")
    assert fixed.after == ConstantParameter(kind="constant", value=history.trials[winner].parameters["weight_decay"])
    assert "it explains 2.0% of the differences" in fixed.sentence


def test_the_most_important_parameter_always_varies() -> None:
    study = a_study(space=SPACE)
    found = refinement(study, drawn(study, 40, near(1e-3)), dict.fromkeys(SPACE, 0.04))
    assert [one.action == "fixed" for one in found.changes] == [False, True, True, True]


def test_nothing_is_fixed_where_no_parameter_explains_anything() -> None:
    study = a_study(space=SPACE)
    found = refinement(study, drawn(study, 40, near(1e-3)), dict.fromkeys(SPACE, 0.0))
    assert all(one.action != "fixed" for one in found.changes)


def test_parameters_that_conditions_name_stay_as_they_are_and_conditions_too() -> None:
    when = {"optimizer": "sgd"}
    space = {
        "optimizer": {"kind": "categorical", "choices": ["adamw", "sgd"]},
        "weight_decay": {**SPACE["weight_decay"], "when": when},
        "learning_rate": RATE,
    }
    study = a_study(space=space)
    found = refinement(study, drawn(study, 60, near(1e-3)), {"optimizer": 0.01, "weight_decay": 0.5, "learning_rate": 0.49})
    assert change(found, "optimizer").action == "kept"
    assert "conditions" in change(found, "optimizer").sentence
    assert found.space["weight_decay"].when == when


def test_trials_that_were_cut_early_are_not_compared_with_whole_ones() -> None:
    study = a_study(space={"learning_rate": RATE})
    whole = drawn(study, 12, near(1e-3))
    cut = drawn(study, 12, lambda _: 9.0, seed=1)
    trials = {number + 100: replace(one, number=number + 100, state=TrialState.PRUNED) for number, one in cut.trials.items()}
    values = {number: (*each, *each) for number, each in whole.values.items()}
    both = History({**whole.trials, **trials}, {**values, **dict.fromkeys(trials, (9.0,))})
    found = refined(study, both, importance(report=2), lambda _: True)
    assert (found.trials, max(found.good) < 100, found.report) == (12, True, 2)


def test_a_copy_is_not_compared_at_a_report_that_it_did_not_make_itself() -> None:
    study = a_study(space={"learning_rate": RATE})
    whole = drawn(study, 12, near(1e-3))
    copies = {number: a_trial(number, state=TrialState.PRUNED, reports=6, parent=0, parent_report=5) for number in (20, 21)}
    history = History({**whole.trials, **copies}, {**whole.values, **dict.fromkeys(copies, (*[math.nan] * 5, 9.0))})
    found = refined(study, history, importance(report=1), lambda _: True)
    assert (found.trials, max(found.good) < 20) == (12, True)


def test_the_finals_runs_do_not_count_twice() -> None:
    study = a_study(space={"learning_rate": RATE})
    history = drawn(study, 12, near(1e-3))
    runs = {number + 50: replace(one, number=number + 50, repeats=number) for number, one in history.trials.items()}
    both = History({**history.trials, **runs}, {**history.values, **{number + 50: one for number, one in history.values.items()}})
    assert refinement(study, both) == refinement(study, history)


def test_too_few_trials_are_refused_with_how_many_it_takes() -> None:
    study = a_study(space={"learning_rate": RATE})
    with pytest.raises(TooFewTrials, match="needs 10 trials that can be compared, and study 'intents-abc123' has 9"):
        refinement(study, drawn(study, 9, near(1e-3)))
    with pytest.raises(TooFewTrials):
        refined(study, History(), importance(report=None), lambda _: True)


@settings(max_examples=80, deadline=None)
@given(
    trials=st.integers(10, 60),
    seed=st.integers(0, 1000),
    names=st.lists(st.sampled_from(sorted(SPACE)), min_size=1, unique=True),
    shares=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    takes=st.booleans(),
)
def test_the_best_trial_stays_inside_and_the_space_gets_no_parameter_and_no_choice_more(
    trials: int, seed: int, names: Sequence[str], shares: Sequence[float], *, takes: bool
) -> None:
    study = a_study(space={name: SPACE[name] for name in names})
    random = Random(seed)  # noqa: S311 - a search, not a secret
    luck = {at: random.random() for at in range(trials)}
    history = drawn(study, trials, lambda _: 0.0, seed)
    history = replace(history, values={number: (luck[number],) for number in history.values})
    found = refinement(study, history, dict(zip(names, shares, strict=False)), takes=takes)
    best = history.trials[max(luck, key=lambda number: luck[number])]
    assert Space(found.space).contains(best.parameters)
    assert list(found.space) == list(names)
    assert any(count(parameter) != 1 for parameter in found.space.values())
    for one in found.changes:
        if isinstance(one.after, FloatParameter | IntParameter):
            (low, high), (old_low, old_high) = ends(one.after), ends(one.before)
            assert low < high
            assert takes or (low >= old_low and high <= old_high)
        if isinstance(one.after, CategoricalParameter) and isinstance(one.before, CategoricalParameter):
            assert set(one.after.choices) <= set(one.before.choices)
    if takes:  # no real trainer takes everything, a negative number of layers among it
        return
    assert parse_definition(
        {**study.definition.model_dump(mode="json"), "space": {name: one.model_dump() for name, one in found.space.items()}}
    )
