"""`GET .../final`, and what is the best after it."""

from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from service.api.schemas import StudyView, TrialView
from service.api.step_schemas import FinalView
from service.domain.ports import Change
from service.domain.study import Study
from service.domain.trial import Trial, TrialReason
from tests.api.conftest import MODEL, World
from tests.builders import a_report

PLACE = "/v1/studies/intents-abc123"


def has_run(world: World, study: Study, number: int, repeats: int, accuracy: float, test: float | None = None) -> Trial:
    """A run of the final that completed with one report."""
    trial = world.has_trial(study, number)
    store = world.parts.store.trials
    again = replace(trial, repeats=repeats, seed=number, parameters={"learning_rate": 10.0**-repeats / 1e3}).started(
        world.clock.now()
    )
    report = a_report(1, accuracy, seconds=5.0 + repeats)
    if test is not None:
        report = replace(report, metrics={**report.metrics, "test/accuracy": test})
    reported = again.reported(report, study.definition.objective, gpus=0.0)
    store.record("driver", [Change(again), Change(reported, report=report)])
    store.record("driver", [Change(reported.ended(TrialReason.EPOCHS_DONE, world.clock.now()))])
    return store.get(study.id, number)


def a_study_with_final(world: World) -> Study:
    """Trial 1 was the best of the search; trial 0 does better when trained again."""
    study = world.runs(world.has_study(final={"top": 2, "seeds": 2}))
    world.has_trial(study, 0, [0.90])
    world.has_trial(study, 1, [0.99])
    for number, (repeats, accuracy) in enumerate([(1, 0.80), (0, 0.92), (1, 0.81), (0, 0.93)], start=2):
        has_run(world, study, number, repeats, accuracy, test=accuracy - 0.1)
    return study


def test_the_final_is_told_run_by_run_and_decided_at_the_end(client: TestClient, world: World) -> None:
    study = a_study_with_final(world)
    before = FinalView.model_validate_json(client.get(f"{PLACE}/final").content)
    assert (before.winner, before.champion, before.finished) == (None, None, 4)
    assert before.verdict == "4 of at most 4 runs have finished so far."
    world.ends(study)
    final = FinalView.model_validate_json(client.get(f"{PLACE}/final").content)
    first, second = final.finalists
    assert (final.winner, final.champion, first.trial, second.trial) == (0, 5, 0, 1)
    assert first.objective is not None
    assert first.objective.mean == pytest.approx(0.925)
    assert (first.objective.n, first.seconds) == (2, 5.0)
    assert first.tests["test/accuracy"].mean == pytest.approx(0.825)
    assert first.p_value is None
    assert second.p_value == pytest.approx(0.0036, abs=1e-3)
    assert [(run.trial, run.seed, run.state, run.value) for run in first.runs] == [
        (3, 3, "completed", 0.92),
        (5, 5, "completed", 0.93),
    ]
    assert first.runs[0].tests == {"test/accuracy": pytest.approx(0.82)}
    assert first.parameters == {"learning_rate": 1e-3}


def test_the_winners_best_run_is_the_studys_best_trial_after_the_end(client: TestClient, world: World) -> None:
    study = a_study_with_final(world)
    assert TrialView.model_validate_json(client.get(f"{PLACE}/best").content).number == 1
    world.ends(study)
    best = TrialView.model_validate_json(client.get(f"{PLACE}/best").content)
    assert (best.number, best.repeats, best.seed) == (5, 0, 5)
    view = StudyView.model_validate_json(client.get(PLACE).content)
    assert view.best is not None
    assert view.final is not None
    assert (view.best.trial, view.best.repeats, view.final.winner, view.final.finished) == (5, 0, 0, 4)
    assert view.final.verdict.startswith("Trial 0 wins")
    world.checkpoints.export(study.id, 5, files={"config.json": b"{}"})
    world.checkpoints.export(study.id, 1, files=MODEL)
    assert client.get(f"{PLACE}/best/checkpoint").json()["trial"] == 5


def test_the_size_of_the_exported_model_is_told(client: TestClient, world: World) -> None:
    study = world.ends(a_study_with_final(world))
    world.checkpoints.export(study.id, 5, files={"model.safetensors": b"x" * 1000})
    final = FinalView.model_validate_json(client.get(f"{PLACE}/final").content)
    assert [one.bytes for one in final.finalists] == [1000, None]


def test_the_final_counts_neither_as_trials_nor_as_reports_of_the_budget(client: TestClient, world: World) -> None:
    a_study_with_final(world)
    progress = StudyView.model_validate_json(client.get(PLACE).content).progress
    assert (progress.trials.spent, progress.epochs.spent) == (2, 2)


def test_a_final_that_has_not_begun_says_what_is_to_come(client: TestClient, world: World) -> None:
    world.has_study(final={"top": 2, "seeds": 3})
    final = client.get(f"{PLACE}/final").json()
    assert (final["finalists"], final["winner"]) == ([], None)
    assert final["verdict"] == "The search goes on; then its best 2 configurations are trained again under 3 seeds each."


def test_a_study_that_asks_for_none_has_no_final(client: TestClient, world: World) -> None:
    world.has_study()
    answer = client.get(f"{PLACE}/final")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:tuneyard:problem:no-final")
    assert client.get(PLACE).json()["final"] is None
    assert client.get("/v1/studies/nothing-abc123/final").json()["type"] == "urn:tuneyard:problem:study-not-found"
