"""A tracker in memory, with the same contract as MLflow's: for tests, and for trying the mirror without a server."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from threading import Lock
from typing import BinaryIO

from service.domain.access import PROJECT_TAG
from service.domain.deletion import Forgotten
from service.tracking.tracker import STUDY, TRIAL_TAG, Batch, Champion, Metric, NewRun, RunStatus, TrackerForgot, TrackerRefused


@dataclass
class RememberedRun:
    """A run as a tracking server would show it."""

    experiment_id: str
    name: str
    started_at: datetime
    tags: dict[str, str]
    params: dict[str, str] = field(default_factory=dict)
    metrics: set[Metric] = field(default_factory=set)
    files: dict[str, bytes] = field(default_factory=dict)
    status: RunStatus = RunStatus.RUNNING
    ended_at: datetime | None = None

    def curve(self, key: str) -> list[tuple[int, float]]:
        """Steps and values of one metric."""
        return sorted((metric.step, metric.value) for metric in self.metrics if metric.key == key)


class MemoryTracker:
    """Everything a mirror wrote, to look at. Runs may be made from several threads."""

    def __init__(self) -> None:
        self.studies: dict[str, tuple[str, Mapping[str, str]]] = {}
        """Experiment id and tags of each study."""
        self.by_id: dict[str, RememberedRun] = {}
        self.champions: dict[str, Champion] = {}
        self._experiments = 0
        self._lock = Lock()

    def experiments(self) -> Mapping[str, str]:
        return {study_id: experiment_id for study_id, (experiment_id, _) in self.studies.items()}

    def open_experiment(self, study_id: str, tags: Mapping[str, str]) -> str:
        if study_id not in self.studies:
            self._experiments += 1
            self.studies[study_id] = (str(self._experiments), tags)
        return self.studies[study_id][0]

    def runs(self, experiment_id: str) -> Mapping[int, str]:
        found: dict[int, str] = {}
        for run_id, run in self.by_id.items():
            if run.experiment_id == experiment_id:
                found.setdefault(_number(run), run_id)
        return found

    def create_run(self, experiment_id: str, run: NewRun) -> str:
        if experiment_id not in self.experiments().values():
            raise TrackerForgot(f"There is no experiment {experiment_id}.")
        with self._lock:
            run_id = f"run-{len(self.by_id) + 1}"
            self.by_id[run_id] = RememberedRun(experiment_id, run.name, run.started_at, dict(run.tags))
        return run_id

    def log(self, run_id: str, batch: Batch) -> None:
        run = self._run(run_id)
        changed = [key for key, value in batch.params.items() if run.params.get(key, value) != value]
        if changed:
            raise TrackerRefused(f"Parameter {changed[0]} of {run_id} has another value.")
        run.params |= batch.params
        run.tags |= batch.tags
        run.metrics |= set(batch.metrics)

    def end_run(self, run_id: str, status: RunStatus, ended_at: datetime) -> None:
        run = self._run(run_id)
        run.status, run.ended_at = status, ended_at

    def reopen_run(self, run_id: str) -> None:
        run = self._run(run_id)
        run.status, run.ended_at = RunStatus.RUNNING, None

    def upload(self, run_id: str, path: str, content: BinaryIO, size: int) -> None:
        read = content.read()
        if len(read) != size:
            raise TrackerRefused(f"{path} has {len(read)} bytes, not {size}.")
        self._run(run_id).files[path] = read

    def champion(self, name: str) -> tuple[str, int] | None:
        known = self.champions.get(name)
        return None if known is None else (known.run_id, known.report)

    def register(self, champion: Champion) -> None:
        self.champions[champion.name] = champion

    def running(self) -> Sequence[tuple[str, int]]:
        of_study = {experiment_id: study_id for study_id, experiment_id in self.experiments().items()}
        return [(of_study[run.experiment_id], _number(run)) for run in self.by_id.values() if run.status is RunStatus.RUNNING]

    def unowned(self) -> Mapping[str, str]:
        return {study_id: found for study_id, (found, tags) in self.studies.items() if PROJECT_TAG not in tags}

    def own(self, study_id: str, experiment_id: str, project: str) -> None:
        tag = {PROJECT_TAG: project}
        if study_id in self.champions:
            known = self.champions[study_id]
            self.champions[study_id] = replace(known, tags={**known.tags, **tag})
        self.studies[study_id] = (experiment_id, {**self.studies[study_id][1], **tag})

    def forget(self, study_id: str, experiment_id: str) -> Forgotten:
        had_model = self.champions.pop(study_id, None) is not None
        self.studies.pop(study_id, None)
        left = {run_id: run for run_id, run in self.by_id.items() if run.experiment_id != experiment_id}
        forgotten = Forgotten(experiment_id, len(self.by_id) - len(left), had_model)
        self.by_id = left
        return forgotten

    def _run(self, run_id: str) -> RememberedRun:
        try:
            return self.by_id[run_id]
        except KeyError:
            raise TrackerForgot(f"There is no run {run_id}.") from None


def _number(run: RememberedRun) -> int:
    return int(run.tags[TRIAL_TAG].rpartition("/")[2]) if TRIAL_TAG in run.tags else STUDY
