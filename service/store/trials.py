"""Trials with their attempts and reports, and what was decided about them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, select

from search_spaces import Configuration
from service.domain.decision import Decision
from service.domain.errors import LeaseLost, TrialNotFound
from service.domain.events import Event, EventKind
from service.domain.history import History
from service.domain.outcomes import Point
from service.domain.ports import Change, Clock, IdempotencyKey, Page, TrialQuery, TrialTotals
from service.domain.trial import Attempt, Report, Trial, TrialRequest, TrialState
from service.store import tables
from service.store.cursors import after, decode, encode
from service.store.database import Database
from service.store.requests import add_request, requests_of
from service.store.rows import (
    attempt_of,
    attempt_row,
    decision_of,
    prior_of,
    report_of,
    report_payload,
    report_row,
    trial_of,
    trial_payload,
    trial_row,
)
from service.store.studies import append_events, read_study, require_study

_TRIALS = tables.trials.c
_REPORTS = tables.reports.c
_ATTEMPTS = tables.attempts.c
_DECISIONS = tables.decisions.c
_PRIOR = tables.prior_trials.c


class SqlTrials:
    """The port `TrialStore`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def get(self, study_id: str, number: int) -> Trial:
        with self._database.reading() as connection:
            found = connection.execute(_one_trial(study_id, number)).mappings().one_or_none()
            if found is None:
                _refuse_trial(connection, study_id, number)
            else:
                return trial_of(found)
        raise TrialNotFound(study_id, number)

    def find(self, study_id: str, query: TrialQuery) -> Page[Trial]:
        is_down = query.order.startswith("-")
        by_value = query.order.endswith("best_value")
        statement = select(tables.trials).where(_TRIALS.study_id == study_id).limit(query.limit + 1)
        if query.states:
            statement = statement.where(_TRIALS.state.in_([state.value for state in query.states]))
        statement = (
            _in_value_order(statement, query, is_down=is_down) if by_value else _in_order(statement, query, is_down=is_down)
        )
        with self._database.reading() as connection:
            require_study(connection, study_id)
            found = [trial_of(row) for row in connection.execute(statement).mappings()]
        items = found[: query.limit]
        cursor = None
        if len(found) > query.limit:
            last = items[-1]
            value_key = [int(last.best_value is None), last.best_value or 0.0, last.number]
            cursor = encode(query.order, value_key if by_value else [last.number])
        return Page(items, cursor)

    def counts(self, study_ids: Iterable[str]) -> Mapping[str, Mapping[TrialState, int]]:
        wanted = list(study_ids)
        statement = (
            select(_TRIALS.study_id, _TRIALS.state, func.count())
            .where(_TRIALS.study_id.in_(wanted))
            .group_by(_TRIALS.study_id, _TRIALS.state)
        )
        found: dict[str, dict[TrialState, int]] = {study_id: {} for study_id in wanted}
        with self._database.reading() as connection:
            for study_id, state, count in connection.execute(statement):
                found[study_id][TrialState(state)] = count
        return found

    def totals(self, study_ids: Iterable[str]) -> Mapping[str, TrialTotals]:
        wanted = list(study_ids)
        statement = (
            select(
                _TRIALS.study_id,
                func.sum(case((_TRIALS.repeats.is_(None), 1), else_=0)),
                func.sum(case((_TRIALS.repeats.is_(None), _TRIALS.reports - _TRIALS.parent_report), else_=0)),
                func.sum(_TRIALS.gpu_seconds),
            )
            .where(_TRIALS.study_id.in_(wanted))
            .group_by(_TRIALS.study_id)
        )
        found = dict.fromkeys(wanted, TrialTotals())
        with self._database.reading() as connection:
            for study_id, trials, reports, gpu_seconds in connection.execute(statement):
                found[study_id] = TrialTotals(int(reports), float(gpu_seconds), int(trials))
        return found

    def best(self, study_id: str) -> Trial | None:
        with self._database.reading() as connection:
            objective = read_study(connection, study_id).definition.objective
            value = _TRIALS.best_value.desc() if objective.direction == "maximize" else _TRIALS.best_value
            statement = (
                select(tables.trials)
                .where(_TRIALS.study_id == study_id, _TRIALS.best_value.is_not(None), _TRIALS.repeats.is_(None))
                .order_by(value, _TRIALS.number)
                .limit(1)
            )
            row = connection.execute(statement).mappings().one_or_none()
        return None if row is None else trial_of(row)

    def repeats(self, study_id: str) -> Sequence[Trial]:
        here = (_TRIALS.study_id == study_id) & _TRIALS.repeats.is_not(None)
        statement = select(tables.trials).where(here).order_by(_TRIALS.number)
        with self._database.reading() as connection:
            require_study(connection, study_id)
            return [trial_of(row) for row in connection.execute(statement).mappings()]

    def history(self, study_id: str) -> History:
        with self._database.reading() as connection:
            definition = read_study(connection, study_id).definition
            all_trials = select(tables.trials).where(_TRIALS.study_id == study_id).order_by(_TRIALS.number)
            found = [trial_of(row) for row in connection.execute(all_trials).mappings()]
            all_metrics = (
                select(_REPORTS.trial, _REPORTS.metrics)
                .where(_REPORTS.study_id == study_id)
                .order_by(_REPORTS.trial, _REPORTS.number)
            )
            values: defaultdict[int, list[float]] = defaultdict(list)
            points: defaultdict[int, list[Point]] = defaultdict(list)
            for number, metrics in connection.execute(all_metrics):
                values[number].append(metrics[definition.objective.metric])
                point = definition.point(metrics)
                if point is not None:
                    points[number].append(point)
            all_prior = select(tables.prior_trials).where(_PRIOR.study_id == study_id).order_by(_PRIOR.number)
            prior = tuple(prior_of(row) for row in connection.execute(all_prior).mappings())
            requested = tuple(request.parameters for request in requests_of(connection, study_id))
        trials = {trial.number: trial for trial in found}
        # A copy of another trial counts its reports on from those that it took over.
        curves = {number: (math.nan,) * trials[number].parent_report + tuple(each) for number, each in values.items()}
        placed = {number: (Point.unknown(),) * trials[number].parent_report + tuple(each) for number, each in points.items()}
        return History(trials, curves, requested, prior, placed)

    def reports(self, study_id: str, number: int, after: int = 0, limit: int | None = None) -> Sequence[Report]:
        statement = _of_trial(tables.reports, study_id, number).where(_REPORTS.number > after).limit(limit)
        return [report_of(row) for row in self._rows_of(statement, study_id, number)]

    def attempts(self, study_id: str, number: int) -> Sequence[Attempt]:
        statement = _of_trial(tables.attempts, study_id, number)
        return [attempt_of(row) for row in self._rows_of(statement, study_id, number)]

    def decisions(self, study_id: str, number: int) -> Sequence[tuple[datetime, Decision]]:
        statement = _of_trial(tables.decisions, study_id, number)
        return [(row["at"], decision_of(row)) for row in self._rows_of(statement, study_id, number)]

    def request(
        self, study_id: str, parameters: Configuration, at: datetime, idempotency: IdempotencyKey | None = None
    ) -> TrialRequest:
        with self._database.writing() as connection:
            return add_request(connection, study_id, parameters, at, idempotency)

    def requests(self, study_id: str) -> Sequence[TrialRequest]:
        with self._database.reading() as connection:
            require_study(connection, study_id)
            return requests_of(connection, study_id)

    def record(self, owner: str, changes: Sequence[Change]) -> None:
        if not changes:
            return
        study_id = changes[0].trial.study_id
        with self._database.writing() as connection:
            _require_lease(connection, study_id, owner)
            events: list[Event] = []
            for change in changes:
                if change.trial.study_id != study_id:
                    raise ValueError("all changes of one record belong to one study")
                events += self._apply(connection, change)
            append_events(connection, study_id, events)

    def _apply(self, connection: Connection, change: Change) -> list[Event]:
        """Write one change; answers what happened."""
        trial, now = change.trial, self._clock.now()
        before = connection.execute(_one_trial(trial.study_id, trial.number)).mappings().one_or_none()
        events = []
        if before is None:
            connection.execute(tables.trials.insert().values(trial_row(replace(trial, version=0))))
            payload = {**trial_payload(trial), "parameters": dict(trial.parameters)}
            events.append(Event(EventKind.TRIAL_CREATED, trial.study_id, trial.created_at, payload))
        else:
            row = trial_row(replace(trial, version=before["version"] + 1))
            here = (_TRIALS.study_id == trial.study_id) & (_TRIALS.number == trial.number)
            connection.execute(tables.trials.update().where(here).values(row))
        if change.report is not None and _is_new(connection, tables.reports, trial, change.report.number):
            connection.execute(tables.reports.insert().values(_keyed(trial, report_row(change.report))))
            payload = dict(report_payload(trial.number, change.report))
            events.append(Event(EventKind.TRIAL_REPORT, trial.study_id, change.report.at, payload))
        if change.attempt is not None:
            _put_attempt(connection, trial, change.attempt)
        if change.decision is not None:
            _add_decision(connection, trial, change.decision, now)
        if before is not None and (before["state"], before["attempts"]) != (trial.state.value, trial.attempts):
            events.append(Event(EventKind.TRIAL_STATE, trial.study_id, now, trial_payload(trial)))
        return events

    def _rows_of(self, statement: Select[Any], study_id: str, number: int) -> Sequence[Any]:
        with self._database.reading() as connection:
            found = connection.execute(statement).mappings().all()
            if not found:
                _refuse_trial(connection, study_id, number)
        return found


