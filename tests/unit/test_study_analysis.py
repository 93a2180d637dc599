"""What a study's history tells, as pure functions of it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from service.analysis import fanova
from service.analysis.axes import axes_of, place, unit
from service.analysis.importance import Compared, compared, importance_of, request_of
from service.analysis.learned import analysed, values_of
from service.analysis.spread import best_and_spread, evenly
from service.domain.history import History
from service.domain.outcomes import Point
from service.domain.study import Study
from service.domain.study_analysis import Axis, Importance, StudyAnalysis
from service.domain.trial import TrialState
from tests.analysed import SPACE, a_history, a_searched_study, an_analysis, configurations
from tests.builders import NOW, a_trial


def comparison(study: Study, history: History) -> Compared:
    return compared(history, values_of(history), study.definition.objective, axes_of(study.definition.space))


def importances(study: Study, history: History) -> Importance:
    """With real shares, without a child."""
    trials = comparison(study, history)
    request = request_of(trials)
    shares = None if request is None else fanova.shares(np.array(request["points"]), np.array(request["values"])).tolist()
    return importance_of(trials, shares)


def shares_of(importance: Importance) -> Mapping[str, float | None]:
    return {one.parameter: one.importance for one in importance.parameters}


def of_accuracies(*accuracies: float, **changes: Any) -> StudyAnalysis:
    """Of trials with one report each, which ended in order."""
    wanted = iter(accuracies)
    history = a_history(configurations(len(accuracies)), lambda _: [next(wanted)])
    return an_analysis(a_searched_study(**changes), history)


def test_the_parameter_that_matters_is_found_and_the_shares_sum_to_one() -> None:
    history = a_history(configurations(80), lambda one: [1 - abs(math.log10(one["learning_rate"]) + 3.5)])
    found = importances(a_searched_study(), history)
    assert found.parameters[0].parameter == "learning_rate"
    assert (found.parameters[0].importance or 0) > 0.9
    assert sum(one.importance or 0 for one in found.parameters) == pytest.approx(1)
    assert (found.trials, found.report, found.note) == (80, 1, None)


def test_a_choice_that_matters_is_found() -> None:
    history = a_history(configurations(80), lambda one: [0.9 if one["batch_size"] == 32 else 0.6])
    assert importances(a_searched_study(), history).parameters[0].parameter == "batch_size"


def test_a_parameter_that_never_varied_has_no_importance_and_says_so() -> None:
    tried = [{**one, "weight_decay": 0.1} for one in configurations(40)]
    found = importances(a_searched_study(), a_history(tried, lambda one: [one["learning_rate"]]))
    [constant] = [one for one in found.parameters if one.parameter == "weight_decay"]
    assert (constant.importance, constant.note) == (0.0, "It has the same value in all 40 trials that have it.")


def test_a_parameter_that_only_some_trials_have_is_compared_among_them_and_says_so() -> None:
    """Only with large batches is there a decay: it matters there, but that it is missing elsewhere is the batch's doing."""
    tried = [one if one["batch_size"] == 32 else {**one, "weight_decay": None} for one in configurations(200)]
    tried = [{name: value for name, value in one.items() if value is not None} for one in tried]
    history = a_history(tried, lambda one: [2.0 if one["batch_size"] == 16 else one["weight_decay"]])
    found = importances(a_searched_study(), history)
    assert [one.parameter for one in found.parameters] == ["batch_size", "weight_decay", "learning_rate"]
    having = sum("weight_decay" in one for one in tried)
    assert found.parameters[1].note == f"{having} of these 200 trials have it."
    assert 0 < (found.parameters[1].importance or 0) < 0.1


def test_too_few_trials_have_no_importance_and_it_says_how_many_it_needs() -> None:
    found = importances(a_searched_study(), a_history(configurations(9), lambda one: [one["weight_decay"]]))
    assert set(shares_of(found).values()) == {None}
    assert found.note is not None
    assert "9 trials can be compared" in found.note
    assert "needs 10" in found.note


def test_a_study_without_trials_has_an_analysis_too() -> None:
    found = an_analysis(history=History())
    assert (found.scored, found.history, found.slices[0].points, found.importance.trials) == (0, [], [], 0)


