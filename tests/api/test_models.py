from datetime import UTC, datetime

import pytest
from starlette.testclient import TestClient

from service.api.model_views import CandidatesView, ModelView
from service.domain.base_models import Benchmark, FoundModel, ModelCard, ModelHeader, Place, Probed, ProbeRows
from service.domain.errors import DatasetNotFound, InvalidQuery, NotReady, UnreadableDataset
from tests.api.conftest import World

TYPE = "urn:tuneyard:problem:"
ROWS = "dataset://banking77/train.csv"
ENCODES = frozenset({"text-classification", "token-classification"})


def an_encoder(name: str = "small/encoder", parameters: int = 1_000_000) -> FoundModel:
    header = ModelHeader(
        "bert", ENCODES, layers=2, longest=512, hidden_size=64, heads=2, vocabulary=1000, parameters=parameters,
        weights_bytes=4 * parameters, dtype="F32",
    )  # fmt: skip
    card = ModelCard(
        licence="mit", datasets=("wikipedia",), benchmarks=(Benchmark("STS", "STSb", "spearman", 0.8),), characters=1200,
        updated_at=datetime(2024, 5, 6, tzinfo=UTC),
    )  # fmt: skip
    return FoundModel(name, Place.CACHE, header, card)


def a_decoder(name: str = "small/decoder") -> FoundModel:
    return FoundModel(name, Place.FOLDER, ModelHeader("gpt2", frozenset({"causal-lm"}), parameters=10))


def listed(client: TestClient, **query: object) -> CandidatesView:
    answer = client.get("/v1/models", params=query)  # type: ignore[arg-type]  # what a query can hold
    assert answer.status_code == 200, answer.text
    return CandidatesView.model_validate_json(answer.content)


def test_a_model_tells_what_its_files_and_its_card_say(client: TestClient, world: World) -> None:
    world.models.found = [an_encoder()]
    view = ModelView.model_validate_json(client.get("/v1/models/small/encoder").content)
    assert (view.name, view.place, view.tasks) == ("small/encoder", "cache", ["text-classification", "token-classification"])
    assert (view.parameters, view.bytes, view.layers, view.hidden_size, view.longest) == (1_000_000, 4_000_000, 2, 64, 512)
    assert (view.licence, view.datasets, view.documentation) == ("mit", ["wikipedia"], 1200)
    assert view.benchmarks[0].value == 0.8


def test_a_name_may_come_with_its_slashes_escaped(client: TestClient, world: World) -> None:
    world.models.found = [an_encoder("builtin://x/y")]
    assert client.get("/v1/models/builtin%3A%2F%2Fx%2Fy").json()["name"] == "builtin://x/y"


def test_the_estimate_of_memory_follows_batch_length_and_method(client: TestClient, world: World) -> None:
    world.models.found = [an_encoder()]

    def memory(**query: object) -> dict[str, int]:
        found: dict[str, int] = client.get("/v1/models/small/encoder", params=query).json()["memory"]  # type: ignore[arg-type]
        return found

    full, lora, frozen = memory(), memory(method="lora"), memory(method="frozen")
    assert full["total"] == full["weights"] + full["gradients"] + full["optimizer"] + full["activations"]
    assert memory(batch_size=64)["activations"] == 2 * full["activations"]
    assert memory(max_length=256)["activations"] > 2 * full["activations"]
    assert full["total"] > lora["total"] > frozen["total"]
    assert (lora["weights"], lora["activations"]) == (full["weights"], full["activations"])


def test_a_model_that_nobody_has_is_not_found(client: TestClient) -> None:
    answer = client.get("/v1/models/no/such")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "not-found")
    assert "'no/such' is not on this machine" in answer.json()["detail"]


@pytest.mark.parametrize("query", ["batch_size=0", "max_length=x", "method=all", "batch_size=5000"])
def test_an_estimate_of_nothing_sensible_is_refused(client: TestClient, world: World, query: str) -> None:
    world.models.found = [an_encoder()]
    answer = client.get(f"/v1/models/small/encoder?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-parameters")


@pytest.mark.parametrize("name", ["", "%00", "..%2F..%2Fetc", "a" * 3000, "%F0%9F%98%80", "~root", ".", "builtin://"])
def test_no_name_breaks_anything(client: TestClient, name: str) -> None:
    assert client.get(f"/v1/models/{name}").status_code in {200, 404}


def test_models_are_listed_by_task(client: TestClient, world: World) -> None:
    world.models.found = [a_decoder(), an_encoder()]
    assert [one.name for one in listed(client).models] == ["small/decoder", "small/encoder"]
    assert [one.name for one in listed(client, task="causal-lm").models] == ["small/decoder"]
    assert world.models.asked == []


