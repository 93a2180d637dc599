from typing import Any

import pytest
from starlette.testclient import TestClient

from service.domain.ports import Change
from tests.api.conftest import World
from tests.builders import a_trial

TYPE = "urn:tuneyard:problem:"
SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"kind": "categorical", "choices": [16, 32]},
    "optimizer": {"kind": "categorical", "choices": ["adamw", "adafactor"]},
    "weight_decay": {"kind": "float", "low": 0, "high": 0.3, "when": {"optimizer": "adamw"}},
}
GOOD = {"learning_rate": 1e-3, "batch_size": 16, "optimizer": "adafactor"}


def ask(client: TestClient, parameters: Any, study_id: str = "intents-abc123", **headers: str) -> Any:
    return client.post(f"/v1/studies/{study_id}/trials", json={"parameters": parameters}, headers=headers)


def places(answer: Any) -> list[str]:
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-configuration")
    return [violation["pointer"] for violation in answer.json()["violations"]]


def test_what_is_asked_for_waits_for_its_turn_in_order(client: TestClient, world: World) -> None:
    world.has_study()
    answers = [ask(client, {"learning_rate": rate}) for rate in (1e-3, 2e-3)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[1].json() == {
        "study_id": "intents-abc123", "request": 2, "parameters": {"learning_rate": 2e-3}, "at": "2030-01-02T03:04:05Z",
        "place": 2, "trial": None,
    }  # fmt: skip
    assert world.parts.store.trials.history("intents-abc123").requested == ({"learning_rate": 1e-3}, {"learning_rate": 2e-3})
    events = world.parts.store.events.after("intents-abc123", 0)
    assert [event.kind for event in events][1:] == ["trial.requested"] * 2


def test_what_has_begun_waits_no_longer(client: TestClient, world: World) -> None:
    study = world.has_study()
    ask(client, {"learning_rate": 1e-3}, **{"Idempotency-Key": "one"})
    world.has_trial(study, 0)
    assert ask(client, {"learning_rate": 2e-3}).json()["place"] == 1
    again = ask(client, {"learning_rate": 1e-3}, **{"Idempotency-Key": "one"}).json()
    assert (again["request"], again["place"], again["trial"]) == (1, 0, 0)


def test_yaml_asks_too(client: TestClient, world: World) -> None:
    world.has_study()
    answer = client.post("/v1/studies/intents-abc123/trials", content=b"parameters: {learning_rate: 1e-3}")
    assert (answer.status_code, answer.json()["parameters"]) == (202, {"learning_rate": 1e-3})


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"learning_rate": 1}, "/parameters/learning_rate"),
        ({"learning_rate": "1e-3"}, "/parameters/learning_rate"),
        ({"batch_size": 17}, "/parameters/batch_size"),
        ({"dropout": 0.1}, "/parameters/dropout"),
        ({"weight_decay": 0.1}, "/parameters/weight_decay"),
        ({"optimizer": "adamw"}, "/parameters"),
    ],
)
def test_what_the_space_does_not_hold_is_refused_where_it_is(
    client: TestClient, world: World, changes: dict[str, Any], place: str
) -> None:
    world.has_study(space=SPACE)
    assert places(ask(client, {**GOOD, **changes})) == [place]
    assert ask(client, GOOD).status_code == 202


def test_a_constraint_that_is_not_met_is_named(client: TestClient, world: World) -> None:
    world.has_study(space=SPACE, constraints=["learning_rate * batch_size <= 0.1"])
    answer = ask(client, {**GOOD, "learning_rate": 1e-2})
    assert places(answer) == ["/parameters"]
    assert "`learning_rate * batch_size <= 0.1`" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "place"), [({}, "/parameters"), ({"parameters": {}, "x": 1}, "/x"), ({"parameters": []}, "/parameters"), ([], "")]
)
def test_a_body_of_another_form_is_refused(client: TestClient, world: World, body: Any, place: str) -> None:
    world.has_study()
    assert places(client.post("/v1/studies/intents-abc123/trials", json=body)) == [place]


def test_what_was_tried_or_asked_for_is_refused(client: TestClient, world: World) -> None:
    study = world.has_study()
    world.has_trial(study, 0)
    ask(client, {"learning_rate": 2e-3})
    for rate, said in ((1e-3, "Trial 0"), (2e-3, "wait for their turn")):
        answer = ask(client, {"learning_rate": rate})
        assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "configuration-known")
        assert said in answer.json()["detail"]


def test_a_study_that_has_ended_tries_nothing_more(client: TestClient, world: World) -> None:
    world.ends(world.runs(world.has_study()))
    answer = ask(client, {"learning_rate": 2e-3})
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "study-ended")


def test_a_study_that_is_not_there_is_not_found(client: TestClient) -> None:
    assert ask(client, {"learning_rate": 2e-3}, "no-such").status_code == 404


def test_the_same_key_asks_once_and_means_one_body(client: TestClient, world: World) -> None:
    world.has_study()
    first, again, other = (ask(client, {"learning_rate": rate}, **{"Idempotency-Key": "k"}) for rate in (1e-3, 1e-3, 2e-3))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert (other.status_code, other.json()["type"]) == (409, TYPE + "idempotency-conflict")
    assert len(world.parts.store.trials.requests("intents-abc123")) == 1


def test_equal_numbers_are_one_configuration(client: TestClient, world: World) -> None:
    study = world.has_study(space={"dropout": {"kind": "float", "low": 0, "high": 0.5}})
    world.has_trial(study, 0)
    world.parts.store.trials.record("driver", [Change(a_trial(1, parameters={"dropout": 0.0}))])
    assert ask(client, {"dropout": 0}).status_code == 409