def test_where_all_trials_are_alike_nothing_matters_and_it_says_so() -> None:
    found = importances(a_searched_study(), a_history(configurations(20), lambda _: [0.5]))
    assert set(shares_of(found).values()) == {0.0}
    assert found.note == "No parameter explains how these trials differ."


def test_the_only_parameter_that_varies_explains_all_without_asking_a_child() -> None:
    tried = [{**one, "weight_decay": 0.1, "batch_size": 16} for one in configurations(20)]
    study, history = a_searched_study(), a_history(tried, lambda one: [one["learning_rate"]])
    assert request_of(comparison(study, history)) is None
    assert shares_of(importances(study, history)) == {"learning_rate": 1.0, "batch_size": 0.0, "weight_decay": 0.0}


def of_lengths(*lengths: int, state: TrialState = TrialState.PRUNED) -> History:
    """Trials that gave so many reports, each better than the one before."""
    wanted = iter(lengths)
    return a_history(configurations(len(lengths)), lambda _: [0.1 * report for report in range(next(wanted))], state)


def test_trials_are_compared_at_the_report_that_half_of_them_reached() -> None:
    found = comparison(a_searched_study(), of_lengths(*[1] * 12, *[3] * 9, *[9] * 3))
    assert (found.report, len(found.objectives)) == (3, 12)
    assert max(found.objectives) == pytest.approx(0.2), "what the longer ones reached later does not count"


def test_trials_are_compared_earlier_when_fewer_than_ten_got_that_far() -> None:
    found = comparison(a_searched_study(), of_lengths(*[1] * 5, *[3] * 8))
    assert (found.report, len(found.objectives)) == (1, 13)


def test_a_completed_trial_counts_with_what_it_had_however_short_it_was() -> None:
    found = comparison(a_searched_study(), of_lengths(*[1] * 5, *[3] * 8, state=TrialState.COMPLETED))
    assert (found.report, len(found.objectives)) == (3, 13)


def test_a_report_without_a_finite_objective_keeps_its_number() -> None:
    history = a_history(configurations(12), lambda _: [math.nan, 0.3, 0.9], TrialState.PRUNED)
    shorter = a_history(configurations(12), lambda _: [0.1, 0.2], TrialState.PRUNED)
    moved = {number + 50: replace(trial, number=number + 50) for number, trial in shorter.trials.items()}
    values = {number + 50: each for number, each in shorter.values.items()}
    found = comparison(a_searched_study(), History({**history.trials, **moved}, {**history.values, **values}))
    assert (found.report, sorted(set(found.objectives)), len(found.objectives)) == (3, [0.9], 12)


def test_where_no_report_has_half_of_the_trials_the_one_with_the_most_counts() -> None:
    early = a_history(configurations(12), lambda _: [0.1], TrialState.PRUNED)
    copies = {
        number: a_trial(number, parameters=one, state=TrialState.PRUNED, reports=9, parent=0, parent_report=number % 4 + 2)
        for number, one in enumerate(configurations(20), start=20)
    }
    values = {
        number: (*[math.nan] * copy.parent_report, *[0.5] * (1 if number > 20 else 9 - copy.parent_report))
        for number, copy in copies.items()
    }
    found = comparison(a_searched_study(), History({**early.trials, **copies}, {**early.values, **values}))
    assert (found.report, len(found.objectives)) == (1, 12)


def test_copies_are_compared_where_most_trials_have_reports_of_their_own() -> None:
    """A report at which many copies had not begun yet tells of few trials."""
    early = a_history(configurations(12), lambda _: [0.1, 0.2], TrialState.PRUNED)
    copies = {
        number: a_trial(number, parameters=one, state=TrialState.PRUNED, reports=6, parent=0, parent_report=4)
        for number, one in enumerate(configurations(14), start=20)
    }
    history = History({**early.trials, **copies}, {**early.values, **dict.fromkeys(copies, (*[math.nan] * 4, 0.5, 0.6))})
    found = comparison(a_searched_study(), history)
    assert (found.report, list(found.objectives)) == (6, [0.6] * 14)


