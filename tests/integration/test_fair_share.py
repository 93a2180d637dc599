"""Studies that share two workers: who comes later starts soon, who stays gets all, and priorities are weights."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from service.api.schemas import AttemptView, StudyView
from service.client import Client
from service.domain.trial import AttemptOutcome, TrialState
from service.domain.waiting import WaitingCause
from tests.running import RunningService, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

_TURNS = 3
"""Whole turns of the slot that two studies share, over which their use of it is measured."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    service = RunningService(tmp_path_factory.mktemp("shares"), TUNEYARD_SHARE_QUANTUM_SECONDS="3").start()
    try:
        with service.client() as client:
            yield client
    finally:
        assert service.stop() == 0


def a_study(client: Client, name: str, priority: int, epoch_seconds: float) -> StudyView:
    """A study that trains nothing, for as long as it may."""
    document: dict[str, Any] = {
        "name": name,
        "priority": priority,
        "trainer": {
            "kind": "simulated",
            "metrics": {"validation/loss": "rate / epoch"},
            "seconds_per_epoch": epoch_seconds,
            "epochs": 1000,
        },
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 50},
        "resources": {"max_concurrent_trials": 2},
    }
    return client.apply(document)


def running(client: Client, study: StudyView) -> int:
    return client.study(study.id).trials.get(TrialState.RUNNING, 0)


def reports(client: Client, study: StudyView) -> float:
    return client.study(study.id).progress.epochs.spent


def attempts(client: Client, study: StudyView) -> list[AttemptView]:
    return [one for trial in client.trials(study.id) for one in client.attempts(study.id, trial.number)]


def used_seconds(client: Client, study: StudyView, since: datetime, until: datetime) -> float:
    """Seconds of a slot that the study used in that time."""
    spans = [(max(one.started_at, since), min(one.ended_at or until, until)) for one in attempts(client, study)]
    return sum(max(0.0, (end - start).total_seconds()) for start, end in spans)


def turns(client: Client, study: StudyView, since: datetime) -> list[datetime]:
    """When the study was given a slot, from that time on."""
    return sorted(one.started_at for one in attempts(client, study) if one.started_at > since)


def _queued(client: Client, study: StudyView) -> int:
    return next(trial.number for trial in client.trials(study.id) if trial.state is TrialState.QUEUED)


def test_two_studies_share_two_workers(client: Client) -> None:
    first = a_study(client, "first", 25, epoch_seconds=1.0)
    wait_until(lambda: running(client, first) == 2 and reports(client, first) >= 2, 120, "the first study does not run")
    posted = datetime.now(UTC)
    second = a_study(client, "second", 25, epoch_seconds=0.5)
    wait_until(lambda: reports(client, second) >= 1, 120, "the second study does not start while the first holds every slot")

    preempted = [one for one in attempts(client, first) if one.outcome is AttemptOutcome.PREEMPTED]
    assert len(preempted) == 1
    assert all(trial.retries == 0 for trial in client.trials(first.id))
    begun = attempts(client, second)[0]
    assert preempted[0].ended_at is not None
    assert posted < preempted[0].ended_at < begun.started_at
    queued = _queued(client, first)
    share, trial = client.study(first.id).waiting, client.trial(first.id, queued).waiting
    assert share is not None
    assert trial is not None
    assert (share.cause, trial.cause) == (WaitingCause.SHARE, WaitingCause.SHARE)
    reported = [one.at for one in client.reports(first.id, queued)]
    assert sum(share.since <= at <= preempted[0].ended_at for at in reported) <= 3, "a slot is given up at the next report"

    client.stop(first.id)
    wait_until(lambda: running(client, second) == 2, 120, "the second study does not get what the first one leaves")
    client.cancel(second.id)
    client.wait(second.id)


@pytest.mark.slow
def test_priorities_are_weights(client: Client) -> None:
    light = a_study(client, "light", 25, epoch_seconds=0.5)
    wait_until(lambda: running(client, light) == 2, 120, "the first study does not run")
    heavy = a_study(client, "heavy", 75, epoch_seconds=0.5)
    wait_until(lambda: reports(client, heavy) >= 1, 120, "the second study does not start")
    begun = datetime.now(UTC)
    # The second study is owed what it could not use while its driver started: turns are even once that is paid.
    wait_until(lambda: len(turns(client, light, begun)) > _TURNS, 300, "the slot between them does not go round")
    since, *_, until = turns(client, light, begun)[: _TURNS + 1]
    more, less = (used_seconds(client, study, since, until) for study in (heavy, light))
    assert more / (more + less) == pytest.approx(0.75, abs=0.1)
    for study in (light, heavy):
        client.cancel(study.id)
