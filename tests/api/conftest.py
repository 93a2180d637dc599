"""The application over fakes: no process, no socket."""

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from starlette.testclient import TestClient

from service.api.app import create_api
from service.api.dependencies import ApiParts
from service.api.summaries import Summaries
from service.domain.base_models import FoundModel, Probed, ProbeRows
from service.domain.checkpoint import CheckpointFile, Manifest
from service.domain.datasets import NO_LIMITS, Allowance, DatasetFile
from service.domain.definition import StudyDefinition
from service.domain.errors import (
    CheckpointNotFound,
    DatasetNotFound,
    FileNotInCheckpoint,
    ModelNotFound,
    NoSpace,
    StudyNotFound,
    UnreadableDataset,
)
from service.domain.forecast import Forecast
from service.domain.history import PriorTrial
from service.domain.ports import Change, LocalSources
from service.domain.preview import PlannedBracket, PlannedTrial, Preview
from service.domain.stored import Freed, Stored, StoredKind
from service.domain.study import Study, StudyReason
from service.domain.study_analysis import Figure, StudyAnalysis
from service.domain.trial import Trial
from service.settings import Settings
from service.store.memory import memory_store
from tests.builders import NOW, a_forecast, a_report, a_study, a_trial
from tests.fakes import FakeClock

TOKEN = "a-token-for-tests"
MODEL = {"config.json": b'{"id2label": {}}', "model.safetensors": bytes(range(256)) * 10, "README.md": b"# Model\n"}


@dataclass
class FakeCatalog:
    """Says what it is told to about every definition."""

    refusal: Exception | None = None
    projects: list[str] = field(default_factory=list)
    """Whose rows were asked for."""

    def of(self, project: str) -> "FakeCatalog":
        self.projects.append(project)
        return self

    def check(self, definition: StudyDefinition) -> None:
        if self.refusal:
            raise self.refusal

    def fetch(self, definition: StudyDefinition) -> LocalSources:
        raise NotImplementedError


@dataclass
class FakeModels:
    """Models to describe, and how they do on any rows; `asked` is what they were tried on."""

    found: list[FoundModel] = field(default_factory=list)
    probed: dict[str, Probed] = field(default_factory=dict)
    refusal: Exception | None = None
    asked: list[tuple[str, ProbeRows, Sequence[str]]] = field(default_factory=list)

    def of(self, project: str) -> "FakeModels":
        return self

    def describe(self, name: str) -> FoundModel:
        for one in self.found:
            if one.name == name:
                return one
        raise ModelNotFound(f"{name!r} is not on this machine, and the service is offline.")

    def here(self) -> Sequence[FoundModel]:
        return self.found

    def probe(self, kind: str, rows: ProbeRows, names: Sequence[str]) -> Mapping[str, Probed]:
        self.asked.append((kind, rows, names))
        if self.refusal:
            raise self.refusal
        return {name: self.probed.get(name, Probed(failure="no time for it")) for name in names}


@dataclass
class FakeDatasets:
    files: dict[tuple[str, str], DatasetFile] = field(default_factory=dict)
    contents: dict[tuple[str, str], bytes] = field(default_factory=dict)
    projects: dict[str, "FakeDatasets"] = field(default_factory=dict)
    """Those of every project that was asked for."""
    free_bytes: int = 10**12
    allowances: list[Allowance] = field(default_factory=list)
    """What uploads were allowed to come to, each in turn."""

    def of(self, project: str) -> "FakeDatasets":
        self.projects.setdefault("default", self)  # the first to be asked is the one that the test has
        return self.projects.setdefault(project, FakeDatasets(projects=self.projects))

    def put(self, dataset: str, file: str, content: BinaryIO, now: datetime, allowance: Allowance = NO_LIMITS) -> DatasetFile:
        self.allowances.append(allowance)
        if not file.endswith(".csv"):
            raise UnreadableDataset(f"{file!r} is not a format read here: upload .csv, .jsonl or .parquet.")
        read = content.read()
        if not read.startswith(b"text,"):
            raise UnreadableDataset(f"{file!r} has no column `text`: add a header.")
        columns = tuple(read.decode().splitlines()[0].split(","))
        stored = DatasetFile(dataset, file, len(read), hashlib.sha256(read).hexdigest(), read.count(b"\n") - 1, columns, now)
        self.files[dataset, file] = stored
        self.contents[dataset, file] = read
        return stored

    def get(self, dataset: str, file: str) -> DatasetFile:
        try:
            return self.files[dataset, file]
        except KeyError:
            raise DatasetNotFound(f"There is no file {file!r} in {dataset!r}.") from None

    def all(self) -> Sequence[DatasetFile]:
        return [self.files[key] for key in sorted(self.files)]

    def delete(self, dataset: str, file: str | None = None) -> Sequence[DatasetFile]:
        keys = [key for key in sorted(self.files) if key[0] == dataset and file in {None, key[1]}]
        if not keys:
            raise DatasetNotFound(f"There is no file {file!r} in {dataset!r}.")
        return [self.files.pop(key) for key in keys]

    def size(self) -> int:
        return sum(stored.bytes for stored in self.files.values())

    def require_room(self, more: int) -> None:
        if more > self.free_bytes:
            raise NoSpace("/datasets", more, self.free_bytes)

    def path(self, dataset: str, file: str) -> Path:
        raise NotImplementedError


