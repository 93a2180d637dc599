"""`tuneyard study preview`, `final`, `refine` and `fork`, against an API over fakes."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pydantic import BaseModel

from search_spaces import FloatParameter
from service.api.decision_views import WarmStartView
from service.api.step_schemas import (
    FinalistView,
    FinalView,
    PlannedBracketView,
    PlannedTrialView,
    PreviewView,
    RefinementView,
    ReportTimeView,
    SpaceChangeView,
    SpreadView,
)
from service.cli import run
from service.cli.session import Session
from service.client import Client
from tests.builders import a_document, a_study
from tests.unit.stand_in import STUDY_ID, TOKEN, a_problem, a_study_view

RATE = FloatParameter(kind="float", low=1e-5, high=1e-2, log=True)
PREVIEW = PreviewView(
    strategy={"kind": "hyperband", "sampler": {"kind": "random"}}, reason="As it fits.", space_size=None, grid_size=None,
    brackets=[PlannedBracketView(index=0, rungs=[1, 3], sizes=[9, 3])], trials=30, reports=112, final_runs=9, seconds=3725.0,
    configurations=[PlannedTrialView(parameters={"learning_rate": 3e-4}, why="Drawn at random.")],
    report_time=ReportTimeView(seconds=20.4, trials=57, sentence="The median of 57 earlier trials."),
    warm_start=WarmStartView(carried_over=28, left_out=3, because={"no_value": 3}), notes=["It may end earlier."],
)  # fmt: skip
FINALISTS = [
    FinalistView(
        trial=trial, parameters={"learning_rate": 1e-3}, objective=SpreadView(mean=mean, deviation=0.004, n=3),
        tests={"test/accuracy": SpreadView(mean=mean - 0.1, deviation=None, n=1)}, failed=0, seconds=41.2, gpu_seconds=0.0,
        bytes=91_350_000, p_value=chance, runs=[],
    )
    for trial, mean, chance in ((7, 0.921, None), (3, 0.915, 0.31))
]  # fmt: skip
FINAL = FinalView(
    study_id=STUDY_ID, metric="validation/accuracy", direction="maximize", top=2, seeds=3, finished=6, finalists=FINALISTS,
    method="Welch", alpha=0.05, winner=3, champion=9, verdict="Trials 7, 3 cannot be told apart from noise.",
)  # fmt: skip
REFINEMENT = RefinementView(
    study_id=STUDY_ID, trials=31, report=3, good=[7, 3, 1], space={"learning_rate": RATE},
    changes=[SpaceChangeView(parameter="learning_rate", action="narrowed", before=RATE, after=RATE, sentence="It narrows.")],
)  # fmt: skip


class Service(httpx.MockTransport):
    """Answers the four, and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.requests: list[httpx.Request] = []

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answers: dict[tuple[str, str], tuple[int, BaseModel]] = {
            ("POST", "/v1/studies:preview"): (200, PREVIEW),
            ("GET", f"/v1/studies/{STUDY_ID}/final"): (200, FINAL),
            ("GET", f"/v1/studies/{STUDY_ID}/refine"): (200, REFINEMENT),
            ("POST", f"/v1/studies/{STUDY_ID}:fork"): (201, a_study_view(a_study("intents-fork-abc123"))),
        }
        found = answers.get((request.method, request.url.path))
        return httpx.Response(found[0], content=found[1].model_dump_json()) if found else a_problem(404, "There is nothing.")


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("TUNEYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEYARD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TUNEYARD_TOKEN", TOKEN)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        yield service


def tuneyard(service: Service, *arguments: str) -> int:
    return run(arguments, Session(transport=service, sleep=lambda _: None))


def body_of(request: httpx.Request) -> Any:
    return json.loads(request.content)


