"""`GET .../refine` and `POST ...:fork`."""

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.schemas import StudyView
from service.api.step_schemas import RefinementView
from service.domain.errors import InvalidDefinition, NotReady, Violation
from service.domain.ports import Change
from service.domain.study import Study, StudyReason
from tests.analysed import an_analysis
from tests.api.conftest import World
from tests.builders import NOW, a_report

PLACE = "/v1/studies/intents-abc123"


def searched(world: World, trials: int = 12) -> Study:
    """A study whose best learning rates lie around 1e-3."""
    study = world.runs(world.has_study())
    for number in range(trials):
        rate = 10 ** (-5 + 3 * number / max(1, trials - 1))
        trial = world.has_trial(study, number)
        begun = replace(trial, parameters={"learning_rate": rate}).started(NOW)
        report = a_report(1, 1 - abs(number - 8) / 20)
        world.parts.store.trials.record("driver", [Change(begun)])
        world.parts.store.trials.record("driver", [Change(begun.reported(report, study.definition.objective, 0), report=report)])
    world.analyst.analyses[study.id] = replace(an_analysis(), importance=replace(an_analysis().importance, report=1))
    return study


def fork(client: TestClient, body: Any, status: int = 201, key: str | None = None) -> dict[str, Any]:
    answer = client.post(f"{PLACE}:fork", json=body, headers={"Idempotency-Key": key} if key else {})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_refinement_names_every_parameter_with_a_sentence(client: TestClient, world: World) -> None:
    searched(world)
    answer = client.get(f"{PLACE}/refine")
    assert answer.status_code == 200, answer.text
    found = RefinementView.model_validate_json(answer.content)
    assert (found.trials, found.report, found.good[0], len(found.good)) == (12, 1, 8, 5)
    (change,) = found.changes
    assert (change.parameter, change.action) == ("learning_rate", "narrowed")
    assert change.sentence.startswith("`learning_rate` narrows from [1e-05, 0.01] to [")
    assert found.space == {"learning_rate": change.after}


def test_a_range_that_the_catalog_refuses_is_not_extended(client: TestClient, world: World) -> None:
    searched(world, 12)
    for number in range(12, 30):  # all of these at the upper edge, and better
        study = world.parts.store.studies.get("intents-abc123")
        begun = replace(world.has_trial(study, number), parameters={"learning_rate": 1e-2 - number * 1e-9}).started(NOW)
        report = a_report(1, 2.0)
        world.parts.store.trials.record("driver", [Change(begun)])
        world.parts.store.trials.record("driver", [Change(begun.reported(report, study.definition.objective, 0), report=report)])
    assert client.get(f"{PLACE}/refine").json()["changes"][0]["action"] == "extended"
    world.catalog.refusal = InvalidDefinition([Violation("/space/learning_rate", "no")])
    assert client.get(f"{PLACE}/refine").json()["changes"][0]["action"] == "narrowed"


def test_too_few_trials_are_a_conflict(client: TestClient, world: World) -> None:
    searched(world, 9)
    problem = client.get(f"{PLACE}/refine").json()
    assert (problem["status"], problem["type"]) == (409, "urn:tuneyard:problem:too-few-trials")
    assert "has 9" in problem["detail"]
    fork(client, {"refine": True}, status=409)


def test_a_study_that_cannot_be_analysed_now_cannot_be_refined(client: TestClient, world: World) -> None:
    searched(world)
    world.analyst.refusal = NotReady("Another study is being analysed: ask again in a few seconds.")
    assert client.get(f"{PLACE}/refine").status_code == 503


@pytest.mark.parametrize("reason", [None, StudyReason.BUDGET_SPENT, StudyReason.CANCEL_REQUESTED, StudyReason.DRIVER_FAILED])
def test_a_study_is_forked_in_any_state_and_its_trials_are_known(
    client: TestClient, world: World, reason: StudyReason | None
) -> None:
    study = searched(world)
    if reason is not None:
        world.ends(study, reason)
    before = world.parts.store.studies.get(study.id)
    answer = client.post(f"{PLACE}:fork", json={"changes": {"budget": {"trials": 50}}})
    found = StudyView.model_validate_json(answer.content)
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v1/studies/{found.id}")
    assert (found.state, found.name, found.definition.budget.trials) == ("queued", "intents-fork", 50)
    assert found.definition.warm_start == (study.id,)
    assert found.warm_start is not None
    assert (found.warm_start.carried_over, found.warm_start.left_out) == (12, 0)
    assert len(world.parts.store.trials.history(found.id).prior) == 12
    assert world.parts.store.studies.get(study.id) == before


def test_a_fork_without_a_body_is_the_same_search_again(client: TestClient, world: World) -> None:
    study = searched(world)
    answer = client.post(f"{PLACE}:fork")
    assert answer.status_code == 201
    assert StudyView.model_validate_json(answer.content).definition.space == study.definition.space


def test_a_refined_fork_searches_the_narrower_space_and_the_changes_come_after(client: TestClient, world: World) -> None:
    searched(world)
    narrow = client.get(f"{PLACE}/refine").json()["space"]["learning_rate"]
    found = fork(client, {"refine": True, "changes": {"space": {"learning_rate": {"high": 0.009}}}})
    parameter = found["definition"]["space"]["learning_rate"]
    assert (parameter["low"], parameter["high"]) == (narrow["low"], 0.009)
    assert found["warm_start"]["carried_over"] > 0


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"changes": {"budget": {"trials": 0}}}, "/changes/budget/trials"),
        ({"changes": {"space": {"speed": {"kind": "int", "low": 0, "high": 1}}}}, "/changes/space/speed"),
        ({"changes": {"warm_start": ["nothing-abc123"]}}, "/changes/warm_start/0"),
        ({"changes": {"surprise": 1}}, "/changes/surprise"),
        ({"changes": [1]}, "/changes"),
        ({"refine": "yes"}, "/refine"),
        ({"budget": {"trials": 5}}, "/budget"),
    ],
)
def test_what_cannot_be_is_named_by_its_place_in_what_was_sent(
    client: TestClient, world: World, body: dict[str, Any], place: str
) -> None:
    world.has_study()
    problem = fork(client, body, status=422)
    assert place in [violation["pointer"] for violation in problem["violations"]]


def test_a_model_that_is_gone_is_named_in_the_changes(client: TestClient, world: World) -> None:
    world.has_study()
    world.catalog.refusal = InvalidDefinition([Violation("/trainer/model", "is nowhere: name another")])
    (violation,) = fork(client, {}, status=422)["violations"]
    assert violation["pointer"] == "/changes/trainer/model"
    assert "so it is in 'intents-abc123'" in violation["detail"]
    (violation,) = fork(client, {"changes": {"trainer": {"model": "gone"}}}, status=422)["violations"]
    assert violation["detail"] == "is nowhere: name another"


def test_the_same_fork_asked_for_twice_is_one(client: TestClient, world: World) -> None:
    world.has_study()
    first, second = fork(client, {}, key="once"), fork(client, {}, key="once")
    assert first["id"] == second["id"]
    assert fork(client, {"changes": {"seed": 4}}, status=409, key="once")["type"].endswith("idempotency-conflict")
    assert fork(client, {})["id"] != first["id"]


def test_a_study_that_is_not_there_cannot_be_forked(client: TestClient) -> None:
    for answer in (client.post("/v1/studies/nothing-abc123:fork", json={}), client.get("/v1/studies/nothing-abc123/refine")):
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:tuneyard:problem:study-not-found")
