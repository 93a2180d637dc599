"""What a driver writes of its trials: its only steady work, so each statement is built once and none is for nothing."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, select

from service.domain.decision import Decision
from service.domain.errors import LeaseLost
from service.domain.events import Event, EventKind
from service.domain.ports import Change
from service.domain.trial import Attempt, Report, Trial
from service.store import tables
from service.store.rows import attempt_row, decision_of, report_payload, report_row, trial_payload, trial_row
from service.store.studies import append_events

_TRIALS, _REPORTS, _ATTEMPTS, _DECISIONS = tables.trials.c, tables.reports.c, tables.attempts.c, tables.decisions.c
_STUDY: BindParameter[str] = bindparam("of_study")
_TRIAL: BindParameter[int] = bindparam("of_trial")
_NUMBER: BindParameter[int] = bindparam("of_number")

_HOLDER = select(tables.leases.c.owner).where(tables.leases.c.study_id == _STUDY).with_for_update()
_THE_TRIAL = (_TRIALS.study_id == _STUDY) & (_TRIALS.number == _TRIAL)
_BEFORE = select(_TRIALS.state, _TRIALS.attempts, _TRIALS.version).where(_THE_TRIAL)
_ADD_TRIAL, _CHANGE_TRIAL = tables.trials.insert(), tables.trials.update().where(_THE_TRIAL)
_THE_REPORT = (_REPORTS.study_id == _STUDY) & (_REPORTS.trial == _TRIAL) & (_REPORTS.number == _NUMBER)
_FIND_REPORT, _ADD_REPORT = select(_REPORTS.number).where(_THE_REPORT), tables.reports.insert()
_THE_ATTEMPT = (_ATTEMPTS.study_id == _STUDY) & (_ATTEMPTS.trial == _TRIAL) & (_ATTEMPTS.number == _NUMBER)
_ADD_ATTEMPT, _CHANGE_ATTEMPT = tables.attempts.insert(), tables.attempts.update().where(_THE_ATTEMPT)
_OF_TRIAL = (_DECISIONS.study_id == _STUDY) & (_DECISIONS.trial == _TRIAL)
_LAST_DECISION = select(tables.decisions).where(_OF_TRIAL).order_by(_DECISIONS.number.desc()).limit(1)
_ADD_DECISION = tables.decisions.insert()


def record_changes(connection: Connection, owner: str, changes: Sequence[Change], now: datetime) -> None:
    """Write changes of one study, and the events that tell of them. Raises LeaseLost."""
    study_id = changes[0].trial.study_id
    if any(change.trial.study_id != study_id for change in changes):
        raise ValueError("all changes of one record belong to one study")
    _require_lease(connection, study_id, owner)
    events: list[Event] = []
    for _, of_one in groupby(changes, lambda change: change.trial.number):
        events += _record_trial(connection, list(of_one), now)
    append_events(connection, study_id, events)


def _require_lease(connection: Connection, study_id: str, owner: str) -> None:
    """Hold the lease's row to the end of the transaction. Raises LeaseLost."""
    holder = connection.execute(_HOLDER, {"of_study": study_id}).scalar()
    if holder != owner:
        raise LeaseLost(f"Study {study_id!r} is {'held by another process' if holder else 'no longer held by this process'}.")


def _record_trial(connection: Connection, changes: Sequence[Change], now: datetime) -> list[Event]:
    """Write changes of one trial, of which the last says what it is now; answers what happened, change by change."""
    last = changes[-1].trial
    found = connection.execute(_BEFORE, _named(last)).mappings().one_or_none()
    if found is None:
        connection.execute(_ADD_TRIAL, trial_row(replace(last, version=len(changes) - 1)))
    else:
        row = trial_row(replace(last, version=found["version"] + len(changes)))
        connection.execute(_CHANGE_TRIAL, {**row, **_named(last)})
    state = None if found is None else (found["state"], found["attempts"])
    is_again = state == (last.state.value, last.attempts)  # what lies between was told when it was written first
    events = []
    for change in changes:
        trial, report = change.trial, change.report
        if state is None:
            payload = {**trial_payload(trial), "parameters": dict(trial.parameters)}
            events.append(Event(EventKind.TRIAL_CREATED, trial.study_id, trial.created_at, payload))
        if report is not None and not _has_report(connection, trial, report):
            connection.execute(_ADD_REPORT, _keyed(trial, report_row(report)))
            events.append(Event(EventKind.TRIAL_REPORT, trial.study_id, report.at, report_payload(trial.number, report)))
        if change.decision is not None:
            _add_decision(connection, trial, change.decision, now)
        now_in = (trial.state.value, trial.attempts)
        if state not in {None, now_in} and not is_again:
            events.append(Event(EventKind.TRIAL_STATE, trial.study_id, now, trial_payload(trial)))
        state = now_in
    for attempt in {change.attempt.number: change.attempt for change in changes if change.attempt is not None}.values():
        _put_attempt(connection, last, attempt, is_new=found is None)
    return events


def _has_report(connection: Connection, trial: Trial, report: Report) -> bool:
    return connection.execute(_FIND_REPORT, {**_named(trial), "of_number": report.number}).first() is not None


def _put_attempt(connection: Connection, trial: Trial, attempt: Attempt, *, is_new: bool) -> None:
    row = _keyed(trial, attempt_row(attempt))
    if is_new or not connection.execute(_CHANGE_ATTEMPT, {**row, **_named(trial), "of_number": attempt.number}).rowcount:
        connection.execute(_ADD_ATTEMPT, row)


def _add_decision(connection: Connection, trial: Trial, decision: Decision, now: datetime) -> None:
    """Append it, unless it is the last one again: of a database that went away nobody knows what it had stored."""
    before = connection.execute(_LAST_DECISION, _named(trial)).mappings().one_or_none()
    if before is not None and decision_of(before) == decision:
        return
    row = {"number": before["number"] + 1 if before else 1, "at": now, "document": decision.to_json()}
    connection.execute(_ADD_DECISION, _keyed(trial, row))


def _named(trial: Trial) -> dict[str, Any]:
    return {"of_study": trial.study_id, "of_trial": trial.number}


def _keyed(trial: Trial, row: dict[str, Any]) -> dict[str, Any]:
    return {"study_id": trial.study_id, "trial": trial.number, **row}
