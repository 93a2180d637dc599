"""What the API says of studies that were deleted."""

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from service.domain.deletion import Forgotten
from service.domain.errors import StorageAway
from tests.api.conftest import MODEL, World, client_of, with_parts
from tests.builders import NOW


def deleted(client: TestClient, study_id: str) -> dict[str, object]:
    answer = client.delete(f"/v1/studies/{study_id}", headers={"Tuneyard-User": "ada"})
    assert answer.status_code == 200
    told: dict[str, object] = answer.json()
    return told


def test_a_deletion_says_what_was_removed(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    for number, accuracies in enumerate([[0.5], [0.6, 0.7]]):
        world.has_trial(study, number, accuracies)
    world.checkpoints.export(study.id, 1, 2)
    world.ends(study)
    events = len(world.parts.store.events.after(study.id, 0))
    weights = {"files": len(MODEL), "bytes": sum(map(len, MODEL.values()))}
    told = deleted(client, study.id)
    assert [told[key] for key in ("study_id", "name", "by")] == [study.id, "intents", "ada"]
    assert [told[key] for key in ("trials", "reports", "events")] == [2, 3, events]
    assert (told["checkpoints"], told["prepared"]) == (weights, {"files": 0, "bytes": 0})
    assert told["mlflow"] is None, "the mirror removes that, and has not run"
    assert client.get("/v1/deletions").json() == {"items": [told]}


def test_prepared_rows_that_a_crash_left_are_deleted_too(world: World, tmp_path: Path) -> None:
    study = world.ends(world.runs(world.has_study()))
    settings = world.parts.settings.model_copy(update={"home": tmp_path})
    left = settings.layout.cache / "prepared" / study.id / "rows"
    left.mkdir(parents=True)
    (left / "train.jsonl").write_bytes(b"12345")
    told = deleted(client_of(with_parts(world, settings=settings)), study.id)
    assert told["prepared"] == {"files": 1, "bytes": 5}
    assert not left.parent.exists()


def test_what_mlflow_removed_later_is_told_later(client: TestClient, world: World) -> None:
    for study_id in ("first-abc123", "second-abc123"):
        study = world.ends(world.runs(world.has_study(study_id)))
        deleted(client, study.id)
    world.parts.store.mirror.set_forgotten("first-abc123", Forgotten("7", 3, registered_model=True), NOW)
    told = {one["study_id"]: one["mlflow"] for one in client.get("/v1/deletions").json()["items"]}
    removed = {"experiment": "7", "runs": 3, "registered_model": True, "at": NOW.isoformat().replace("+00:00", "Z")}
    assert told == {"first-abc123": removed, "second-abc123": None}


def test_a_second_deletion_is_not_found_and_changes_nothing(client: TestClient, world: World) -> None:
    study = world.ends(world.runs(world.has_study()))
    told = deleted(client, study.id)
    assert client.delete(f"/v1/studies/{study.id}").status_code == 404
    assert client.get("/v1/deletions").json()["items"] == [told]


def test_a_study_is_deleted_though_its_checkpoints_can_only_be_later(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(study_id: str) -> None:
        raise StorageAway("s3://models/tuneyard", "no answer", "nobody listens")

    study = world.ends(world.runs(world.has_study()))
    monkeypatch.setattr(world.checkpoints, "delete", away)
    assert deleted(client, study.id)["checkpoints"] == {"files": 0, "bytes": 0}
    assert client.get(f"/v1/studies/{study.id}").status_code == 404
    assert world.parts.store.mirror.deleted() == [study.id], "who tidies MLflow tries it again"