class RecordedFile(io.BytesIO):
    """An open file; the test looks whether it was closed."""


@dataclass
class FakeCheckpoints:
    exports: dict[tuple[str, int, int], Mapping[str, bytes]] = field(default_factory=dict)
    analyses: dict[tuple[str, int, int], Mapping[str, Any]] = field(default_factory=dict)
    opened: list[RecordedFile] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    links_to: str | None = None
    """Where the storage hands out files itself, if it does."""
    at_next_open: list[Callable[[], object]] = field(default_factory=list)
    """What happens meanwhile, one at each opening."""

    def export(self, study_id: str, trial: int, report: int = 1, files: Mapping[str, bytes] | None = None) -> None:
        self.exports[study_id, trial, report] = files or MODEL

    def studies(self) -> Mapping[str, datetime]:
        raise NotImplementedError

    def manifest(self, study_id: str, trial: int, report: int) -> Manifest:
        if (study_id, trial, report) not in self.exports:
            raise CheckpointNotFound(f"Trial {trial} has no checkpoint: only the best trials' are kept.")
        files = self.exports[study_id, trial, report]
        listed = [CheckpointFile(path, len(files[path]), hashlib.sha256(files[path]).hexdigest()) for path in sorted(files)]
        return Manifest(study_id, trial, report, tuple(listed))

    def analysis(self, study_id: str, trial: int, report: int) -> Mapping[str, Any]:
        if (study_id, trial, report) not in self.analyses:
            raise CheckpointNotFound(f"Trial {trial} has no analysis.")
        return self.analyses[study_id, trial, report]

    def open(self, study_id: str, trial: int, report: int, path: str) -> BinaryIO:
        if self.at_next_open:
            self.at_next_open.pop(0)()
        files = self.exports.get((study_id, trial, report))
        if files is None:
            raise CheckpointNotFound("A better checkpoint has just replaced this one: read the manifest again.")
        if path not in files:
            raise FileNotInCheckpoint(f"The checkpoint has no file {path!r}.")
        self.opened.append(RecordedFile(files[path]))
        return self.opened[-1]

    def link(self, study_id: str, trial: int, report: int, path: str) -> str | None:
        return None if self.links_to is None else f"{self.links_to}/{path}?signature=secret"

    def has_room(self, study_id: str) -> bool:
        return True

    def can_resume(self, study_id: str, trial: int) -> bool:
        raise NotImplementedError

    def fork(self, study_id: str, parent: int, child: int, report: int) -> int:
        raise NotImplementedError

    def stored(self, study_id: str) -> Sequence[Stored]:
        return [
            Stored(trial, StoredKind.EXPORT, report, sum(map(len, files.values())), NOW, "export")
            for (of, trial, report), files in self.exports.items()
            if of == study_id
        ]

    def drop(self, study_id: str, stored: Sequence[Stored]) -> None:
        raise NotImplementedError

    def delete(self, study_id: str) -> Freed:
        self.deleted.append(study_id)
        exports = [self.exports.pop(key) for key in list(self.exports) if key[0] == study_id]
        return Freed(sum(map(len, exports)), sum(len(content) for files in exports for content in files.values()))


@dataclass
class FakeAnalyst:
    """Analyses to answer, by study; figures are their own names."""

    analyses: dict[str, StudyAnalysis] = field(default_factory=dict)
    refusal: Exception | None = None

    def analysis(self, study_id: str) -> StudyAnalysis:
        if self.refusal:
            raise self.refusal
        if study_id not in self.analyses:
            raise StudyNotFound(study_id)
        return self.analyses[study_id]

    def figure(self, study_id: str, figure: Figure) -> bytes:
        self.analysis(study_id)
        return figure.encode()