def test_a_preview_is_a_table_for_people(service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(a_document()))
    assert tuneyard(service, "study", "preview", str(file)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for said in (
        "strategy hyperband, random", "why As it fits.", "space more than can be counted", "trials 30, with 112 reports in all",
        "final 9 runs on top",
        "a report 20.4 s", "takes about 1h 02m of training", "28 trials carry over, 3 do not", "note It may end earlier.",
        "0 9 to report 1, 3 of them on to 3",
        "0 3e-4 Drawn at random.",
    ):  # fmt: skip
        assert said in shown, said
    assert yaml.safe_load(service.requests[0].content) == a_document()


def test_what_a_preview_cannot_say_it_says_so(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = PREVIEW.model_copy(
        update={
            "trials": None, "reports": None, "final_runs": None, "seconds": None, "warm_start": None, "reason": None,
            "report_time": ReportTimeView(seconds=None, trials=0, sentence="No trial has reported yet."),
            "brackets": [PlannedBracketView(index=0, rungs=[1, 3], sizes=[])],
        }
    )  # fmt: skip
    monkeypatch.setitem(globals(), "PREVIEW", unknown)
    file = tmp_path / "study.json"
    file.write_text(json.dumps(a_document()))
    assert tuneyard(service, "study", "preview", str(file)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "trials not known No trial has reported yet. takes not known" in shown.replace(" final", "")
    assert "0 some to report 1, fewer on to 3" in shown


def test_a_final_is_a_table_with_the_winner_marked(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(service, "study", "final", STUDY_ID) == 0
    verdict, _, heading, first, second = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert " ".join(verdict) == FINAL.verdict
    assert heading[:3] == ["trial", "validation/accuracy", "test/accuracy"]
    assert first == ["7", "0.9210", "±", "0.004", "0.8210", "3", "41.2", "91.3", "MB"]
    assert second[-1] == "winner"


def test_a_refinement_is_a_table_of_sentences(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard(service, "study", "refine", STUDY_ID) == 0
    shown = capsys.readouterr().out
    assert "31 trials compared at report 3; the best: 7, 3, 1" in shown
    assert "It narrows." in shown


@pytest.mark.parametrize("line", [("final", STUDY_ID), ("refine", STUDY_ID), ("fork", STUDY_ID)])
def test_programs_get_the_apis_own_fields(service: Service, capsys: pytest.CaptureFixture[str], line: tuple[str, ...]) -> None:
    assert tuneyard(service, "study", *line, "-o", "json") == 0
    assert isinstance(json.loads(capsys.readouterr().out), dict)


def test_changes_are_set_by_their_keys(service: Service, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["budget.trials=50", "space.dropout=null", "space.lora.rank.high=64", "name=a b", "strategy={kind: random}"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert tuneyard(service, "study", "fork", STUDY_ID, "--refine", "--idempotency-key", "once", *arguments) == 0
    (request,) = service.requests
    assert request.headers["Idempotency-Key"] == "once"
    assert body_of(request) == {
        "refine": True,
        "changes": {
            "budget": {"trials": 50},
            "space": {"dropout": None, "lora": {"rank": {"high": 64}}},
            "name": "a b",
            "strategy": {"kind": "random"},
        },
    }
    assert "tuneyard study watch intents-fork-abc123" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["budget.trials"], "is not KEY=VALUE"),
        (["=5"], "is not KEY=VALUE"),
        (["budget..trials=5"], "is not KEY=VALUE"),
        (["seed=1", "seed=2"], "is set twice"),
        (["budget=5", "budget.trials=5"], "set beside a part of itself"),
        (["space={"], "space={"),
    ],
)
def test_settings_that_cannot_be_read_are_wrong_usage(
    service: Service, capsys: pytest.CaptureFixture[str], settings: list[str], said: str
) -> None:
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert tuneyard(service, "study", "fork", STUDY_ID, *arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert service.requests == []


def test_a_definition_file_that_is_not_there_is_wrong_usage(service: Service, tmp_path: Path) -> None:
    assert tuneyard(service, "study", "preview", str(tmp_path / "missing.yaml")) == 2


def test_the_client_has_a_method_for_each(service: Service) -> None:
    with Client("http://127.0.0.1:8080", TOKEN, transport=service) as client:
        assert client.preview(a_document()) == PREVIEW
        assert client.final(STUDY_ID) == FINAL
        assert client.refinement(STUDY_ID) == REFINEMENT
        assert client.fork(STUDY_ID).id == "intents-fork-abc123"
    assert body_of(service.requests[-1]) == {"refine": False, "changes": {}}