def _in_order(statement: Select[Any], query: TrialQuery, *, is_down: bool) -> Select[Any]:
    if query.cursor is not None:
        statement = statement.where(after([_TRIALS.number], decode(query.cursor, query.order, [int]), [is_down]))
    return statement.order_by(_TRIALS.number.desc() if is_down else _TRIALS.number)


def _in_value_order(statement: Select[Any], query: TrialQuery, *, is_down: bool) -> Select[Any]:
    """By best value, trials without one last in both directions, and of equals the earlier first."""
    without: ColumnElement[int] = case((_TRIALS.best_value.is_(None), 1), else_=0)
    value: ColumnElement[float] = func.coalesce(_TRIALS.best_value, 0.0)
    if query.cursor is not None:
        key = decode(query.cursor, query.order, [int, (int, float), int])
        statement = statement.where(after([without, value, _TRIALS.number], key, [False, is_down, False]))
    return statement.order_by(without, value.desc() if is_down else value, _TRIALS.number)


def _one_trial(study_id: str, number: int) -> Select[Any]:
    return select(tables.trials).where(_TRIALS.study_id == study_id, _TRIALS.number == number)


def _of_trial(table: Any, study_id: str, number: int) -> Select[Any]:
    return select(table).where(table.c.study_id == study_id, table.c.trial == number).order_by(table.c.number)


