"""The main job over HTTP: each strategy on the real trainer, on real workers, to the pulled checkpoint."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from service.api.schemas import StudyView
from service.client import Client
from service.domain.study import StudyReason, StudyState
from service.domain.trial import AttemptOutcome, TrialReason, TrialState
from tests.integration.agreement import Finished, check_checkpoint, check_mlflow, check_side_by_side, check_store, finished
from tests.running import RunningService, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(700)]

_LEARNING_RATE = {"kind": "float", "low": 1e-4, "high": 1e-2, "log": True}


def a_study(service: RunningService, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": "intents",
        "trainer": {
            "kind": "text-classification",
            "model": service.model,
            "data": {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"},
            "epochs": 2,
            "max_length": 32,
        },
        "space": {"learning_rate": _LEARNING_RATE, "batch_size": {"kind": "categorical", "choices": [8, 16]}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "resources": {"max_concurrent_trials": 2},
    }
    return {**document, **changes}


def run_to_end(client: Client, document: dict[str, Any]) -> Finished:
    return finished(client, client.wait(client.apply(document).id, timeout=600))


def check(service: RunningService, client: Client, found: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (found.study.state, found.study.detail) == (StudyState.COMPLETED, None)
    check_store(found)
    check_side_by_side(found)
    check_mlflow(service, found, monkeypatch)
    check_checkpoint(client, found, service.rows / "validation.csv", tmp_path / "best")


def test_grid(service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = {
        "learning_rate": {**_LEARNING_RATE, "grid": [1e-4, 1e-3, 1e-2]},
        "frozen_layers": {"kind": "int", "low": 0, "high": 1},
    }
    document = a_study(service, name="grid", strategy={"kind": "grid"}, space=space)
    document["trainer"]["epochs"] = 4  # where all are over in a moment, one worker has done them before the other one is there
    found = run_to_end(client, document)
    check(service, client, found, tmp_path, monkeypatch)
    assert found.study.reason is StudyReason.SPACE_EXHAUSTED
    tried = {(trial.parameters["learning_rate"], trial.parameters["frozen_layers"]) for trial in found.trials}
    assert tried == {(rate, layers) for rate in (1e-4, 1e-3, 1e-2) for layers in (0, 1)}
    assert len(found.trials) == 6


@pytest.mark.slow
def test_random(service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = a_study(service, name="random", strategy={"kind": "random"}, budget={"trials": 5})
    document["trainer"]["epochs"] = 4  # as above
    found = run_to_end(client, document)
    check(service, client, found, tmp_path, monkeypatch)
    assert found.study.reason is StudyReason.BUDGET_SPENT
    assert len({trial.parameters["learning_rate"] for trial in found.trials}) == 5


@pytest.mark.parametrize("kind", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_bayesian(service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    strategy = {"kind": "bayesian", "sampler": {"kind": kind, "startup_trials": 2}}
    document = a_study(service, name=kind, strategy=strategy, budget={"trials": 5})
    document["trainer"]["epochs"] = 4  # as above
    found = run_to_end(client, document)
    check(service, client, found, tmp_path, monkeypatch)
    assert len(found.trials) == 5


def test_hyperband_whose_driver_is_killed(
    service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = a_study(service, name="hyperband", strategy={"kind": "hyperband", "reduction_factor": 3})
    document["trainer"]["epochs"] = 9
    study = client.apply(document)
    killed = kill_driver_after(service, client, study, reports=6)
    found = finished(client, client.wait(study.id, timeout=600))
    check(service, client, found, tmp_path, monkeypatch)
    assert service.home.joinpath("logs", "drivers", f"{study.id}.log").exists()
    lost = [attempt for attempts in found.attempts.values() for attempt in attempts if attempt.outcome is AttemptOutcome.LOST]
    assert killed
    assert lost, "the driver was killed while attempts ran"
    check_rungs(found)


def check_rungs(found: Finished) -> None:
    """One cycle of Hyperband with R=9 and factor 3 (Li et al. 2018, table 1): sizes and reports of all its rungs."""
    reports: dict[int, list[int]] = {}
    for trial in found.trials:
        reports.setdefault(trial.bracket, []).append(trial.reports)
    assert {bracket: sorted(each) for bracket, each in reports.items()} == {
        0: [1] * 6 + [3] * 2 + [9],
        1: [3] * 4 + [9],
        2: [9] * 3,
    }
    for trial in found.trials:
        went_to_the_top = trial.reports == 9
        assert (trial.state, trial.reason) == (
            (TrialState.COMPLETED, TrialReason.EPOCHS_DONE) if went_to_the_top else (TrialState.PRUNED, TrialReason.RUNG_CUT)
        )
    metric = found.study.definition.objective.metric
    for report in (1, 3):
        at_rung = [
            (max(each.metrics[metric] or 0 for each in found.reports[trial.number][:report]), trial.reports)
            for trial in found.trials
            if trial.bracket == 0 and trial.reports >= report
        ]
        stopped_there = [value for value, reached in at_rung if reached == report]
        went_on = [value for value, reached in at_rung if reached > report]
        assert min(went_on) >= max(stopped_there)


def kill_driver_after(service: RunningService, client: Client, study: StudyView, reports: int) -> int:
    """Kill the study's driver, as the kernel would, once so many reports have come; its process id."""

    def has_come_far() -> bool:
        now = client.study(study.id)
        assert not now.state.is_end, "the study was over before its driver could be killed"
        return now.progress.epochs.spent >= reports and now.trials.get(TrialState.RUNNING, 0) > 0

    wait_until(has_come_far, 120, "the study did not get going")
    pid = service.driver_pid(study.id)
    os.kill(pid, signal.SIGKILL)
    return pid


@pytest.mark.slow
def test_asynchronous_hyperband(service: RunningService, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = {"kind": "hyperband", "mode": "async", "reduction_factor": 2, "sampler": {"kind": "tpe", "startup_trials": 4}}
    document = a_study(service, name="async", strategy=strategy, budget={"trials": 8})
    document["trainer"]["epochs"] = 4
    found = run_to_end(client, document)
    assert found.study.state is StudyState.COMPLETED
    check_store(found)
    check_side_by_side(found, with_other_rungs=True)
    check_mlflow(service, found, monkeypatch)
    check_checkpoint(client, found, service.rows / "validation.csv", tmp_path / "best")
    assert {trial.reports for trial in found.trials} <= {1, 2, 4}
    assert max(trial.reports for trial in found.trials) == 4
    assert any(trial.state is TrialState.PRUNED for trial in found.trials)