def test_models_are_ranked_by_what_they_make_of_the_rows(client: TestClient, world: World) -> None:
    world.models.found = [an_encoder("a"), an_encoder("b"), a_decoder(), an_encoder("c", 900_000), an_encoder("d")]
    scores = {"a": 0.7, "b": 0.9, "c": 0.7}
    world.models.probed = {name: Probed({"accuracy": score}, 3.0, 400) for name, score in scores.items()}
    found = listed(client, task="text-classification", dataset=ROWS, label="category")
    assert [(one.name, one.rank) for one in found.models] == [("b", 1), ("c", 2), ("a", 3), ("d", None)]
    assert (found.metric, found.models[0].rows, found.models[3].failure) == ("accuracy", 400, "no time for it")
    wanted = ProbeRows(ROWS, {"text": "text", "label": "category"})
    assert world.models.asked == [("text-classification", wanted, ["a", "b", "c", "d"])]


def test_fewer_bits_are_better(client: TestClient, world: World) -> None:
    world.models.found = [a_decoder("a"), a_decoder("b")]
    world.models.probed = {"a": Probed({"bits_per_byte": 1.4}), "b": Probed({"bits_per_byte": 1.1})}
    found = listed(client, task="causal-lm", dataset=ROWS)
    assert [one.name for one in found.models] == ["b", "a"]
    assert world.models.asked[0][1].columns == {"text": "text"}


def test_an_architecture_without_weights_is_listed_and_not_tried(client: TestClient, world: World) -> None:
    bare = FoundModel("builtin://x", Place.BUILTIN, ModelHeader("resnet", frozenset({"image-classification"})))
    world.models.found = [bare]
    [one] = listed(client, task="image-classification", dataset=ROWS).models
    assert (one.rank, one.metrics) == (None, {})
    assert world.models.asked[0][2] == []


def test_only_the_models_named_are_tried(client: TestClient, world: World) -> None:
    world.models.found = [an_encoder("a"), an_encoder("b"), an_encoder("c")]
    listed(client, task="text-classification", dataset=ROWS, models=["c", "a", "c"])
    assert world.models.asked[0][2] == ["c", "a"]


@pytest.mark.parametrize(
    ("named", "meant"),
    [("builtin://api-docs", "builtin://api-docs/train"), ("builtin://api-docs/test", "builtin://api-docs/test"), (ROWS, ROWS)],
)
def test_a_built_in_data_set_by_its_name_alone_means_its_training_rows(
    client: TestClient, world: World, named: str, meant: str
) -> None:
    world.models.found = [an_encoder()]
    answer = client.get("/v1/models", params={"task": "text-classification", "dataset": named})
    assert (answer.status_code, answer.json()["dataset"], world.models.asked[0][1].source) == (200, meant, meant)


def test_rows_that_cannot_be_named_so_are_refused_with_how_to_name_them(client: TestClient) -> None:
    answer = client.get("/v1/models", params={"task": "text-classification", "dataset": "dataset://banking77"})
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-parameters")
    assert "`dataset://NAME/FILE`" in answer.json()["detail"]


def test_a_model_that_is_not_here_cannot_be_ranked(client: TestClient) -> None:
    answer = client.get("/v1/models", params={"models": "elsewhere"})
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "model-not-found")


def test_a_model_for_another_task_is_refused_and_told_for_which(client: TestClient, world: World) -> None:
    world.models.found = [a_decoder()]
    answer = client.get("/v1/models", params={"models": "small/decoder", "task": "seq2seq"})
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "unusable-model")
    assert "`causal-lm`" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query", [f"dataset={ROWS}", "text=x", "label=y&task=causal-lm", f"dataset={ROWS}&task=causal-lm&label=y"]
)
def test_a_question_that_does_not_add_up_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/models?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-query")


@pytest.mark.parametrize("query", ["task=poetry", "dataset=hub://a/b", "dataset=../x", "dataset=dataset://a/b%0A", "text="])
def test_garbage_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/models?{query}")
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-parameters")


@pytest.mark.parametrize(
    ("refusal", "status"),
    [
        (DatasetNotFound("no such rows"), 404), (UnreadableDataset("no labels"), 422), (InvalidQuery("no column"), 422),
        (NotReady("ask again"), 503),
    ],
)  # fmt: skip
def test_what_the_rows_are_no_use_for_is_told(client: TestClient, world: World, refusal: Exception, status: int) -> None:
    world.models.found, world.models.refusal = [an_encoder()], refusal
    answer = client.get("/v1/models", params={"task": "text-classification", "dataset": ROWS})
    assert answer.status_code == status
    assert ("Retry-After" in answer.headers) == (status == 503)


@pytest.mark.parametrize("name", ["", "x" * 301])
def test_a_name_that_no_model_can_have_is_not_found(client: TestClient, world: World, name: str) -> None:
    world.models.found = [an_encoder(name)]
    answer = client.get(f"/v1/models/{name}")
    assert answer.status_code == 404
    assert "between 1 and 300 characters" in answer.json()["detail"]
