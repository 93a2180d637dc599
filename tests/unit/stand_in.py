"""A service that answers the client from memory, without a socket."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
from pydantic import BaseModel

from service.api.analysis_schemas import StudyAnalysisView
from service.api.decision_views import TrialRequestView
from service.api.deletion_views import DeletionsView, DeletionView
from service.api.lineage_schemas import LineageView
from service.api.pareto_schemas import ParetoView
from service.api.schemas import (
    AnalysisView,
    AttemptView,
    DatasetFileView,
    DatasetsView,
    DeletedFilesView,
    EventView,
    ManifestView,
    ReportView,
    StudyView,
    TrialView,
)
from service.api.schemas import study_view as full_view
from service.domain.checkpoint import CheckpointFile, Manifest
from service.domain.datasets import DatasetFile
from service.domain.decision import Decision
from service.domain.deletion import Deletion
from service.domain.events import Event, EventKind
from service.domain.front import front_of
from service.domain.history import History
from service.domain.lineage import lineages
from service.domain.stored import Footprint, Freed
from service.domain.study import Study
from service.domain.trial import Attempt, Trial, TrialRequest
from tests.analysed import an_analysis
from tests.builders import NOW, a_definition, a_report, a_study, a_trial

STUDY_ID = "intents-abc123"
TOKEN = "token-of-the-stand-in"
CHECKPOINT = {"model.safetensors": b"weights" * 1000, "config.json": b"{}"}
DECISIONS = (
    Decision("proposed", "tpe", observations=12),
    Decision("cut", "hyperband", report=1, value=0.5, rank=9, among=9, cut=0.75),
)
"""Of every trial."""
A_DELETION = Deletion(STUDY_ID, "intents", NOW, "ada", 12, 14, 27, 61, Freed(42, 548_000_000))
ANALYSIS = {
    "task": "text-classification",
    "rows": 24,
    "metrics": {"accuracy": 0.5},
    "mistakes": [{"text": f"text {at}", "predicted": "buy", "confidence": 0.9} for at in range(12)],
}


def a_study_view(
    study: Study | None = None, *trials: Trial, experiment: str | None = "7", footprint: Footprint | None = None
) -> StudyView:
    study = study or a_study()
    history = History({trial.number: trial for trial in trials})
    return full_view(
        study,
        counts=Counter(trial.state for trial in trials),
        best=history.best(study.definition.objective),
        spent=history.spending(study, NOW),
        experiment=experiment,
        footprint=footprint,
    )


def a_manifest(trial: int = 0) -> Manifest:
    files = (CheckpointFile(path, len(content), hashlib.sha256(content).hexdigest()) for path, content in CHECKPOINT.items())
    return Manifest(STUDY_ID, trial, 1, tuple(files))


def an_event(number: int, kind: EventKind, /, **payload: Any) -> Event:
    return Event(kind, STUDY_ID, NOW, payload, number)


def a_problem(status: int, detail: str, **more: Any) -> httpx.Response:
    body = {"type": "urn:tuneyard:problem:of-a-test", "title": "Of a test", "status": status, "detail": detail, **more}
    return httpx.Response(status, headers={"Content-Type": "application/problem+json"}, json=body)


class StandIn(httpx.MockTransport):
    """Studies, trials and events to set; requests to look at. `failing` answers come first, one a request."""

    def __init__(self, *studies: Study, trials: tuple[Trial, ...] = ()) -> None:
        super().__init__(self._answer)
        self.studies = {study.id: study for study in studies or (a_study(),)}
        self.trials = {trial.number: trial for trial in trials}
        self.streams: list[list[Event | None]] = []
        """Events of each connection to the stream; None is the moment it breaks."""
        self.failing: list[httpx.Response | httpx.TransportError] = []
        self.requests: list[httpx.Request] = []
        self.page_size = 50
        self.footprint: Footprint | None = None

    def asked(self) -> list[str]:
        """Method and path of each request."""
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        if self.failing:
            failure = self.failing.pop(0)
            if isinstance(failure, httpx.TransportError):
                raise failure
            return failure
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return a_problem(401, "No valid token came with the request.")
        answer = a_problem(404, "There is no such place.")
        match request.method, request.url.path.removeprefix("/v1/").split("/"):
            case "POST", ["studies"]:
                answer = _json(a_study_view(a_study()), 201)
            case "GET", ["studies"]:
                answer = self._page(request, [a_study_view(study, *self.trials.values()) for study in self.studies.values()])
            case "POST", ["login-links"]:
                answer = httpx.Response(201, json={"url": "/login?code=abc&next=%2Fmlflow%2F", "expires_at": NOW.isoformat()})
            case "GET", ["datasets" | "deletions" as what]:
                answer = _json(self._all(what))
            case "PUT" | "DELETE" as method, ["datasets", _, *_]:
                answer = self._changed_dataset(method)
            case _, ["studies", place, *rest]:
                answer = self._study(request, place, rest)
        return answer

    def _study(self, request: httpx.Request, place: str, rest: list[str]) -> httpx.Response:
        study = self.studies.get(place.partition(":")[0])
        if study is None:
            return a_problem(404, f"There is no study {place!r}.")
        view = a_study_view(study, *self.trials.values(), footprint=self.footprint)
        answer = a_problem(404, "There is no such place.")
        match request.method, rest:
            case "GET" | "POST" | "PATCH", []:
                answer = _json(view)
            case "DELETE", []:
                answer = _json(DeletionView.of(A_DELETION))
            case "GET" | "POST", ["trials"]:
                answer = self._trials(request)
            case "GET", ["analysis" | "lineage" | "pareto", *_]:
                answer = self._learned(request, study, rest)
            case "GET", ["best"]:
                answer = _json(TrialView.of(self.trials[0]))
            case "GET", ["events"]:
                events = self.streams.pop(0) if self.streams else None
                answer = httpx.Response(204) if events is None else httpx.Response(200, content=self._stream(events))
            case "GET", ["best", "checkpoint"]:
                answer = _json(ManifestView.of(a_manifest()))
            case "GET" | "POST", ["trials", number, *inside]:
                answer = self._trial(request, int(number.partition(":")[0]), inside)
        return answer

    def _all(self, what: str) -> BaseModel:
        if what == "deletions":
            return DeletionsView(items=[DeletionView.of(A_DELETION)])
        return DatasetsView(uploads=[self._dataset()], builtins=[])

    def _trials(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return self._page(request, [TrialView.of(trial) for trial in self.trials.values()])
        asked = TrialRequest(1, json.loads(request.content)["parameters"], NOW)
        return _json(TrialRequestView.of(STUDY_ID, asked, 2, None), 202)

    def _learned(self, request: httpx.Request, study: Study, rest: list[str]) -> httpx.Response:
        match rest:
            case ["pareto"]:
                limits = [float(value) for value in request.url.params.get_list("reference")]
                most = int(request.url.params["limit"])
                return _json(ParetoView.of(study, front_of(study, History(self.trials), limits or None), most))
            case ["lineage"]:
                return _json(LineageView.of(STUDY_ID, lineages(self.trials)))
            case ["analysis"]:
                return _json(StudyAnalysisView.of(an_analysis()))
            case _:
                return httpx.Response(200, content=b"a picture")

    def _trial(self, request: httpx.Request, number: int, inside: list[str]) -> httpx.Response:
        answer = a_problem(404, "There is no such place.")
        match inside:
            case []:
                answer = _json(TrialView.of(self.trials[number], [(NOW, decision) for decision in DECISIONS]))
            case ["reports"]:
                answer = httpx.Response(200, json=_reports(request))
            case ["attempts"]:
                attempt = Attempt(number=1, first=0, until=3, started_at=NOW, detail="Traceback\nMemoryError: 3 GB")
                answer = httpx.Response(200, json=[AttemptView.of(attempt).model_dump(mode="json")])
            case ["analysis"]:
                answer = _json(AnalysisView.of(STUDY_ID, number, 1, ANALYSIS))
            case ["checkpoint"]:
                answer = _json(ManifestView.of(a_manifest(number)))
            case ["checkpoint", "files", *path]:
                answer = httpx.Response(200, content=CHECKPOINT["/".join(path)])
        return answer

    def _stream(self, events: list[Event | None]) -> Iterator[bytes]:
        yield b": hello\n\n"
        for event in events:
            if event is None:
                raise httpx.ReadError("connection reset")
            self._happen(event)
            view = EventView.of(event)
            yield f"id: {event.id}\nevent: {event.kind}\ndata: {view.model_dump_json()}\n\n".encode()

    def _happen(self, event: Event) -> None:
        """Let the stored values follow the events, as far as tests look at them."""
        if event.kind is EventKind.STUDY_STATE:
            study = self.studies[STUDY_ID]
            ended = NOW if event.payload["state"] in {"completed", "failed", "cancelled", "stopped"} else None
            self.studies[STUDY_ID] = replace(study, state=event.payload["state"], ended_at=ended)

    def _page(self, request: httpx.Request, views: list[Any]) -> httpx.Response:
        start = int(request.url.params.get("cursor", 0))
        end = start + min(self.page_size, int(request.url.params.get("limit", 50)))
        items = [view.model_dump(mode="json") for view in views[start:end]]
        return httpx.Response(200, json={"items": items, "cursor": str(end) if end < len(views) else None})

    def _changed_dataset(self, method: str) -> httpx.Response:
        if method == "PUT":
            return _json(self._dataset(), 201)
        return _json(DeletedFilesView(files=[self._dataset()], bytes=839_073))

    def _dataset(self) -> DatasetFileView:
        return DatasetFileView.of(DatasetFile("intents", "train.csv", 123, "0" * 64, 4, ("text", "label"), NOW))


def _reports(request: httpx.Request) -> list[Any]:
    """All of 1,500 reports that this page holds."""
    first, size = int(request.url.params["after"]) + 1, int(request.url.params["limit"])
    return [ReportView.of(a_report(at)).model_dump(mode="json") for at in range(first, min(first + size, 1501))]


def _json(view: BaseModel, status: int = 200) -> httpx.Response:
    return httpx.Response(status, json=json.loads(view.model_dump_json()))


__all__ = [
    "ANALYSIS",
    "CHECKPOINT",
    "STUDY_ID",
    "TOKEN",
    "StandIn",
    "a_definition",
    "a_problem",
    "a_study_view",
    "a_trial",
    "an_event",
]
