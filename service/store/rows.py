"""Values from rows, and rows from values."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from functools import lru_cache
from typing import Any

from sqlalchemy import RowMapping

from service.domain.decision import Decision
from service.domain.definition import StudyDefinition
from service.domain.events import Event, EventKind
from service.domain.history import PriorTrial
from service.domain.study import Study, StudyReason, StudyState, WarmStart
from service.domain.trial import Attempt, AttemptOutcome, Report, Trial, TrialReason, TrialRequest, TrialState

_KEPT_CHARACTERS = 64_000
"""The longest definition that is kept: few are as long, and all that are kept stay in each process."""
_STUDY_FIELDS = ("is_urgent", "idle_seconds", "idle_since", "resumed_at", "amended_at", "created_by", "trials_per_gpu", "project")
"""Those that the database holds as they are."""
_TRIAL_FIELDS = [field.name for field in fields(Trial)]
_ATTEMPT_FIELDS = [field.name for field in fields(Attempt)]
_REPORT_FIELDS = [field.name for field in fields(Report)]


def study_row(study: Study) -> dict[str, Any]:
    """A study's columns, all but the counter of its events."""
    return {
        "id": study.id,
        "name": study.definition.name,
        "definition": study.definition.model_dump_json(),
        "created_at": study.created_at,
        "state": study.state.value,
        "reason": study.reason and study.reason.value,
        "detail": study.detail,
        "started_at": study.started_at,
        "ended_at": study.ended_at,
        "version": study.version,
        "warm_start": study.warm_start and asdict(study.warm_start),
        **{name: getattr(study, name) for name in _STUDY_FIELDS},
    }


def study_of(row: RowMapping) -> Study:
    return Study(
        id=row["id"],
        definition=_definition_of(row["definition"]),
        created_at=row["created_at"],
        state=StudyState(row["state"]),
        reason=row["reason"] and StudyReason(row["reason"]),
        detail=row["detail"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        version=row["version"],
        warm_start=row["warm_start"] and WarmStart(**row["warm_start"]),
        **{name: row[name] for name in _STUDY_FIELDS},
    )


def _definition_of(text: str) -> StudyDefinition:
    return _kept(text) if len(text) <= _KEPT_CHARACTERS else StudyDefinition.model_validate_json(text)


@lru_cache(maxsize=1000)  # more than are active at once: what is read in turn, and does not fit, is never found again
def _kept(text: str) -> StudyDefinition:
    """A definition never changes: one object does for all who read the same text again and again."""
    return StudyDefinition.model_validate_json(text)


def trial_row(trial: Trial) -> dict[str, Any]:
    row = {name: getattr(trial, name) for name in _TRIAL_FIELDS}
    return {
        **row,
        "parameters": dict(trial.parameters),
        "state": trial.state.value,
        "reason": trial.reason and trial.reason.value,
    }


def trial_of(row: RowMapping) -> Trial:
    values: dict[str, Any] = {name: row[name] for name in _TRIAL_FIELDS}
    return Trial(**{**values, "state": TrialState(row["state"]), "reason": row["reason"] and TrialReason(row["reason"])})


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    row = {name: getattr(attempt, name) for name in _ATTEMPT_FIELDS}
    return {**row, "outcome": attempt.outcome and attempt.outcome.value}


def attempt_of(row: RowMapping) -> Attempt:
    values: dict[str, Any] = {name: row[name] for name in _ATTEMPT_FIELDS}
    return Attempt(**{**values, "outcome": row["outcome"] and AttemptOutcome(row["outcome"])})


def report_row(report: Report) -> dict[str, Any]:
    return {**{name: getattr(report, name) for name in _REPORT_FIELDS}, "metrics": dict(report.metrics)}


def report_of(row: RowMapping) -> Report:
    return Report(**{name: row[name] for name in _REPORT_FIELDS})


def decision_of(row: RowMapping) -> Decision:
    return Decision(**row["document"])


def request_of(row: RowMapping) -> TrialRequest:
    return TrialRequest(row["number"], row["parameters"], row["at"])


def prior_row(prior: PriorTrial) -> dict[str, Any]:
    return {**asdict(prior), "parameters": dict(prior.parameters)}


def prior_of(row: RowMapping) -> PriorTrial:
    return PriorTrial(**{**row["document"], "values": tuple(row["document"]["values"])})


def event_of(row: RowMapping) -> Event:
    return Event(EventKind(row["kind"]), row["study_id"], row["at"], row["payload"], row["id"])


def study_payload(study: Study) -> Mapping[str, Any]:
    """What an event tells of a study's state."""
    packed = study.trials_per_gpu if study.definition.resources.is_packed else None
    state = {"state": study.state.value, "reason": study.reason and study.reason.value, "detail": study.detail}
    return _without_none({**state, "trials_per_gpu": packed})


def changes_between(before: StudyDefinition, after: StudyDefinition) -> Mapping[str, Any]:
    """What an event tells of a changed definition: the old and the new value of each key, by its dotted path."""
    old, new = _flat(before.model_dump(mode="json")), _flat(after.model_dump(mode="json"))
    paths = [path for path in {**old, **new} if old.get(path) != new.get(path)]
    return {path: {"from": old.get(path), "to": new.get(path)} for path in paths}


def trial_payload(trial: Trial) -> Mapping[str, Any]:
    """What an event tells of a trial's state."""
    state = {"trial": trial.number, "state": trial.state.value, "attempt": trial.attempts, "until": trial.until}
    return _without_none({**state, "reason": trial.reason and trial.reason.value, "detail": trial.detail})


def report_payload(trial: int, report: Report) -> Mapping[str, Any]:
    """What an event tells of a report."""
    return {
        "trial": trial,
        "report": report.number,
        "epoch": report.epoch,
        "step": report.step,
        "metrics": dict(report.metrics),
        "attempt": report.attempt,
        "worker": report.worker,
    }


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {each: found for key, item in value.items() for each, found in _flat(item, f"{path}.{key}" if path else key).items()}


def _without_none(payload: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in payload.items() if value is not None}
