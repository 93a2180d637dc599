"""Why studies and trials wait, as the API answers it."""

from datetime import timedelta

from fastapi.testclient import TestClient

from service.domain.ports import Change
from service.domain.share import Share
from service.domain.study import StudyReason
from service.domain.waiting import Waiting, WaitingCause
from tests.api.conftest import World
from tests.builders import NOW

STUDY = "/v1/studies/intents-abc123"
WAITING = Waiting(WaitingCause.QUEUE, "8 studies run, as many as may at once.", NOW + timedelta(seconds=3))


def test_a_study_says_why_it_waits_and_since_when(world: World, client: TestClient) -> None:
    world.has_study()
    assert client.get(STUDY).json()["waiting"]["cause"] == "controller"
    world.parts.store.shares.grant({"intents-abc123": Share(waiting=WAITING)})
    expected = {"cause": "queue", "detail": WAITING.detail, "since": "2030-01-02T03:04:08Z"}
    assert client.get(STUDY).json()["waiting"] == expected
    assert client.get("/v1/studies").json()["items"][0]["waiting"] == expected


def test_a_study_that_has_what_it_can_use_does_not_wait(world: World, client: TestClient) -> None:
    world.runs(world.has_study())
    world.parts.store.shares.grant({"intents-abc123": Share(slots=1)})
    assert client.get(STUDY).json()["waiting"] is None


def test_a_trial_says_why_it_waits(world: World, client: TestClient) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study)
    world.parts.store.shares.grant({study.id: Share(waiting=WAITING)})
    waiting = client.get(f"{STUDY}/trials/0").json()["waiting"]
    assert (waiting["cause"], waiting["detail"]) == ("queue", f"Its study waits: {WAITING.detail}")
    assert client.get(f"{STUDY}/trials").json()["items"][0]["waiting"] is None, "lists leave it out"


def test_a_trial_at_its_rung_says_whom_it_waits_for(world: World, client: TestClient) -> None:
    study = world.has_study(strategy={"kind": "hyperband", "reduction_factor": 3, "min_epochs": 1}, budget={"trials": 3})
    trial = world.has_trial(world.runs(study), 0, [0.5])
    world.parts.store.trials.record("driver", [Change(trial.paused())])
    waiting = client.get(f"{STUDY}/trials/0").json()["waiting"]
    assert waiting["cause"] == "rung"
    assert "2 other trials of its bracket, which have not begun" in waiting["detail"]


def test_a_trial_of_a_paused_study_says_so(world: World, client: TestClient) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study)
    world.parts.store.studies.save(study.pausing(StudyReason.PAUSE_REQUESTED, NOW))
    assert client.get(f"{STUDY}/trials/0").json()["waiting"]["cause"] == "paused"