@pytest.mark.parametrize(
    ("direction", "incumbents"),
    [
        ("maximize", [(0.5, 0), (0.5, 0), (0.8, 2), (0.8, 2)]),
        ("minimize", [(0.5, 0), (0.4, 1), (0.4, 1), (0.4, 1)]),
    ],
)
def test_the_incumbent_is_the_best_by_the_studys_own_direction(direction: str, incumbents: Sequence[tuple[float, int]]) -> None:
    found = of_accuracies(0.5, 0.4, 0.8, 0.7, objective={"metric": "validation/accuracy", "direction": direction})
    assert [(point.incumbent, point.incumbent_trial) for point in found.history] == incumbents
    assert found.parallel_coordinates.lines[0].trial == found.history[-1].incumbent_trial
    assert found.learning_curves.curves[0].trial == found.history[-1].incumbent_trial


def test_the_earlier_of_two_equal_trials_stays_the_incumbent() -> None:
    assert [point.incumbent_trial for point in of_accuracies(0.5, 0.5).history] == [0, 0]


def test_the_history_follows_the_ends_and_says_what_was_spent_by_then() -> None:
    history = a_history(configurations(3), lambda _: [0.5, 0.6])
    late = replace(history.trials[0], ended_at=NOW + timedelta(seconds=300))
    points = an_analysis(history=history.with_trial(late)).history
    assert [(point.trial, point.ended, point.reports, point.seconds) for point in points] == [
        (1, 1, 2, 40.0), (2, 2, 4, 60.0), (0, 3, 6, 300.0)
    ]  # fmt: skip


def test_what_a_copy_took_over_was_spent_once() -> None:
    history = a_history(configurations(2), lambda _: [0.5, 0.6, 0.7])
    copy = replace(history.trials[1], parent=0, parent_report=2)
    found = an_analysis(history=replace(history.with_trial(copy), values={**history.values, 1: (math.nan, math.nan, 0.7)}))
    assert [point.reports for point in found.history] == [3, 4]


def test_a_trial_that_breaks_an_outcome_has_a_curve_and_is_never_the_incumbent() -> None:
    wanted = iter([[0.9], [0.5], [0.4, 0.8]])
    history = a_history(configurations(3), lambda _: next(wanted))
    broken, kept = Point((), violation=1.0), Point(())
    found = an_analysis(history=replace(history, points={0: (broken,), 1: (kept,), 2: (kept, broken)}))
    assert [(point.trial, point.ended, point.incumbent, point.incumbent_trial, point.reports) for point in found.history] == [
        (1, 1, 0.5, 1, 2), (2, 2, 0.5, 1, 4)
    ]  # fmt: skip
    curves = found.learning_curves.curves
    assert [(curve.trial, curve.objectives) for curve in curves] == [(1, [0.5]), (2, [0.4, 0.8]), (0, [0.9])]
    assert [(line.trial, line.objective) for line in found.parallel_coordinates.lines] == [(1, 0.5), (2, 0.4), (0, 0.9)]


def test_trials_without_a_value_are_counted_by_how_they_ended_and_their_reports_are_spent() -> None:
    history = a_history(configurations(2), lambda _: [0.5])
    failed = a_trial(7, state=TrialState.FAILED, reports=2, ended_at=NOW + timedelta(seconds=5))
    infeasible = a_trial(8, state=TrialState.INFEASIBLE, ended_at=NOW + timedelta(seconds=5))
    running = a_trial(9, state=TrialState.RUNNING)
    whole = History({**history.trials, 7: failed, 8: infeasible, 9: running}, {**history.values, 7: (math.nan, math.inf)})
    found = an_analysis(history=whole)
    assert (found.trials, found.scored, found.excluded) == (5, 2, {"failed": 1, "infeasible": 1})
    assert [point.reports for point in found.history] == [3, 4]
    assert {line.trial for line in found.parallel_coordinates.lines} == {0, 1}


def test_a_trial_that_still_runs_has_a_curve_and_no_place_in_the_history() -> None:
    history = History({0: a_trial(0, state=TrialState.RUNNING, reports=2)}, {0: (0.5, math.nan)})
    found = an_analysis(history=history)
    [curve] = found.learning_curves.curves
    assert (curve.state, curve.reports, curve.objectives) == ("running", [1, 2], [0.5, None])
    assert found.history == []


