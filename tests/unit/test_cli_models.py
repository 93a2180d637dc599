import json
from typing import Any

import httpx
import pytest

from service.api.model_views import CandidatesView, CandidateView, MemoryView, ModelView
from service.cli import run
from service.cli.session import Session
from service.domain.base_models import Benchmark, FoundModel, ModelCard, ModelHeader, Place, Probed
from service.domain.memory import memory_need
from tests.unit.stand_in import a_problem


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEYARD_URL", "http://127.0.0.1:8080")
    monkeypatch.setenv("TUNEYARD_TOKEN", "token")


def a_model(name: str = "small/encoder") -> FoundModel:
    header = ModelHeader(
        "bert", frozenset({"text-classification"}), layers=2, longest=512, hidden_size=64, heads=2, parameters=1_000_000,
        weights_bytes=4_000_000, dtype="F32",
    )  # fmt: skip
    card = ModelCard(
        licence="mit", datasets=tuple("abcdefg"), benchmarks=(Benchmark("STS", "STSb", "spearman", 0.8),), characters=9
    )
    return FoundModel(name, Place.CACHE, header, card)


def a_ranking() -> CandidatesView:
    best = CandidateView.of(a_model("b"), Probed({"accuracy": 0.9, "f1_macro": 0.8}, 2.5, 400), 1)
    failed = CandidateView.of(a_model("a"), Probed(failure="a could not be tried: no\nmore"))
    bare = CandidateView.of(FoundModel("builtin://x", Place.BUILTIN, ModelHeader("resnet", frozenset())))
    return CandidatesView(task="text-classification", dataset="dataset://x/y.csv", metric="accuracy", models=[best, failed, bare])


def a_view() -> ModelView:
    found = a_model()
    need = memory_need(found.header, batch_size=8, max_length=64, method="lora")
    assert need is not None
    return ModelView.of(found, MemoryView.of(need, "lora", 8, 64))


class Service(httpx.MockTransport):
    """Answers what it is given, one a request, and then the last of it."""

    def __init__(self, *answers: httpx.Response) -> None:
        super().__init__(self._answer)
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def answered(view: ModelView | CandidatesView) -> httpx.Response:
    return httpx.Response(200, content=view.model_dump_json())


def tuneyard(service: Service, *arguments: str) -> int:
    return run(arguments, Session(transport=service, sleep=lambda _: None))


def test_a_model_is_shown_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(answered(a_view()))
    assert tuneyard(service, "model", "show", "small/encoder", "--batch-size", "8", "--method", "lora") == 0
    shown = capsys.readouterr().out
    for text in (
        "1,000,000",
        "4.0 MB (F32)",
        "mit",
        "a, b, c, d, e and 2 more",
        "STS STSb spearman 0.8",
        "lora, 8 rows of 64 tokens",
    ):
        assert text in shown
    [request] = service.requests
    assert request.url.raw_path.startswith(b"/v1/models/small%2Fencoder?")
    assert (request.url.params["batch_size"], request.url.params["method"]) == ("8", "lora")


def test_a_model_that_is_not_there_ends_the_command_as_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(Service(a_problem(404, "'x' is not on this machine")), "model", "show", "x") == 3
    assert "'x' is not on this machine" in capsys.readouterr().err


def test_models_are_ranked_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    service = Service(answered(a_ranking()))
    asked = (
        "--task",
        "text-classification",
        "--dataset",
        "dataset://x/y.csv",
        "--label",
        "category",
        "--model",
        "a",
        "--model",
        "b",
    )
    assert tuneyard(service, "model", "rank", *asked) == 0
    heading, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[:5] == ["rank", "model", "accuracy", "f1_macro", "ms/row"]
    assert lines[0].split()[:5] == ["1", "b", "0.9000", "0.8000", "2.5"]
    assert lines[1].rstrip().endswith("a could not be tried: no")
    assert lines[2].rstrip().endswith("trains from random weights")
    params = service.requests[0].url.params
    assert (params["label"], params.get_list("models"), "text" in params) == ("category", ["a", "b"], False)


def test_models_are_ranked_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(Service(answered(a_ranking())), "model", "rank", "-o", "json") == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [one["rank"] for one in found["models"]] == [1, None, None]


def test_whoever_ranks_waits_until_the_models_have_been_tried() -> None:
    trying = a_problem(503, "ask again")
    service = Service(*[trying] * 9, answered(a_ranking()))
    assert tuneyard(service, "model", "rank", "--task", "text-classification", "--dataset", "dataset://x/y.csv") == 0
    assert len(service.requests) == 10
