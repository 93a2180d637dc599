"""A running study under its user's hands: paused within an epoch, cancelled while it hangs, extended, and a trial stopped."""

import os
import signal
import time
from typing import Any

import psutil
import pytest

from service.client import Client
from service.domain.events import EventKind
from service.domain.study import StudyState
from service.domain.trial import AttemptOutcome, TrialReason, TrialState
from tests.running import RunningService, lives, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


def a_study(name: str, seconds_per_epoch: float | str, trials: int, epochs: int, workers: int = 1) -> dict[str, Any]:
    return {
        "name": name,
        "trainer": {
            "kind": "simulated",
            "epochs": epochs,
            "steps_per_epoch": 50,
            "seconds_per_epoch": seconds_per_epoch,
            "metrics": {"validation/accuracy": "1 - rate / (1 + epoch)"},
            "noise": 0.01,
        },
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 0.9}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": trials},
        "resources": {"max_concurrent_trials": workers},
    }


def reported(client: Client, study_id: str) -> float:
    return client.study(study_id).progress.epochs.spent


def reports_of_each(client: Client, study_id: str) -> list[int]:
    return [trial.reports for trial in client.trials(study_id)]


def worker_of(client: Client, study_id: str, number: int) -> psutil.Process:
    """The process that gave the trial's last report."""
    return psutil.Process(int(client.reports(study_id, number)[-1].worker.rpartition(":")[2]))


def test_a_study_paused_in_the_middle_of_an_epoch_frees_its_workers_and_trains_nothing_twice(client: Client) -> None:
    # One worker may be up some seconds before the other: the first trial is still in its second epoch then.
    study = client.apply(a_study("paused", seconds_per_epoch="0.2 if epoch <= 1 else 10", trials=2, epochs=2, workers=2))
    wait_until(lambda: reports_of_each(client, study.id) == [1, 1], 120, "not both trials are in their second epoch")
    workers = [worker_of(client, study.id, number) for number in range(2)]
    time.sleep(2.0)  # into the second epoch
    begun = time.monotonic()
    assert client.pause(study.id, now=True).state is StudyState.PAUSING
    wait_until(lambda: client.study(study.id).state is StudyState.PAUSED, 60, "the study is not paused")
    wait_until(lambda: not any(map(lives, workers)), 60, "workers are left")
    assert time.monotonic() - begun < 10
    left = list(client.trials(study.id))
    assert [trial.state for trial in left] == [TrialState.QUEUED] * 2
    assert all(2.0 < trial.seconds < 10.0 for trial in left), "what was trained of the second epoch counts"
    client.resume(study.id)
    ended = client.wait(study.id, timeout=120)
    assert ended.state is StudyState.COMPLETED
    for trial in client.trials(study.id):
        assert [attempt.outcome for attempt in client.attempts(study.id, trial.number)] == [
            AttemptOutcome.PAUSED,
            AttemptOutcome.DONE,
        ]
        first, second = client.reports(study.id, trial.number)
        assert (first.attempt, second.attempt, second.step) == (1, 2, 100)
        assert second.seconds < 10.0, "the rest of the epoch alone was left"
        assert trial.seconds < 12.0
    assert ended.progress.wall_clock_seconds.spent < (ended.ended_at - ended.created_at).total_seconds()  # type: ignore[operator]


def test_a_cancelled_study_is_gone_within_seconds_although_its_trainer_hangs(client: Client) -> None:
    study = client.apply(a_study("hanging", seconds_per_epoch="0.1 if epoch <= 1 else 600", trials=1, epochs=3))
    wait_until(lambda: reported(client, study.id) >= 1, 120, "no trial reported")
    worker = worker_of(client, study.id, 0)
    os.kill(worker.pid, signal.SIGSTOP)
    begun = time.monotonic()
    client.cancel(study.id)
    wait_until(lambda: client.study(study.id).state is StudyState.CANCELLED, 60, "the study is not cancelled")
    wait_until(lambda: not lives(worker), 60, "the worker that hangs is left")
    assert time.monotonic() - begun < 10
    assert client.trial(study.id, 0).state is TrialState.CANCELLED


def test_a_study_that_is_cancelled_while_its_driver_dies_is_cancelled(service: RunningService, client: Client) -> None:
    study = client.apply(a_study("orphaned", seconds_per_epoch=600.0, trials=1, epochs=1))
    wait_until(lambda: client.study(study.id).trials.get(TrialState.RUNNING), 120, "no trial runs")
    driver = psutil.Process(service.driver_pid(study.id))
    driver.suspend()  # or it may have ended the study by itself
    client.cancel(study.id)
    driver.kill()
    wait_until(lambda: client.study(study.id).state is StudyState.CANCELLED, 60, "the study is not cancelled")
    assert client.trial(study.id, 0).state is TrialState.CANCELLED


def test_one_trial_is_stopped_and_the_study_extended_after_its_end(service: RunningService, client: Client) -> None:
    study = client.apply(a_study("extended", seconds_per_epoch=0.3, trials=1, epochs=400))
    wait_until(lambda: reported(client, study.id) >= 1, 120, "no trial reported")
    client.stop_trial(study.id, 0)
    assert client.wait(study.id, timeout=120).state is StudyState.COMPLETED
    assert client.trial(study.id, 0).reason is TrialReason.STOP_REQUESTED
    assert client.extend(study.id, {"trials": 2}).state is StudyState.QUEUED
    wait_until(lambda: client.study(study.id).trials.get(TrialState.RUNNING), 120, "the study does not go on")
    os.kill(service.driver_pid(study.id), signal.SIGKILL)
    wait_until(lambda: len(client.attempts(study.id, 1)) > 1, 120, "no other driver took it up")
    client.stop_trial(study.id, 1)
    ended = client.wait(study.id, timeout=120)
    assert (ended.state, ended.definition.budget.trials) == (StudyState.COMPLETED, 2)
    kinds = [(event.kind, event.payload.get("by")) for event in client.events(study.id)]
    assert all(by for kind, by in kinds if kind in {EventKind.STUDY_CREATED, EventKind.STUDY_CHANGED})
