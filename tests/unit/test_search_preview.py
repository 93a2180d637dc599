"""What a study would do, foreseen."""

import io
import json
import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from search_spaces import Configuration
from service.analysis import previews
from service.analysis.children import Turn
from service.analysis.previews import Previews, preview
from service.domain.definition import StudyDefinition
from service.domain.errors import AnalysisFailed, NotReady
from service.domain.history import History, PriorTrial
from service.domain.preview import Preview
from service.domain.study import Study, StudyState
from service.search import Start, next_action
from service.search.preview import previewed
from tests.builders import NOW, a_definition, as_number

RATE = {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}
FINITE = {"batch_size": {"kind": "categorical", "choices": [8, 16, 32]}, "frozen_layers": {"kind": "int", "low": 0, "high": 3}}


def a_plan(epochs: int = 9, **changes: Any) -> StudyDefinition:
    trainer = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": epochs}
    return a_definition(**{"trainer": trainer, "budget": {"trials": 30}, **changes})


def started(definition: StudyDefinition, prior: tuple[PriorTrial, ...] = ()) -> list[Configuration]:
    """What a driver with ten workers starts before the first report."""
    study = Study("another", definition, NOW, state=StudyState.RUNNING, started_at=NOW)
    history, found = History(prior=prior), list[Configuration]()
    while len(found) < 10:
        action = next_action(study, history, NOW)
        assert isinstance(action, Start)
        found.append(action.parameters)
        history = history.with_trial(action.trial(study.id, NOW).started(NOW))
    return found


@pytest.mark.parametrize("strategy", [{"kind": "random"}, {"kind": "hyperband", "mode": "async"}, {"kind": "bayesian"}], ids=str)
def test_the_first_configurations_are_those_that_the_study_will_start(strategy: dict[str, Any]) -> None:
    definition = a_plan(strategy=strategy)
    found = previewed(definition, (), None)
    assert [one.parameters for one in found.configurations] == started(definition)
    assert all(one.why for one in found.configurations)


def test_what_earlier_studies_tell_is_known_to_the_preview_too() -> None:
    prior = tuple(
        PriorTrial("old-abc123", at, {"learning_rate": 10 ** (-5 + at / 5)}, (1 - abs(at - 10) / 20,), is_whole=True)
        for at in range(15)
    )
    definition = a_plan(1, strategy={"kind": "bayesian", "sampler": {"kind": "tpe"}})
    found = previewed(definition, prior, None)
    assert [one.parameters for one in found.configurations] == started(definition, prior)
    assert found.configurations[0].why.startswith("Proposed by `tpe`, a model of 15 trials")


def test_the_brackets_of_a_synchronous_hyperband_are_its_plan() -> None:
    found = previewed(a_plan(strategy={"kind": "hyperband"}, budget={}), (), None)
    assert [(one.rungs, one.sizes) for one in found.brackets] == [((1, 3, 9), (9, 3, 1)), ((3, 9), (5, 1)), ((9,), (3,))]
    assert (found.trials, found.reports) == (17, 9 + 3 * 2 + 6 + 5 * 3 + 6 + 3 * 9)


def test_an_asynchronous_ladder_shows_how_many_come_to_each_rung() -> None:
    (ladder,) = previewed(a_plan(strategy={"kind": "hyperband", "mode": "async"}), (), None).brackets
    assert ladder.rungs == (1, 3, 9)
    assert ladder.sizes[0] == 30
    assert list(ladder.sizes) == sorted(ladder.sizes, reverse=True)


def test_the_strategy_that_auto_chooses_is_named_with_its_reason() -> None:
    found = previewed(a_plan(strategy={"kind": "auto"}), (), None)
    assert found.strategy["kind"] == "hyperband"
    assert found.reason == a_plan(strategy={"kind": "auto"}).plan.reason


def test_sizes_of_finite_spaces_are_counted() -> None:
    grid = previewed(a_plan(space=FINITE, strategy={"kind": "grid"}, budget={}), (), None)
    assert (grid.space_size, grid.grid_size, grid.trials) == (12, 12, 12)
    endless = previewed(a_plan(), (), None)
    assert (endless.space_size, endless.grid_size) == (None, None)


@pytest.mark.parametrize(("workers", "seconds"), [(1, 30 * 9 * 2.0), (4, 8 * 9 * 2.0), (30, 9 * 2.0)])
def test_time_is_counted_with_as_many_trials_at_once_as_the_study_allows(workers: int, seconds: float) -> None:
    found = previewed(a_plan(resources={"max_concurrent_trials": workers}), (), 2.0)
    assert found.seconds == seconds


def test_without_the_time_of_a_report_there_is_no_time() -> None:
    found = previewed(a_plan(), (), None)
    assert (found.seconds, found.trials, found.reports) == (None, 30, 270)


def test_a_limit_on_time_ends_the_preview_too() -> None:
    found = previewed(a_plan(budget={"trials": 30, "wall_clock": "100s"}), (), 2.0)
    assert (found.trials, found.seconds) == (6, 100)


def test_where_only_time_ends_a_study_and_a_reports_time_is_not_known_that_is_said() -> None:
    found = previewed(a_plan(budget={"wall_clock": "2h"}), (), None)
    assert (found.trials, found.reports, found.seconds, found.final_runs) == (None, None, None, None)
    assert found.notes == ("Only time ends it, and how long a report takes is not known: nor is how many trials fit.",)
    assert len(found.configurations) == 10


