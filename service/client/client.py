"""One method for each thing the API does."""

import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote, urljoin
from uuid import uuid4

import httpx
from pydantic import BaseModel, TypeAdapter

from service.api.analysis_schemas import StudyAnalysisView
from service.api.decision_views import TrialRequestView
from service.api.deletion_views import DeletionsView, DeletionView
from service.api.lineage_schemas import LineageView
from service.api.model_views import CandidatesView, ModelView
from service.api.pareto_schemas import ParetoView
from service.api.schemas import (
    AnalysisView,
    AttemptView,
    DatasetFileView,
    DatasetsView,
    DeletedFilesView,
    EventView,
    LoginLinkView,
    ManifestView,
    ReportView,
    StudyPage,
    StudyView,
    TrialPage,
    TrialView,
)
from service.api.spending_schemas import ForecastView, SpendingView
from service.api.step_schemas import FinalView, PreviewView, RefinementView
from service.client.access import Access
from service.client.address import find_address, user_name
from service.client.connection import Connection, reason_of
from service.client.errors import ProblemError, ServiceUnreachable, WaitedTooLong
from service.client.pull import Progress, pull_checkpoint, silent
from service.client.stream import lines_of, messages
from service.domain.events import EventKind
from service.domain.memory import Method
from service.domain.study import StudyState
from service.domain.study_analysis import Figure

Definition = Mapping[str, Any] | str | bytes | Path
"""A study definition: an object, the text of one in YAML or JSON, or a file that holds it."""
V = TypeVar("V", bound=BaseModel)

_PAGE = 100
_REPORTS_PAGE = 1000
_IDLE_SECONDS = 45.0
"""Without even a comment for so long, an event stream counts as dropped."""
RECONNECT_SECONDS = (0.2, 0.5, 1.0, 2.0, 5.0, 5.0, 10.0, 10.0, 10.0, 10.0)
"""Pauses before an event stream is taken up again: a restart of the service fits into them."""
_PULLS = 3
"""Times a pull begins anew because the trial's export was replaced by that of a better report meanwhile."""
_JSON = "application/json"
_CHUNK_BYTES = 1 << 20
_TRYING_SECONDS = 2.0
"""Between questions whether models have been tried."""


