"""Trials with their attempts and reports, and what was decided about them."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, case, func, select

from search_spaces import Configuration
from service.domain.decision import Decision
from service.domain.errors import TrialNotFound
from service.domain.events import Event, EventKind
from service.domain.history import History
from service.domain.outcomes import Point
from service.domain.ports import Change, Clock, IdempotencyKey, Page, TrialQuery, TrialTotals
from service.domain.spending import SpendingTable
from service.domain.study import Study
from service.domain.trial import Attempt, Report, Trial, TrialRequest, TrialState
from service.store import tables
from service.store.cursors import after, decode, encode
from service.store.database import Database
from service.store.recording import record_changes
from service.store.requests import add_request, requests_of
from service.store.rows import (
    attempt_of,
    decision_of,
    prior_of,
    report_of,
    trial_of,
)
from service.store.spending import costliest_of, spending_of
from service.store.studies import append_events, read_study, require_study

_TRIALS = tables.trials.c
_REPORTS = tables.reports.c
_ATTEMPTS = tables.attempts.c
_DECISIONS = tables.decisions.c
_PRIOR = tables.prior_trials.c
_STOPS = tables.trial_stops.c


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
        by_value = query.order.endswith("best_value")
        statement = select(tables.trials).where(_TRIALS.study_id == study_id)
        if query.states:
            statement = statement.where(_TRIALS.state.in_([state.value for state in query.states]))
        found: list[Trial] = []
        with self._database.reading() as connection:
            require_study(connection, study_id)
            for part in _in_value_order(statement, query) if by_value else [_in_order(statement, query)]:
                rows = connection.execute(part.limit(query.limit + 1 - len(found))).mappings()
                found += [trial_of(row) for row in rows]
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

    def spending(self, study_id: str) -> SpendingTable:
        with self._database.reading() as connection:
            return spending_of(connection, study_id)

    def costliest(self, study_id: str, limit: int) -> Sequence[Trial]:
        with self._database.reading() as connection:
            return costliest_of(connection, study_id, limit)

    def best(self, study_id: str) -> Trial | None:
        with self._database.reading() as connection:
            return _best(connection, read_study(connection, study_id))

    def bests(self, studies: Sequence[Study]) -> Mapping[str, Trial]:
        with self._database.reading() as connection:
            found = {study.id: _best(connection, study) for study in studies}
        return {study_id: trial for study_id, trial in found.items() if trial is not None}

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
                select(_REPORTS.trial, _REPORTS.metrics, _REPORTS.seconds)
                .where(_REPORTS.study_id == study_id)
                .order_by(_REPORTS.trial, _REPORTS.number)
            )
            values: defaultdict[int, list[float]] = defaultdict(list)
            points: defaultdict[int, list[Point]] = defaultdict(list)
            seconds: defaultdict[int, list[float]] = defaultdict(list)
            for number, metrics, one in connection.execute(all_metrics):
                values[number].append(metrics[definition.objective.metric])
                seconds[number].append(one)
                point = definition.point(metrics)
                if point is not None:
                    points[number].append(point)
            all_prior = select(tables.prior_trials).where(_PRIOR.study_id == study_id).order_by(_PRIOR.number)
            prior = tuple(prior_of(row) for row in connection.execute(all_prior).mappings())
            requested = tuple(request.parameters for request in requests_of(connection, study_id))
            stops = frozenset(connection.execute(select(_STOPS.number).where(_STOPS.study_id == study_id)).scalars())
        trials = {trial.number: trial for trial in found}
        # A copy of another trial counts its reports on from those that it took over.
        curves = {number: (math.nan,) * trials[number].parent_report + tuple(each) for number, each in values.items()}
        placed = {number: (Point.unknown(),) * trials[number].parent_report + tuple(each) for number, each in points.items()}
        took = {number: tuple(each) for number, each in seconds.items()}
        return History(trials, curves, requested, prior, placed, seconds=took, stops=stops)

    def reports(self, study_id: str, number: int, after: int = 0, limit: int | None = None) -> Sequence[Report]:
        statement = _of_trial(tables.reports, study_id, number).where(_REPORTS.number > after).limit(limit)
        return [report_of(row) for row in self._rows_of(statement, study_id, number)]

    def attempts(self, study_id: str, number: int) -> Sequence[Attempt]:
        statement = _of_trial(tables.attempts, study_id, number)
        return [attempt_of(row) for row in self._rows_of(statement, study_id, number)]

    def all_attempts(self, study_id: str) -> Mapping[int, Sequence[Attempt]]:
        statement = select(tables.attempts).where(_ATTEMPTS.study_id == study_id).order_by(_ATTEMPTS.trial, _ATTEMPTS.number)
        found: defaultdict[int, list[Attempt]] = defaultdict(list)
        with self._database.reading() as connection:
            require_study(connection, study_id)
            for row in connection.execute(statement).mappings():
                found[row["trial"]].append(attempt_of(row))
        return dict(found)

    def decisions(self, study_id: str, number: int) -> Sequence[tuple[datetime, Decision]]:
        statement = _of_trial(tables.decisions, study_id, number)
        return [(row["at"], decision_of(row)) for row in self._rows_of(statement, study_id, number)]

    def request(
        self,
        study_id: str,
        parameters: Configuration,
        at: datetime,
        idempotency: IdempotencyKey | None = None,
        by: str | None = None,
    ) -> TrialRequest:
        with self._database.writing() as connection:
            return add_request(connection, study_id, parameters, at, idempotency, by)

    def ask_to_stop(self, study_id: str, number: int, at: datetime, by: str | None = None) -> Trial:
        with self._database.writing() as connection:
            connection.execute(select(tables.studies.c.id).where(tables.studies.c.id == study_id).with_for_update())
            row = connection.execute(_one_trial(study_id, number)).mappings().one_or_none()
            if row is None:
                _refuse_trial(connection, study_id, number)
                raise TrialNotFound(study_id, number)
            asked = select(_STOPS.number).where(_STOPS.study_id == study_id, _STOPS.number == number)
            if not TrialState(row["state"]).is_end and connection.execute(asked).first() is None:
                connection.execute(tables.trial_stops.insert().values(study_id=study_id, number=number, at=at, asked_by=by))
                # Its driver looks at the study's version, and reads again what has changed.
                newer = tables.studies.c.version + 1
                connection.execute(tables.studies.update().where(tables.studies.c.id == study_id).values(version=newer))
                payload = {"trial": number, **({} if by is None else {"by": by})}
                append_events(connection, study_id, [Event(EventKind.TRIAL_STOP_REQUESTED, study_id, at, payload)])
            return trial_of(row)

    def stops(self, study_id: str) -> frozenset[int]:
        with self._database.reading() as connection:
            found = connection.execute(select(_STOPS.number).where(_STOPS.study_id == study_id)).scalars().all()
            if not found:
                require_study(connection, study_id)
        return frozenset(found)

    def requests(self, study_id: str, after: int = 0) -> Sequence[TrialRequest]:
        with self._database.reading() as connection:
            require_study(connection, study_id)
            return requests_of(connection, study_id, after)

    def record(self, owner: str, changes: Sequence[Change]) -> None:
        if not changes:
            return
        with self._database.writing() as connection:
            record_changes(connection, owner, changes, self._clock.now())

    def _rows_of(self, statement: Select[Any], study_id: str, number: int) -> Sequence[Any]:
        with self._database.reading() as connection:
            found = connection.execute(statement).mappings().all()
            if not found:
                _refuse_trial(connection, study_id, number)
        return found


def _best(connection: Connection, study: Study) -> Trial | None:
    row = connection.execute(_BEST[study.definition.objective.direction], {"of_study": study.id}).mappings().one_or_none()
    return None if row is None else trial_of(row)


def _best_first(*order: ColumnElement[Any]) -> Select[Any]:
    """Built once: a list of studies asks for the best trial of each."""
    measured = _TRIALS.best_value.is_not(None) & _TRIALS.repeats.is_(None)
    return select(tables.trials).where(_TRIALS.study_id == bindparam("of_study"), measured).order_by(*order).limit(1)


_BEST = {
    "maximize": _best_first(_TRIALS.best_value.desc(), _TRIALS.number),
    "minimize": _best_first(_TRIALS.best_value, _TRIALS.number),
}


def _in_order(statement: Select[Any], query: TrialQuery) -> Select[Any]:
    is_down = query.order.startswith("-")
    if query.cursor is not None:
        statement = statement.where(after([_TRIALS.number], decode(query.cursor, query.order, [int]), [is_down]))
    return statement.order_by(_TRIALS.number.desc() if is_down else _TRIALS.number)


def _in_value_order(statement: Select[Any], query: TrialQuery) -> Sequence[Select[Any]]:
    """By best value and of equals the earlier first; then trials without one, apart, so that an index leads to the place."""
    is_down, value, number = query.order.startswith("-"), _TRIALS.best_value, _TRIALS.number
    measured = statement.where(value.is_not(None)).order_by(value.desc() if is_down else value, number)
    without = statement.where(value.is_(None)).order_by(number)
    if query.cursor is None:
        return [measured, without]
    is_without, *key = decode(query.cursor, query.order, [int, (int, float), int])
    if is_without:
        return [without.where(after([number], key[1:], [False]))]
    # It follows from the other condition, and finds the place in the index.
    further = value <= key[0] if is_down else value >= key[0]
    return [measured.where(further, after([value, number], key, [is_down, False])), without]


def _one_trial(study_id: str, number: int) -> Select[Any]:
    return select(tables.trials).where(_TRIALS.study_id == study_id, _TRIALS.number == number)


def _of_trial(table: Any, study_id: str, number: int) -> Select[Any]:
    return select(table).where(table.c.study_id == study_id, table.c.trial == number).order_by(table.c.number)


def _refuse_trial(connection: Connection, study_id: str, number: int) -> None:
    """Raises StudyNotFound or TrialNotFound, unless the trial is there."""
    require_study(connection, study_id)
    if connection.execute(_one_trial(study_id, number)).first() is None:
        raise TrialNotFound(study_id, number)