@dataclass
class FakePreviewer:
    """Foresees the same of every study; `asked` is what it was given."""

    refusal: Exception | None = None
    asked: list[tuple[StudyDefinition, Sequence[PriorTrial], float | None]] = field(default_factory=list)

    def __call__(self, definition: StudyDefinition, prior: Sequence[PriorTrial], seconds_per_report: float | None) -> Preview:
        self.asked.append((definition, prior, seconds_per_report))
        if self.refusal:
            raise self.refusal
        return Preview(
            strategy={"kind": "random"}, reason=None, brackets=[PlannedBracket(0, (1, 3), (3, 1))],
            configurations=[PlannedTrial({"learning_rate": 1e-3}, "Drawn at random.")], grid_size=None, space_size=None,
            trials=4, reports=12, final_runs=0, seconds=None if seconds_per_report is None else 12 * seconds_per_report,
        )  # fmt: skip


@dataclass
class FakeForecaster:
    """Foretells the same of every study."""

    refusal: Exception | None = None

    def __call__(self, study_id: str) -> Forecast:
        if self.refusal:
            raise self.refusal
        return a_forecast()


@dataclass
class World:
    """The parts, and what a driver would do to them."""

    parts: ApiParts
    clock: FakeClock
    catalog: FakeCatalog
    models: FakeModels
    datasets: FakeDatasets
    checkpoints: FakeCheckpoints
    analyst: FakeAnalyst
    previewer: FakePreviewer
    forecaster: FakeForecaster

    def has_study(self, study_id: str = "intents-abc123", **changes: object) -> Study:
        return self.parts.store.studies.add(a_study(study_id, **changes))  # type: ignore[arg-type]  # the builder's keywords

    def runs(self, study: Study) -> Study:
        return self.parts.store.studies.save(study.running(self.clock.now()))

    def ends(self, study: Study, reason: StudyReason = StudyReason.BUDGET_SPENT) -> Study:
        stopping = self.parts.store.studies.save(study.stopping(reason))
        return self.parts.store.studies.save(stopping.ended(self.clock.now()))

    def has_trial(self, study: Study, number: int = 0, accuracies: Sequence[float] = ()) -> Trial:
        """A trial that has reported these."""
        store = self.parts.store
        store.leases.acquire(study.id, "driver", self.clock.now(), timedelta(days=1))
        store.trials.record("driver", [Change(a_trial(number, study.id))])
        trial = store.trials.get(study.id, number)
        if accuracies:
            store.trials.record("driver", [Change(trial.started(NOW))])
        return self.reports(store.trials.get(study.id, number), accuracies)

    def reports(self, trial: Trial, accuracies: Sequence[float]) -> Trial:
        """The trial after these reports."""
        objective = self.parts.store.studies.get(trial.study_id).definition.objective
        for accuracy in accuracies:
            report = a_report(trial.reports + 1, accuracy)
            change = Change(trial.reported(report, objective, gpus=0.5), report=report)
            self.parts.store.trials.record("driver", [change])
            trial = self.parts.store.trials.get(trial.study_id, trial.number)
        return trial


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock, catalog, models, datasets, checkpoints = FakeClock(), FakeCatalog(), FakeModels(), FakeDatasets(), FakeCheckpoints()
    settings, analyst, previewer = Settings(home=tmp_path, max_upload_bytes=2000), FakeAnalyst(), FakePreviewer()
    forecaster = FakeForecaster()
    store = memory_store()
    parts = ApiParts(
        store=store, summaries=Summaries(store.trials), datasets=datasets, checkpoints=checkpoints, catalog=catalog,
        models=models,
        analyst=analyst, previewer=previewer, forecaster=forecaster, clock=clock, settings=settings, token=TOKEN,
    )  # fmt: skip
    return World(parts, clock, catalog, models, datasets, checkpoints, analyst, previewer, forecaster)


def client_of(parts: ApiParts, token: str | None = TOKEN) -> TestClient:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return TestClient(create_api(parts), base_url="http://127.0.0.1:8080", headers=headers, raise_server_exceptions=False)


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    with client_of(world.parts) as client:
        yield client


@pytest.fixture
def stranger(world: World) -> Iterator[TestClient]:
    """Somebody without the token."""
    with client_of(world.parts, token=None) as client:
        yield client


def with_parts(world: World, **changes: object) -> ApiParts:
    parts = replace(world.parts, **changes)  # type: ignore[arg-type]  # fields of ApiParts
    return replace(parts, summaries=Summaries(parts.store.trials))
