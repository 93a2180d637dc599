"""What the API says of the disk: what a study's checkpoints take, and whether a trial's model is there."""

from starlette.testclient import TestClient

from service.domain.stored import Footprint
from tests.api.conftest import World
from tests.builders import NOW

AT = NOW.isoformat().replace("+00:00", "Z")


def test_a_study_says_what_its_checkpoints_take_beside_what_they_may(client: TestClient, world: World) -> None:
    study = world.has_study(checkpoints={"max_total_gb": 0.5})
    assert client.get(f"/v1/studies/{study.id}").json()["storage"] is None
    world.parts.store.footprints.set(study.id, Footprint(600_000_000, NOW, "It is too much.", (3,)))
    storage = client.get(f"/v1/studies/{study.id}").json()["storage"]
    assert storage == {"bytes": 600_000_000, "max_bytes": 500_000_000, "at": AT, "detail": "It is too much.", "missing": [3]}


def test_a_study_without_a_budget_for_its_checkpoints_has_no_limit(client: TestClient, world: World) -> None:
    study = world.has_study()
    world.parts.store.footprints.set(study.id, Footprint(1, NOW))
    assert client.get("/v1/studies").json()["items"][0]["storage"]["max_bytes"] is None


def test_a_trial_says_whether_its_model_can_be_pulled(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    for number, accuracies in enumerate([[0.5], [0.6], []]):
        world.has_trial(study, number, accuracies)
    world.checkpoints.export(study.id, 0)
    said = [client.get(f"/v1/studies/{study.id}/trials/{number}").json()["has_checkpoint"] for number in range(3)]
    assert said == [True, False, False]
    assert [trial["has_checkpoint"] for trial in client.get(f"/v1/studies/{study.id}/trials").json()["items"]] == [None] * 3


def test_the_best_trial_does_not_promise_a_model_that_is_gone(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    assert client.get(f"/v1/studies/{study.id}/best").json()["has_checkpoint"] is False
    world.checkpoints.export(study.id, 0)
    assert client.get(f"/v1/studies/{study.id}/best").json()["has_checkpoint"] is True
    assert client.get(f"/v1/studies/{study.id}/best/checkpoint").status_code == 200