def test_a_limit_on_gpu_time_counts_as_one_on_reports() -> None:
    resources = {"gpus_per_trial": 1, "max_concurrent_trials": 2}
    found = previewed(a_plan(budget={"gpu_hours": 0.1}, resources=resources), (), 10.0)
    assert (found.trials, found.reports) == (4, 36)


def test_the_finals_runs_come_on_top_of_trials_and_into_the_time() -> None:
    found = previewed(a_plan(final={"top": 2, "seeds": 3}), (), 1.0)
    assert (found.trials, found.final_runs, found.seconds) == (30, 6, 36 * 9)


def test_constraints_that_are_seldom_met_do_not_make_the_simulation_long() -> None:
    space = {name: {"kind": "float", "low": 1e-6, "high": 0.5} for name in ("learning_rate", "dropout")}
    rare = ["learning_rate < 0.00005", "dropout < 0.35"]
    definition = a_plan(strategy={"kind": "random"}, space=space, constraints=rare, budget={"trials": 200})
    found = previewed(definition, (), None)
    assert (found.trials, len(found.configurations)) == (200, 10)
    assert all(as_number(one.parameters["learning_rate"]) < 5e-5 for one in found.configurations)


def test_a_study_too_long_to_be_simulated_says_so_at_once() -> None:
    found = previewed(a_plan(budget={"trials": 100_000}), (), 1.0)
    assert (found.trials, found.seconds) == (None, None)
    assert "more than" in found.notes[-1]


def test_a_target_is_left_out_and_that_is_said() -> None:
    found = previewed(a_plan(budget={"trials": 30, "target": -5.0}), (), None)
    assert found.trials == 30
    assert found.notes == ("It ends earlier when a trial reaches the target.",)


def test_a_population_whose_trials_do_not_last_for_all_comparisons_is_told_so() -> None:
    few, enough = (previewed(a_plan(strategy={"kind": "pbt"}, budget={"trials": trials}), (), None).notes for trials in (23, 24))
    assert "15 members can be replaced, 2 at each comparison and none after that" in few[0]
    assert not enough


@pytest.mark.parametrize("strategy", [{"kind": "pbt", "population": 4}, {"kind": "median"}, {"kind": "sobol"}], ids=str)
def test_other_strategies_are_foreseen_too(strategy: dict[str, Any]) -> None:
    budget = {} if strategy["kind"] == "pbt" else {"trials": 12}
    found = previewed(a_plan(4, strategy=strategy, budget=budget), (), 1.0)
    assert found.trials
    assert found.seconds
    assert found.configurations


@pytest.fixture
def _a_patient_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a child that lets all else on the machine go first."""
    monkeypatch.setattr(previews, "_SECONDS", 100.0)


@pytest.mark.usefixtures("_a_patient_parent")
def test_a_process_of_its_own_foresees_the_same() -> None:
    prior = (PriorTrial("old-abc123", 0, {"learning_rate": 1e-3}, (0.5, float("nan"), 0.7), is_whole=False),)
    definition = a_plan(strategy={"kind": "hyperband"}, final={"top": 2, "seeds": 2}, space={"learning_rate": RATE})
    found = preview(definition, prior, 2.0)
    here = previewed(definition, prior, 2.0)
    assert found.brackets == here.brackets
    assert [dict(one.parameters) for one in found.configurations] == [dict(one.parameters) for one in here.configurations]
    assert (found.trials, found.reports, found.final_runs, found.seconds) == (
        here.trials,
        here.reports,
        here.final_runs,
        here.seconds,
    )
    assert as_number(found.configurations[0].parameters["learning_rate"]) > 0


@pytest.mark.usefixtures("_a_patient_parent")
def test_a_process_that_fails_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    unreadable = PriorTrial("old-abc123", 0, {}, (), is_whole="no")  # type: ignore[arg-type]  # what another version may hold
    broken = a_plan().model_copy(update={"name": ""})
    with pytest.raises(AnalysisFailed, match="Previewing the study ended with code 1"):
        preview(broken, (unreadable,), None)
    assert "name" in caplog.text


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", ["service.search.preview", "service.analysis.fanova"])
def test_a_child_ends_in_time_and_lets_training_go_first(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    asked: list[tuple[str, int]] = []
    monkeypatch.setattr(signal, "alarm", lambda seconds: asked.append(("alarm", seconds)))
    monkeypatch.setattr(os, "nice", lambda more: asked.append(("nice", more)))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with suppress(json.JSONDecodeError):
        runpy.run_module(module, run_name="__main__")
    assert asked == [("alarm", 60), ("nice", 10)]


def test_one_preview_is_made_at_a_time_and_whoever_waits_too_long_is_told_to_ask_again() -> None:
    begun, finish = threading.Event(), threading.Event()

    def foresee(definition: StudyDefinition, prior: Sequence[PriorTrial], seconds_per_report: float | None) -> Preview:
        begun.set()
        assert finish.wait(60)
        return previewed(definition, prior, seconds_per_report)

    shared = Previews(foresee, Turn("previewed", wait_seconds=0.0))
    asking = threading.Thread(target=shared, args=(a_plan(), (), None))
    asking.start()
    assert begun.wait(60)
    try:
        with pytest.raises(NotReady, match="Another study is being previewed: ask again in a few seconds"):
            shared(a_plan(), (), None)
    finally:
        finish.set()
        asking.join()
    assert shared(a_plan(), (), None).trials == 30