def _refuse_trial(connection: Connection, study_id: str, number: int) -> None:
    """Raises StudyNotFound or TrialNotFound, unless the trial is there."""
    require_study(connection, study_id)
    if connection.execute(_one_trial(study_id, number)).first() is None:
        raise TrialNotFound(study_id, number)


def _require_lease(connection: Connection, study_id: str, owner: str) -> None:
    """Hold the lease's row to the end of the transaction. Raises LeaseLost."""
    leases = tables.leases.c
    holder = connection.execute(select(leases.owner).where(leases.study_id == study_id).with_for_update()).scalar()
    if holder != owner:
        raise LeaseLost(f"Study {study_id!r} is {'held by another process' if holder else 'no longer held by this process'}.")


def _is_new(connection: Connection, table: Any, trial: Trial, number: int) -> bool:
    return connection.execute(_of_trial(table, trial.study_id, trial.number).where(table.c.number == number)).first() is None


def _keyed(trial: Trial, row: dict[str, Any]) -> dict[str, Any]:
    return {"study_id": trial.study_id, "trial": trial.number, **row}


def _add_decision(connection: Connection, trial: Trial, decision: Decision, now: datetime) -> None:
    last = select(func.max(_DECISIONS.number)).where(_DECISIONS.study_id == trial.study_id, _DECISIONS.trial == trial.number)
    number = (connection.execute(last).scalar() or 0) + 1
    row = {"number": number, "at": now, "document": decision.to_json()}
    connection.execute(tables.decisions.insert().values(_keyed(trial, row)))


def _put_attempt(connection: Connection, trial: Trial, attempt: Attempt) -> None:
    row = _keyed(trial, attempt_row(attempt))
    if _is_new(connection, tables.attempts, trial, attempt.number):
        connection.execute(tables.attempts.insert().values(row))
    else:
        here = (_ATTEMPTS.study_id == trial.study_id) & (_ATTEMPTS.trial == trial.number) & (_ATTEMPTS.number == attempt.number)
        connection.execute(tables.attempts.update().where(here).values(row))
