from starlette.testclient import TestClient

from search_spaces.presets import presets
from service.api.presets import PresetsView, PresetView
from tests.builders import a_document

TYPE = "urn:tuneyard:problem:"


def test_all_presets_are_listed(client: TestClient) -> None:
    listed = PresetsView.model_validate_json(client.get("/v1/presets").content)
    assert [view.name for view in listed.presets] == list(presets())


def test_a_preset_is_answered_with_its_sources(client: TestClient) -> None:
    answer = client.get("/v1/presets/causal-lm/lora")
    assert PresetView.model_validate_json(answer.content) == PresetView.of(presets()["causal-lm/lora"])
    assert answer.json()["sources"]["lora.rank"] == ["Dettmers et al. 2023 (QLoRA), appendix A.1"]


def test_a_preset_that_is_not_there_is_not_found(client: TestClient) -> None:
    answer = client.get("/v1/presets/causal-lm/juggling")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "not-found")
    assert "GET /v1/presets" in answer.json()["detail"]


def test_a_stranger_is_told_nothing(stranger: TestClient) -> None:
    assert stranger.get("/v1/presets").status_code == 401


def test_a_study_may_name_a_preset_and_is_answered_with_what_it_holds(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=a_document(space={"preset": "text-classification/frozen"}))
    assert answer.status_code == 201
    assert set(answer.json()["definition"]["space"]) == {"learning_rate", "batch_size", "weight_decay"}
    assert answer.json()["definition"]["trainer"]["frozen_layers"] == "all"
