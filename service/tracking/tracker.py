"""What the mirror needs of a tracking server. The adapters: `mlflow` over HTTP, `memory` for tests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, Protocol

from service.domain.deletion import Forgotten
from service.domain.errors import TuneyardError

STUDY = -1
"""The number of a study's own run among those of its trials, as in `MirroredTrial`."""
STUDY_TAG = "tuneyard.study"
TRIAL_TAG = "tuneyard.trial"
REPORT_TAG = "tuneyard.report"
CHAMPION = "champion"


class TrackerAway(TuneyardError):
    """The tracking server cannot be reached or is too busy: all of it is tried again later."""


class TrackerRefused(TuneyardError):
    """The tracking server did not take what it was sent: nothing is wrong with what concerns other studies."""


class TrackerForgot(TuneyardError):
    """The tracking server has no such experiment or run any more: somebody removed it there."""


class RunStatus(StrEnum):
    """MLflow's words for where a run is."""

    RUNNING = "RUNNING"
    FINISHED = "FINISHED"
    KILLED = "KILLED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Metric:
    """One point of a curve."""

    key: str
    value: float
    step: int
    at: datetime


@dataclass(frozen=True)
class NewRun:
    """A run to create. `tags` tell whose it is from the first moment on, so that it can be found again."""

    name: str
    started_at: datetime
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Batch:
    """What to add to a run. Adding the same again changes nothing."""

    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()


@dataclass(frozen=True)
class Champion:
    """A registered model's best version: the files under `folder` of a run, which are those of that report."""

    name: str
    run_id: str
    report: int
    folder: str
    description: str
    tags: Mapping[str, str]


class Tracker(Protocol):
    """A tracking server. Every method raises TrackerAway, TrackerRefused or TrackerForgot, and may be called again after each."""

    def experiments(self) -> Mapping[str, str]:
        """The experiment of each study that has one, by the study's id."""
        ...

    def open_experiment(self, study_id: str, tags: Mapping[str, str]) -> str:
        """The id of the study's experiment, created unless it is there."""
        ...

    def runs(self, experiment_id: str) -> Mapping[int, str]:
        """Ids of the runs tagged as ours, by trial number; -1 is the study's own."""
        ...

    def create_run(self, experiment_id: str, run: NewRun) -> str:
        """A new run's id. A caller that gets an error cannot know whether there is one now: `runs` tells."""
        ...

    def log(self, run_id: str, batch: Batch) -> None: ...

    def end_run(self, run_id: str, status: RunStatus, ended_at: datetime) -> None: ...

    def reopen_run(self, run_id: str) -> None:
        """Let a run that had ended go on; nothing happens to one that has not."""
        ...

    def upload(self, run_id: str, path: str, content: BinaryIO, size: int) -> None:
        """Store or replace one file of a run."""
        ...

    def champion(self, name: str) -> tuple[str, int] | None:
        """The run of the registered model's version with the alias `champion`, and the report that it is of."""
        ...

    def register(self, champion: Champion) -> None:
        """Make a run's files the champion of a registered model, both created unless they are there."""
        ...

    def running(self) -> Sequence[tuple[str, int]]:
        """Study and number of each run tagged as ours that has not ended; -1 is the study's own."""
        ...

    def unowned(self) -> Mapping[str, str]:
        """The experiment of each study that has one which does not say whose it is, by the study's id."""
        ...

    def own(self, study_id: str, experiment_id: str, project: str) -> None:
        """Let a study's registered model, its versions and its experiment say whose they are, the experiment last."""
        ...

    def forget(self, study_id: str, experiment_id: str) -> Forgotten:
        """Delete a study's experiment with its runs and all their files, and its registered model; answers what there was."""
        ...
