"""What travels between a driver and its workers, as JSON: an attempt to run, and what it has come to."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from search_spaces import Value
from service.domain.ports import LocalSources, SharedSources
from service.domain.study import Study
from service.domain.trial import Report, Trial
from trainers.contract import GpuMemory


@dataclass(frozen=True)
class Assignment:
    """One attempt of one trial: train `configuration` from where the trial stands on disk to report `until`.

    `last` is the report after which the trial is whole, `inherited` the one up to which its reports are its parent's. Paths are
    strings, as they go through JSON. With `storage`, the address of an object storage, no path of the driver's means
    anything to the worker: `checkpoints` and `cache` are empty, and `models` and `sources` are what these are called there.
    """

    study_id: str
    study_name: str
    definition: Mapping[str, Any]
    number: int
    attempt: int
    parameters: Mapping[str, Value]
    configuration: Mapping[str, Any]
    metric: str
    direction: Literal["maximize", "minimize"]
    outcomes: Sequence[str]
    until: int
    last: int
    inherited: int
    parent: int | None
    checkpoints: str
    cache: str
    models: Mapping[str, str]
    sources: Mapping[str, str]
    threads: int
    gpus: float
    storage: str | None = None

    def to_json(self) -> str:
        return json.dumps(self.__dict__)  # not `asdict`, which copies every value of the definition

    @classmethod
    def from_json(cls, text: str) -> "Assignment":
        return cls(**json.loads(text))


def assign(study: Study, trial: Trial, sources: LocalSources, checkpoints: Path, cache: Path) -> Assignment:
    """The assignment for a trial whose attempt has just begun, for a worker that sees this machine's folders."""
    return _assign(study, trial, sources, str(checkpoints), str(cache), None)


def assign_afar(study: Study, trial: Trial, sources: SharedSources, storage: str) -> Assignment:
    """The same for a worker that sees none of them, and has everything from an object storage."""
    return _assign(study, trial, sources, "", "", storage)


def _assign(
    study: Study, trial: Trial, sources: LocalSources | SharedSources, checkpoints: str, cache: str, storage: str | None
) -> Assignment:
    definition = study.definition
    return Assignment(
        study_id=study.id,
        study_name=definition.name,
        definition=definition.model_dump(mode="json", exclude_none=True),
        number=trial.number,
        attempt=trial.attempts,
        parameters=trial.parameters,
        configuration=definition.configured(trial.parameters, trial.seed).model_dump(mode="json"),
        metric=definition.objective.metric,
        direction=definition.objective.direction,
        outcomes=definition.outcomes,
        until=trial.until,
        last=definition.reports_of(trial.parameters),
        inherited=trial.parent_report,
        parent=trial.parent,
        checkpoints=checkpoints,
        cache=cache,
        models={name: str(path) for name, path in sources.models.items()},
        sources={name: str(path) for name, path in sources.sources.items()},
        threads=definition.resources.cpus_per_trial,
        gpus=study.resources.gpus,
        storage=storage,
    )


@dataclass(frozen=True)
class Progress:
    """What one step of an attempt came to: the reports the store may not know yet, and its end once it has come.

    `worker` is None where the attempt ended before one had it. `done` is an attempt that came to its last report, `stopped_early`
    one whose trainer gives no more reports, `refused` a configuration that the trainer does not take, `no_space` an attempt whose
    disk is full, `away` one whose object storage did not take or give what it had to, `interrupted` one that was asked to leave
    and has trained `seconds` since its last report. `memory` is what it has taken of its GPU by its last report.
    """

    number: int
    attempt: int
    worker: str | None
    reports: Sequence[Report] = ()
    outcome: Literal["done", "stopped_early", "failed", "refused", "no_space", "away", "interrupted"] | None = None
    reason: str | None = None
    detail: str | None = None
    seconds: float = 0.0
    memory: GpuMemory | None = None

    def to_json(self) -> str:
        reports = [report_to_dict(item) for item in self.reports]
        return json.dumps({**self.__dict__, "reports": reports, "memory": self.memory and asdict(self.memory)})

    @classmethod
    def from_json(cls, text: str) -> "Progress":
        loaded = json.loads(text)
        memory = loaded["memory"] and GpuMemory(**loaded["memory"])
        return cls(**{**loaded, "reports": [report_from_dict(report) for report in loaded["reports"]], "memory": memory})


def report_to_dict(report: Report) -> dict[str, Any]:
    """A report as JSON can hold it."""
    return {**report.__dict__, "metrics": dict(report.metrics), "at": report.at.isoformat()}


def report_from_dict(stored: Mapping[str, Any]) -> Report:
    """What `report_to_dict` made, and whatever else stands beside it left out."""
    return Report(**{name: stored[name] for name in _REPORT_FIELDS} | {"at": datetime.fromisoformat(stored["at"])})


_REPORT_FIELDS = [field.name for field in fields(Report)]
