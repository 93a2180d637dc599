from typing import Any

from starlette.testclient import TestClient

from tests.api.conftest import World
from tests.builders import a_document

TYPE = "urn:tuneyard:problem:"


def post(client: TestClient, **changes: Any) -> Any:
    return client.post("/v1/studies", json=a_document(**changes))


def test_a_study_knows_the_trials_of_the_studies_it_starts_from_and_says_so(client: TestClient, world: World) -> None:
    old = world.runs(world.has_study("older-def456"))
    world.has_trial(old, 0, [0.5, 0.9, 0.8])
    world.has_trial(old, 1)
    view = post(client, warm_start=["older-def456"]).json()
    assert view["warm_start"] == {"carried_over": 1, "left_out": 1, "because": {"no_value": 1}}
    (known,) = world.parts.store.trials.history(view["id"]).prior
    assert (known.study_id, known.number, known.values, known.is_whole) == ("older-def456", 0, (0.5, 0.9, 0.8), False)
    assert client.get(f"/v1/studies/{view['id']}").json()["warm_start"] == view["warm_start"]


def test_what_a_study_knows_stays_when_the_old_one_is_deleted(client: TestClient, world: World) -> None:
    old = world.runs(world.has_study("older-def456"))
    world.has_trial(old, 0, [0.5])
    view = post(client, warm_start=["older-def456"]).json()
    world.ends(old)
    assert client.delete("/v1/studies/older-def456").status_code == 200
    assert client.get(f"/v1/studies/{view['id']}").json() == view
    assert len(world.parts.store.trials.history(view["id"]).prior) == 1


def test_a_study_that_names_no_other_knows_none(client: TestClient) -> None:
    assert post(client).json()["warm_start"] is None


def test_studies_that_can_tell_nothing_are_refused_where_they_stand(client: TestClient, world: World) -> None:
    world.has_study("good")
    world.has_study("losses", objective={"metric": "validation/loss", "direction": "minimize"})
    world.has_study("turned", objective={"metric": "validation/accuracy", "direction": "minimize"})
    answer = post(client, warm_start=["good", "losses", "no-such", "turned"])
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-definition")
    violations = {one["pointer"]: one["detail"] for one in answer.json()["violations"]}
    assert list(violations) == ["/warm_start/1", "/warm_start/2", "/warm_start/3"]
    assert violations["/warm_start/2"] == "there is no study 'no-such': name one that there is, or take it out"
    assert "`validation/loss`" in violations["/warm_start/1"]
    assert [study["id"] for study in client.get("/v1/studies?name=intents").json()["items"]] == ["turned", "losses", "good"]


def test_a_study_is_named_once(client: TestClient, world: World) -> None:
    world.has_study("good")
    violations = post(client, warm_start=["good", "good"]).json()["violations"]
    assert [one["pointer"] for one in violations] == ["/warm_start"]


def test_the_plan_of_a_study_says_why(client: TestClient) -> None:
    chosen, named = (post(client, strategy={"kind": kind}).json()["plan"] for kind in ("auto", "random"))
    assert chosen["strategy"]["kind"] != "auto"
    assert chosen["reason"].endswith(".")
    assert named == {"strategy": {"kind": "random"}, "reason": None}