def test_all_lists_are_bounded_and_hold_the_best() -> None:
    count = iter(range(5000))
    history = a_history(configurations(5000), lambda _: [next(count) / 5000] * 300)
    found = an_analysis(history=history)
    assert found.learning_curves.total == found.parallel_coordinates.total == 5000
    assert [curve.trial for curve in found.learning_curves.curves][:50] == list(range(4999, 4949, -1))
    assert len(found.learning_curves.curves) == 100
    assert all(curve.reports[-1] == 300 and len(curve.reports) == 200 for curve in found.learning_curves.curves)
    assert len(found.parallel_coordinates.lines) == 500
    assert {0, 4999} <= {line.trial for line in found.parallel_coordinates.lines}
    assert sum(len(one.points) for one in found.slices) <= 20_000
    assert found.importance.trials == 1000


def test_a_long_history_keeps_an_even_spread_and_every_new_incumbent() -> None:
    accuracies = [0.5] * 3000
    accuracies[1234], accuracies[2345] = 0.7, 0.8
    points = of_accuracies(*accuracies).history
    assert 1000 <= len(points) <= 1002
    assert {0, 1234, 2345, 2999} <= {point.trial for point in points}


def test_choices_are_labelled_by_their_json_so_that_any_value_has_one() -> None:
    choices = ["16", 16, None, True, [1, 2], {"b": 1, "a": 2}]
    axis = Axis("x", "categorical", choices=['"16"', "16", "null", "true", "[1, 2]", '{"a": 2, "b": 1}'])
    assert [place(axis, {"x": choice}) for choice in choices] == list(axis.choices)
    assert (place(axis, {}), place(axis, {"x": 17})) == (None, None), "to be missing is not to be null"


def test_places_on_an_axis_follow_its_scale() -> None:
    log = Axis("x", "float", 1e-4, 1e-2, log=True)
    whole = Axis("x", "int", 0, 3)
    assert unit(log, {"x": 1e-3}) == pytest.approx(0.5)
    assert [unit(whole, {"x": value}) for value in (0, 1, 2, 3)] == [0.125, 0.375, 0.625, 0.875]
    assert (unit(log, {"x": 0.0}), unit(whole, {"x": True}), unit(whole, {"x": 99})) == (None, None, 1.0)


def test_every_parameter_has_an_axis_and_a_slice_in_the_order_of_the_space() -> None:
    found = an_analysis()
    axes = {axis.parameter: axis for axis in found.parallel_coordinates.axes}
    assert list(axes) == [one.parameter for one in found.slices] == list(SPACE)
    assert (axes["learning_rate"].low, axes["learning_rate"].high, axes["learning_rate"].log) == (1e-5, 1e-2, True)
    assert axes["batch_size"].choices == ["16", "32"]


def test_a_trial_without_a_parameter_is_left_out_of_its_slice_only() -> None:
    tried = [*configurations(11), {"learning_rate": 1e-3}]
    found = an_analysis(history=a_history(tried, lambda _: [0.5]), shares=[0.2, 0.1, 0.7])
    assert {one.parameter: len(one.points) for one in found.slices} == {"learning_rate": 12, "batch_size": 11, "weight_decay": 11}
    assert set(found.parallel_coordinates.lines[-1].values) == {"learning_rate"}


def test_an_analysis_is_what_json_can_hold() -> None:
    assert json.loads(json.dumps(asdict(an_analysis()), allow_nan=False))["metric"] == "validation/accuracy"


def test_a_spread_keeps_both_ends_and_the_best() -> None:
    assert evenly(list(range(9)), 3) == [0, 4, 8]
    assert evenly([1, 2], 3) == [1, 2]
    assert best_and_spread(list(range(100)), 2, 3) == [0, 1, 2, 50, 99]


def test_a_thousand_trials_are_analysed_in_little_time_and_space() -> None:
    found = an_analysis(history=a_history(configurations(1000), lambda one: [one["weight_decay"]] * 9))
    assert len(json.dumps(asdict(found))) < 1_000_000


def test_the_whole_is_the_same_for_the_same_history() -> None:
    study, history = a_searched_study(), a_history(configurations(30), lambda one: [one["weight_decay"]])
    importance = importances(study, history)
    assert analysed(study, history, importance) == analysed(study, history, importance)
