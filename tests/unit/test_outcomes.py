"""Outcomes: what counts, what ends a trial, and what the search is told."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from search_spaces import Configuration
from service.controller.retention import kept
from service.domain.history import History
from service.domain.outcomes import Outcome, Point, broken_said, point_of
from service.domain.study import Study, StudyReason
from service.domain.trial import TrialReason, TrialState
from service.search import Simulation, simulate
from service.search.evidence import rung_evidence, whole_evidence
from service.search.values import best_of
from tests.builders import a_document, a_study, a_trial, as_number

SMALL = Outcome("model/megabytes", "<=", 100)
GOOD = Outcome("validation/f1", ">=", 0.5)
SPACE = {"dropout": {"kind": "float", "low": 0.0, "high": 0.9}, "frozen_layers": {"kind": "int", "low": 0, "high": 100}}


def a_limited_study(outcomes: list[str], trials: int = 10, epochs: int = 3, **changes: Any) -> Study:
    trainer = {**a_document()["trainer"], "epochs": epochs}
    return a_study(**{"trainer": trainer, "space": SPACE, "outcomes": outcomes, "budget": {"trials": trials}, **changes})


def accuracy(parameters: Configuration, report: int) -> float:
    return as_number(parameters["dropout"]) + 0.01 * report


def run(study: Study, measure: Mapping[str, float], **changes: Any) -> Simulation:
    return simulate(study, accuracy, measure=lambda *_: measure, **changes)


def test_a_point_says_by_how_much_the_outcomes_are_broken_together_in_parts_of_their_limits() -> None:
    point = point_of((), (SMALL, GOOD), {"model/megabytes": 150.0, "validation/f1": 0.4})
    assert point.measured == (150.0, 0.4)
    assert point.violation == pytest.approx(0.5 + 0.2)
    assert not point.counts
    assert point_of((), (SMALL, GOOD), {"model/megabytes": 100.0, "validation/f1": 0.5}).counts


def test_what_is_not_a_number_breaks_every_outcome() -> None:
    assert point_of((), (SMALL,), {"model/megabytes": math.nan}).violation == math.inf
    assert point_of((), (SMALL,), {}).violation == math.inf


def test_which_outcomes_are_broken_is_said_with_by_how_much() -> None:
    point = point_of((), (SMALL, GOOD), {"model/megabytes": 120.5, "validation/f1": 0.4})
    assert broken_said((SMALL, GOOD), point) == (
        "`model/megabytes` is 120.5, 20.5 above the 100 allowed; `validation/f1` is 0.4, 0.1 below the 0.5 asked for"
    )
    assert broken_said((SMALL, GOOD), point, "model/") == "`model/megabytes` is 120.5, 20.5 above the 100 allowed"
    assert broken_said((GOOD,), point_of((), (GOOD,), {"validation/f1": 0.6})) is None


def test_a_trial_whose_model_breaks_an_outcome_ends_with_its_first_report() -> None:
    history = run(a_limited_study(["model/megabytes <= 100"], trials=2), {"model/megabytes": 120.0}).history
    trial = history.trials[0]
    assert (trial.state, trial.reason, trial.reports) == (TrialState.INFEASIBLE, TrialReason.OUTCOME_BROKEN, 1)
    assert trial.detail == "`model/megabytes` is 120, 20 above the 100 allowed"
    assert trial.best_value is None


def test_a_trial_none_of_whose_reports_keeps_the_outcomes_ends_infeasible_at_its_end() -> None:
    losses = {1: 3.0, 2: 2.0, 3: 2.5}
    study = a_limited_study(["validation/loss <= 1"], trials=1)
    history = simulate(study, accuracy, measure=lambda _, report: {"validation/loss": losses[report]}).history
    trial = history.trials[0]
    assert (trial.state, trial.reason, trial.reports) == (TrialState.INFEASIBLE, TrialReason.OUTCOME_BROKEN, 3)
    assert trial.detail == "`validation/loss` is 2, 1 above the 1 allowed"


def test_the_best_report_is_the_best_of_those_that_keep_the_outcomes() -> None:
    losses = {1: 0.5, 2: 0.9, 3: 2.0}
    study = a_limited_study(["validation/loss <= 1"], trials=1)
    history = simulate(study, accuracy, measure=lambda _, report: {"validation/loss": losses[report]}).history
    trial = history.trials[0]
    assert (trial.state, trial.best_report, trial.reports) == (TrialState.COMPLETED, 2, 3)
    assert history.counted(0, 3) == list(history.values[0][:2])


def test_the_best_trial_is_one_that_keeps_the_outcomes() -> None:
    study = a_limited_study(["model/megabytes <= 50"], trials=20)

    def measure(parameters: Configuration, _report: int) -> Mapping[str, float]:
        return {"model/megabytes": 100 * as_number(parameters["dropout"])}

    history = simulate(study, accuracy, measure=measure).history
    best = history.best(study.definition.objective)
    assert best is not None
    assert as_number(best.parameters["dropout"]) <= 0.5
    assert any(as_number(trial.parameters["dropout"]) > 0.5 for trial in history.trials.values())


def test_a_target_is_only_reached_by_a_report_that_counts() -> None:
    study = a_limited_study(["model/megabytes <= 50"], budget={"trials": 3, "target": 0.0})
    assert run(study, {"model/megabytes": 60.0}).reason is StudyReason.BUDGET_SPENT
    assert run(study, {"model/megabytes": 40.0}).reason is StudyReason.TARGET_REACHED


def test_at_a_rung_those_that_keep_the_outcomes_go_on_and_then_the_nearest_to_it() -> None:
    points = {0: 0.0, 1: 0.5, 2: 0.1, 3: math.inf}
    history = History(
        trials={number: a_trial(number, reports=1) for number in points},
        values=dict.fromkeys(points, (0.9,)),
        points={number: (Point((0.9,), (), violation),) for number, violation in points.items()},
    )
    objective = a_study().definition.objective
    ranked = best_of(history, history.trials.values(), 1, 4, objective)
    assert [trial.number for trial in ranked] == [0, 2, 1]


def test_a_model_is_told_which_trials_break_the_outcomes_and_ranks_them_last() -> None:
    study = a_limited_study(["model/megabytes <= 50"], trials=30, epochs=1)

    def measure(parameters: Configuration, _report: int) -> Mapping[str, float]:
        return {"model/megabytes": as_number(parameters["frozen_layers"])}

    history = simulate(study, accuracy, measure=measure).history
    layers = [as_number(one["frozen_layers"]) for one in whole_evidence(study, history).ranked(study.definition.objectives)]
    keeping = sum(one <= 50 for one in layers)
    assert 0 < keeping < 30
    assert all(one <= 50 for one in layers[:keeping])
    assert layers[keeping:] == sorted(layers[keeping:])


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "cmaes"])
def test_a_model_keeps_to_what_keeps_the_outcomes(sampler: str) -> None:
    strategy = {"kind": "bayesian", "sampler": {"kind": sampler, **({"population": 8} if sampler in {"nsga2", "cmaes"} else {})}}
    study = a_limited_study(["model/megabytes <= 30"], trials=60, epochs=1, strategy=strategy)

    def measure(parameters: Configuration, _report: int) -> Mapping[str, float]:
        return {"model/megabytes": as_number(parameters["frozen_layers"])}

    history = simulate(study, accuracy, measure=measure).history
    last = [as_number(trial.parameters["frozen_layers"]) for trial in history.trials.values()][-20:]
    assert sum(one <= 30 for one in last) > 10, "chance alone would keep to it in 6 of 20"


def test_a_model_learns_although_no_trial_has_kept_the_outcomes_yet() -> None:
    study = a_limited_study(
        ["model/megabytes <= 1"], trials=60, epochs=1, strategy={"kind": "bayesian", "sampler": {"kind": "tpe"}}
    )

    def measure(parameters: Configuration, _report: int) -> Mapping[str, float]:
        return {"model/megabytes": 2.0 + as_number(parameters["frozen_layers"])}

    history = simulate(study, accuracy, measure=measure).history
    assert all(trial.state is TrialState.INFEASIBLE for trial in history.trials.values())
    last = [as_number(trial.parameters["frozen_layers"]) for trial in history.trials.values()][-20:]
    assert sum(last) / len(last) < 30, "chance alone would have 50 layers"


def test_a_gaussian_process_that_has_no_value_to_fit_leaves_it_to_chance() -> None:
    strategy = {"kind": "bayesian", "sampler": {"kind": "gp", "startup_trials": 2}}
    history = run(a_limited_study(["model/megabytes <= 1"], trials=4, strategy=strategy), {"model/megabytes": 2.0}).history
    assert [trial.reason for trial in history.trials.values()] == [TrialReason.OUTCOME_BROKEN] * 4


def test_an_early_rung_that_nobody_keeps_the_outcomes_at_still_promotes() -> None:
    strategy = {"kind": "hyperband", "min_epochs": 1, "sampler": {"kind": "random"}}
    study = a_limited_study(["validation/loss <= 0.5"], trials=9, epochs=9, strategy=strategy)
    history = simulate(study, accuracy, measure=lambda _, report: {"validation/loss": 1.0 if report < 3 else 0.4}).history
    whole = [trial for trial in history.trials.values() if trial.reports == 9]
    assert whole
    assert all(trial.state is TrialState.COMPLETED for trial in whole)
    assert rung_evidence(study, history, 1).measured > 0


def test_the_median_rule_looks_at_values_whether_or_not_they_keep_the_outcomes() -> None:
    strategy = {"kind": "median", "min_trials": 2, "sampler": {"kind": "random"}}
    study = a_limited_study(["validation/loss <= 0.5"], trials=12, strategy=strategy)
    history = simulate(study, accuracy, measure=lambda _, report: {"validation/loss": 1.0 if report < 3 else 0.4}).history
    reasons = {trial.reason for trial in history.trials.values()}
    assert reasons == {TrialReason.EPOCHS_DONE, TrialReason.BELOW_MEDIAN}


def test_of_several_objectives_the_exports_of_the_whole_front_are_kept() -> None:
    study = a_limited_study(
        [],
        trials=12,
        checkpoints={"keep": 1},
        objectives=[
            {"metric": "validation/accuracy", "direction": "maximize"},
            {"metric": "validation/loss", "direction": "minimize"},
        ],
    )  # both grow with dropout: no trial dominates another
    history = simulate(
        study, accuracy, measure=lambda parameters, _: {"validation/loss": as_number(parameters["dropout"])}
    ).history
    assert kept(study, history) == dict.fromkeys(range(12), 3)
    alone = a_limited_study([], trials=12, checkpoints={"keep": 1})
    assert sum(report is not None for report in kept(alone, history).values()) == 1
