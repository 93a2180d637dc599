"""Trials that share a GPU by what they need of it. The GPU is Ray's word only, and its memory is simulated."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pytest

from service.api.schemas import AttemptView, StudyView
from service.client import Client
from service.domain.trial import AttemptOutcome, TrialReason, TrialState
from tests.running import RunningService, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    service = RunningService(tmp_path_factory.mktemp("packing"), TUNEYARD_CPUS="4", TUNEYARD_GPUS="1").start()
    try:
        with service.client() as client:
            yield client
    finally:
        assert service.stop() == 0


def a_search(client: Client, name: str, widths: Sequence[float], epochs: int) -> StudyView:
    """A study of trials that take `width` of the ten gigabytes that their GPU has, once it is at its end."""
    document: dict[str, Any] = {
        "name": name,
        "trainer": {
            "kind": "simulated",
            "metrics": {"validation/loss": "width / epoch"},
            "seconds_per_epoch": 0.5,
            "epochs": epochs,
            "gpu_memory": {"peak_megabytes": "width * 1000", "total_megabytes": 10_000},
        },
        "space": {"values.width": {"kind": "float", "low": 1.0, "high": 20.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "initial": [{"values.width": width} for width in widths],
        "budget": {"trials": len(widths), "gpu_hours": 1},
        "resources": {"gpus_per_trial": "auto", "max_concurrent_trials": 4},
    }
    study = client.apply(document)
    wait_until(lambda: client.study(study.id).state.is_end, 200, f"{name} does not end")
    return client.study(study.id)


def attempts(client: Client, study: StudyView) -> list[AttemptView]:
    return [one for trial in client.trials(study.id) for one in client.attempts(study.id, trial.number)]


def most_at_once(tried: Sequence[AttemptView]) -> int:
    def running(at: datetime) -> int:
        return sum(one.started_at <= at and (one.ended_at is None or at < one.ended_at) for one in tried)

    return max(running(one.started_at) for one in tried)


def test_as_many_trials_share_a_gpu_as_its_memory_holds(client: Client) -> None:
    study = a_search(client, "alike", [2.0, 2.05, 2.1, 2.15, 2.2, 2.25, 2.12, 2.18], epochs=4)
    tried = attempts(client, study)

    assert study.trials == {TrialState.COMPLETED: 8}
    assert study.trials_per_gpu == 3  # of 9 GB, taken to need 2.7 GB each
    assert {one.gpus for one in tried} == {1.0, 0.3333}
    assert most_at_once([one for one in tried if one.gpus == 1.0]) == 1
    assert most_at_once([one for one in tried if one.gpus < 1.0]) == 3
    assert {one.outcome for one in tried} == {AttemptOutcome.DONE, AttemptOutcome.PREEMPTED}
    seconds = sum(trial.gpu_seconds for trial in client.trials(study.id))
    assert study.progress.gpu_hours.spent == pytest.approx(seconds / 3600)
    assert 2 * 0.5 < seconds < 8 * 4 * 0.5 * 2  # six trials were charged for a third of their time


def test_a_trial_that_needs_more_than_its_neighbours_leave_is_tried_again_beside_fewer(client: Client) -> None:
    study = a_search(client, "unlike", [2.0, 2.1, 2.05, 8.5, 2.15, 12.0, 2.2], epochs=2)
    trials, tried = client.trials(study.id), attempts(client, study)

    assert study.trials_per_gpu == 1
    assert AttemptOutcome.CROWDED in {one.outcome for one in tried}
    assert all(one.gpus < 1 for one in tried if one.outcome is AttemptOutcome.CROWDED)
    ends = {trial.parameters["values.width"]: (trial.state, trial.reason) for trial in trials}
    assert ends.pop(12.0) == (TrialState.INFEASIBLE, TrialReason.OUT_OF_MEMORY)
    assert {state for state, _ in ends.values()} == {TrialState.COMPLETED}