class Client:
    """A connection to the service.

    The address is `url`, else `TUNEYARD_URL`, else what a running service left in its home folder, else
    http://127.0.0.1:8080; the token is `token`, else that in `token_file`, else `TUNEYARD_TOKEN`, else the home folder's. `user`
    is who asks, in a study's events: else `TUNEYARD_USER`, else the name of this process's user. `project` is the one to work
    in, for who sees several: else `TUNEYARD_PROJECT`.
    Raises `UnusableAddress` for what cannot be a token.
    Every method raises `ProblemError` when the service refuses and `ServiceUnreachable` when it does not answer.
    Requests are repeated after lost connections and 503 answers; a repeat never does a thing twice.
    """

    def __init__(  # noqa: PLR0913 - seams for tests among them, all by keyword
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        user: str | None = None,
        project: str | None = None,
        home: Path | None = None,
        token_file: Path | None = None,
        timeout: float = 30.0,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connection = Connection(
            find_address(url, token, home, token_file=token_file), timeout=timeout, transport=transport, sleep=sleep,
            user=user or user_name(), project=project or os.environ.get("TUNEYARD_PROJECT"),
        )  # fmt: skip
        self.access = Access(self._connection)
        """Tokens, projects and the audit log."""
        self._clock = clock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    @property
    def url(self) -> str:
        """The service's address, without a trailing slash."""
        return self._connection.url

    def apply(self, definition: Definition, idempotency_key: str | None = None) -> StudyView:
        """Start a study. The same key with the same definition gives the study of the first time."""
        body, kind = _encoded(definition)
        headers = {"Content-Type": kind, "Idempotency-Key": idempotency_key or str(uuid4())}
        return _read(StudyView, self._connection.request("POST", "/v1/studies", headers=headers, content=body))

    def studies(
        self, *, state: Iterable[str] = (), name: str | None = None, order: str = "-created_at", limit: int = _PAGE
    ) -> Iterator[StudyView]:
        """All studies that match, page after page; `limit` is the size of a page."""
        query = {"state": list(state), "name": name, "order": order, "limit": min(limit, _PAGE)}
        return self._pages("/v1/studies", query, StudyPage)

    def study(self, study_id: str) -> StudyView:
        """One study."""
        return _read(StudyView, self._connection.request("GET", _study(study_id)))

    def trials(
        self, study_id: str, *, state: Iterable[str] = (), order: str = "number", limit: int = _PAGE
    ) -> Iterator[TrialView]:
        """A study's trials that match, page after page; `limit` is the size of a page."""
        query = {"state": list(state), "order": order, "limit": min(limit, _PAGE)}
        return self._pages(f"{_study(study_id)}/trials", query, TrialPage)

    def trial(self, study_id: str, number: int) -> TrialView:
        """One trial."""
        return _read(TrialView, self._connection.request("GET", f"{_study(study_id)}/trials/{number}"))

    def request_trial(self, study_id: str, parameters: Mapping[str, Any], idempotency_key: str | None = None) -> TrialRequestView:
        """Ask for a configuration to be tried next. The same key with the same parameters asks for it once."""
        body = json.dumps({"parameters": dict(parameters)}, allow_nan=False).encode()
        headers = {"Content-Type": _JSON, "Idempotency-Key": idempotency_key or str(uuid4())}
        answer = self._connection.request("POST", f"{_study(study_id)}/trials", headers=headers, content=body)
        return _read(TrialRequestView, answer)

    def reports(self, study_id: str, number: int, *, after: int = 0) -> list[ReportView]:
        """A trial's reports with a number above `after`, in order."""
        path, found = f"{_study(study_id)}/trials/{number}/reports", list[ReportView]()
        while True:
            params = {"after": found[-1].number if found else after, "limit": _REPORTS_PAGE}
            page = _read_list(ReportView, self._connection.request("GET", path, params=params))
            found += page
            if len(page) < _REPORTS_PAGE:
                return found

    def attempts(self, study_id: str, number: int) -> list[AttemptView]:
        """A trial's attempts, in order."""
        return _read_list(AttemptView, self._connection.request("GET", f"{_study(study_id)}/trials/{number}/attempts"))

    def analysis(self, study_id: str, number: int) -> AnalysisView:
        """Where a trial's best report went wrong on the validation rows."""
        return _read(AnalysisView, self._connection.request("GET", f"{_study(study_id)}/trials/{number}/analysis"))

    def study_analysis(self, study_id: str) -> StudyAnalysisView:
        """What a study has learned so far: which parameters matter, how the best was found, and trials to draw."""
        return _read(StudyAnalysisView, self._connection.request("GET", f"{_study(study_id)}/analysis"))

    def lineage(self, study_id: str) -> LineageView:
        """Of a population, the trials and parameters that each member's weights were trained with."""
        return _read(LineageView, self._connection.request("GET", f"{_study(study_id)}/lineage"))

    def pareto(self, study_id: str, reference: Sequence[float] = (), limit: int = 200) -> ParetoView:
        """The trials that no other beats in all objectives, at most `limit`, and the volume of all up to the reference point."""
        query = {"reference": [str(value) for value in reference], "limit": limit}
        return _read(ParetoView, self._connection.request("GET", f"{_study(study_id)}/pareto", params=query))

    def study_figure(self, study_id: str, figure: Figure) -> bytes:
        """One part of that as a picture (PNG)."""
        return self._connection.request("GET", f"{_study(study_id)}/analysis/{figure}.png").content

    def preview(self, definition: Definition) -> PreviewView:
        """What a study of this definition would do, and how long that takes; nothing is started."""
        body, kind = _encoded(definition)
        answer = self._connection.request("POST", "/v1/studies:preview", headers={"Content-Type": kind}, content=body)
        return _read(PreviewView, answer)

    def final(self, study_id: str) -> FinalView:
        """How a study's best configurations do when trained again under new seeds, and which of them wins."""
        return _read(FinalView, self._connection.request("GET", f"{_study(study_id)}/final"))

    def spending(self, study_id: str, limit: int = 10) -> SpendingView:
        """What a study has spent, and on what; `limit` is the most trials it names."""
        return _read(SpendingView, self._connection.request("GET", f"{_study(study_id)}/spending", params={"limit": limit}))

    def forecast(self, study_id: str) -> ForecastView:
        """How a study is expected to end, and what was foretold of it before. Takes seconds."""
        return _read(ForecastView, self._connection.request("GET", f"{_study(study_id)}/forecast"))

    def refinement(self, study_id: str) -> RefinementView:
        """A narrower space, drawn around a study's good trials."""
        return _read(RefinementView, self._connection.request("GET", f"{_study(study_id)}/refine"))

    def fork(
        self,
        study_id: str,
        *,
        refine: bool = False,
        changes: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> StudyView:
        """Start a study like this one, which knows its trials; `changes` is a merge patch of the definition (RFC 7396)."""
        body = json.dumps({"refine": refine, "changes": dict(changes or {})}, allow_nan=False).encode()
        headers = {"Content-Type": _JSON, "Idempotency-Key": idempotency_key or str(uuid4())}
        return _read(StudyView, self._connection.request("POST", f"{_study(study_id)}:fork", headers=headers, content=body))

    def pause(self, study_id: str, *, now: bool = False) -> StudyView:
        """Let running trials leave at their next report, or at once in the middle of an epoch, and free the workers."""
        return self._tell(study_id, "pause", {"now": now})

    def resume(self, study_id: str) -> StudyView:
        """Let a paused study go on."""
        return self._tell(study_id, "resume")

    def extend(self, study_id: str, budget: Mapping[str, Any] | None = None) -> StudyView:
        """Give a study more to spend, also after its end; `budget` is a merge patch of its budget (RFC 7396)."""
        return self._tell(study_id, "extend", {"budget": dict(budget or {})})

    def patch(self, study_id: str, changes: Mapping[str, Any], *, version: int | None = None) -> StudyView:
        """Change priority, concurrency or budget of a study that has not ended, by a merge patch of its definition.

        With a `version` only where the study still has it.
        """
        headers = {"Content-Type": "application/merge-patch+json", "If-Match": "*" if version is None else f'"{version}"'}
        body = json.dumps(dict(changes), allow_nan=False).encode()
        return _read(StudyView, self._connection.request("PATCH", _study(study_id), headers=headers, content=body))

    def stop_trial(self, study_id: str, number: int) -> TrialView:
        """End one trial at its next report, and keep what it has."""
        return _read(TrialView, self._connection.request("POST", f"{_study(study_id)}/trials/{number}:stop"))

    def stop(self, study_id: str) -> StudyView:
        """Let running trials reach their next report, then end the study and keep its results."""
        return self._tell(study_id, "stop")

    def cancel(self, study_id: str) -> StudyView:
        """End a study now."""
        return self._tell(study_id, "cancel")

    def delete(self, study_id: str) -> DeletionView:
        """Forget a study that has ended, with its trials and checkpoints; answers what was removed."""
        return _read(DeletionView, self._connection.request("DELETE", _study(study_id)))

    def deletions(self) -> Sequence[DeletionView]:
        """What became of the studies that were deleted, the newest first."""
        return _read(DeletionsView, self._connection.request("GET", "/v1/deletions")).items

    def events(
        self,
        study_id: str,
        after: int = 0,
        *,
        deadline: float | None = None,
        on_connection: Callable[[str | None], None] | None = None,
    ) -> Iterator[EventView]:
        """What happened to a study, from event `after` on, to its end; a dropped connection is taken up where it broke off.

        `on_connection` is told why, each time the service could not be reached again, and None once it has been.
        Raises `WaitedTooLong` at `deadline`, a time of this client's clock.
        """
        begun, link = self._clock(), _Link(self._connection, on_connection)
        while True:
            cause, is_over = "the event stream ended early", False
            try:
                for event in self._stream(study_id, after, deadline):
                    link.stands()
                    if event is not None:
                        after = event.id
                        yield event
                        is_over = _ends(event)  # unless the study was extended, and more follows
                    if deadline is not None and self._clock() >= deadline:
                        break
            except _NothingMore:
                return
            except httpx.TransportError as error:
                cause = reason_of(error)
            if is_over:
                return
            if deadline is not None and self._clock() >= deadline:
                raise WaitedTooLong(study_id, deadline - begun)
            link.broke(cause)

    def wait(self, study_id: str, *, timeout: float | None = None) -> StudyView:
        """The study, once it has ended; raises `WaitedTooLong` after `timeout` seconds."""
        deadline = None if timeout is None else self._clock() + timeout
        study = self.study(study_id)
        if study.ended_at is None:
            for _ in self.events(study_id, deadline=deadline):
                pass
            study = self.study(study_id)
        return study

    def best(self, study_id: str) -> TrialView:
        """The best trial so far."""
        return _read(TrialView, self._connection.request("GET", f"{_study(study_id)}/best"))

    def manifest(self, study_id: str, trial: int | None = None) -> ManifestView:
        """The files of a trial's exported checkpoint, or the best trial's."""
        return _read(ManifestView, self._connection.request("GET", _checkpoint(study_id, trial)))

    def pull(
        self,
        study_id: str,
        directory: Path | str,
        trial: int | None = None,
        *,
        force: bool = False,
        progress: Progress = silent,
        manifest: ManifestView | None = None,
    ) -> Path:
        """Download and verify a checkpoint into a folder, all or nothing; returns the folder.

        An earlier pull there is replaced; anything else only with `force`. Raises `PullRefused`, `CorruptDownload`.
        `manifest` is what `manifest` answered, where the caller has asked already.
        """
        wanted = manifest or self.manifest(study_id, trial)
        # By number: the best trial may be another one by the time the last file is fetched.
        place = _checkpoint(study_id, wanted.trial)
        for tries_left in reversed(range(_PULLS)):
            try:
                return pull_checkpoint(
                    self._connection, f"{place}/files", wanted, Path(directory), force=force, progress=progress
                )
            except ProblemError as error:
                replaced = error.problem.status == httpx.codes.PRECONDITION_FAILED
                if not (replaced and tries_left):
                    raise
                wanted = self.manifest(study_id, wanted.trial)
        raise AssertionError  # the last try returns or raises

    def upload(self, dataset: str, path: Path | str) -> DatasetFileView:
        """Store a CSV, JSONL or Parquet file; a study names it as `dataset://DATASET/FILE`."""
        source = Path(path)
        route = f"/v1/datasets/{quote(dataset, safe='')}/files/{quote(source.name, safe='')}"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(source.stat().st_size)}
        return _read(DatasetFileView, self._connection.request("PUT", route, headers=headers, content=lambda: _chunks(source)))

    def datasets(self) -> DatasetsView:
        """Every uploaded file, and the data sets that are always there."""
        return _read(DatasetsView, self._connection.request("GET", "/v1/datasets"))

    def delete_dataset(self, dataset: str, file: str | None = None) -> DeletedFilesView:
        """Delete a data set, or one file of it; raises `ProblemError` of status 409 while a study that has not ended names it."""
        rest = "" if file is None else f"/files/{quote(file, safe='')}"
        return _read(DeletedFilesView, self._connection.request("DELETE", f"/v1/datasets/{quote(dataset, safe='')}{rest}"))

    def model(self, name: str, *, batch_size: int = 32, max_length: int = 128, method: Method = "full") -> ModelView:
        """A base model, with the memory that training it takes."""
        params = {"batch_size": batch_size, "max_length": max_length, "method": method}
        return _read(ModelView, self._connection.request("GET", f"/v1/models/{quote(name, safe='')}", params=params))

    def models(
        self,
        task: str | None = None,
        *,
        dataset: str | None = None,
        text: str | None = None,
        label: str | None = None,
        names: Iterable[str] = (),
        timeout: float = 600.0,
    ) -> CandidatesView:
        """Base models where the service runs; with a data set, the best for it first, which takes seconds for each model.

        Raises `ProblemError` of status 503 when that is not done after `timeout` seconds.
        """
        query = {"task": task, "dataset": dataset, "text": text, "label": label, "models": list(names)}
        params = {key: value for key, value in query.items() if value not in (None, [])}
        deadline = self._clock() + timeout
        while True:
            try:
                return _read(CandidatesView, self._connection.request("GET", "/v1/models", params=params))
            except ProblemError as error:
                if error.problem.status != httpx.codes.SERVICE_UNAVAILABLE or self._clock() >= deadline:
                    raise
            self._connection.sleep(_TRYING_SECONDS)

    def mlflow_address(self, study: StudyView) -> str | None:
        """The study's page in the MLflow UI, once it has one."""
        return urljoin(self.url + "/", study.links.mlflow) if study.links.mlflow else None

    def login_link(self, next: str = "/mlflow/") -> str:  # noqa: A002 - the query's own word
        """A link that logs a browser in and opens `next`; it works once, for a few minutes."""
        answer = self._connection.request("POST", "/v1/login-links", content=json.dumps({"next": next}).encode())
        return urljoin(self.url + "/", _read(LoginLinkView, answer).url)

    def _tell(self, study_id: str, verb: str, document: Mapping[str, Any] | None = None) -> StudyView:
        headers = {"Content-Type": _JSON} if document else None
        body = json.dumps(document, allow_nan=False).encode() if document else None
        answer = self._connection.request("POST", f"{_study(study_id)}:{verb}", headers=headers, content=body)
        return _read(StudyView, answer)

    def _stream(self, study_id: str, after: int, deadline: float | None) -> Iterator[EventView | None]:
        """One connection's events; None for each sign of life."""
        idle = _IDLE_SECONDS if deadline is None else max(0.05, min(_IDLE_SECONDS, deadline - self._clock()))
        headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
        with self._connection.stream(f"{_study(study_id)}/events", headers=headers, idle_seconds=idle) as response:
            if response.status_code == httpx.codes.NO_CONTENT:
                raise _NothingMore
            for message in messages(lines_of(response.iter_bytes())):
                yield None if message is None else EventView.model_validate_json(message.data)

    def _pages(self, path: str, query: Mapping[str, Any], page: type[StudyPage | TrialPage]) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            params = {key: value for key, value in {**query, "cursor": cursor}.items() if value not in (None, [])}
            found = page.model_validate_json(self._connection.request("GET", path, params=params).content)
            yield from found.items
            cursor = found.cursor
            if cursor is None:
                return


class _Link:
    """What becomes of the connections to one event stream, one after the other."""

    def __init__(self, connection: Connection, tell: Callable[[str | None], None] | None) -> None:
        self._connection, self._tell = connection, tell or (lambda _: None)
        self._failures = 0

    def stands(self) -> None:
        """There was a sign of life."""
        if self._failures > 1:
            self._tell(None)
        self._failures = 0

    def broke(self, cause: str) -> None:
        """Pause before the next connection. Raises `ServiceUnreachable` after too many that gave nothing."""
        if self._failures >= len(RECONNECT_SECONDS):
            raise ServiceUnreachable(self._connection.url, cause)
        if self._failures:  # a stream that ends and is there again at once is nothing to tell of
            self._tell(cause)
        self._connection.sleep(RECONNECT_SECONDS[self._failures])
        self._failures += 1


class _NothingMore(Exception):
    """The study has ended, and its last event was seen."""


def _study(study_id: str) -> str:
    return f"/v1/studies/{quote(study_id, safe='')}"


def _checkpoint(study_id: str, trial: int | None) -> str:
    place = "best" if trial is None else f"trials/{trial}"
    return f"{_study(study_id)}/{place}/checkpoint"


def _encoded(definition: Definition) -> tuple[bytes, str]:
    """A definition's bytes and their content type; what is text already is sent as it is."""
    match definition:
        case Path():
            body = definition.read_bytes()
        case str():
            body = definition.encode()
        case bytes():
            body = definition
        case _:
            return json.dumps(definition, allow_nan=False).encode(), _JSON
    if isinstance(definition, Path) and definition.suffix == ".json":
        return body, _JSON
    try:
        json.loads(body)
    except ValueError:
        return body, "application/yaml"
    return body, _JSON


def _read(model: type[V], response: httpx.Response) -> V:
    return model.model_validate_json(response.content)


def _read_list(model: type[V], response: httpx.Response) -> list[V]:
    return TypeAdapter(list[model]).validate_json(response.content)  # type: ignore[valid-type]  # a type made at run time


def _ends(event: EventView) -> bool:
    """Whether this may be the last event of a study."""
    return event.kind is EventKind.STUDY_STATE and StudyState(event.payload["state"]).is_end


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
