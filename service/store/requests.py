"""Configurations that users ask for while a study runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from search_spaces import Configuration
from service.domain.errors import ConfigurationKnown, StudyEnded, TooManyRequests
from service.domain.events import Event, EventKind
from service.domain.ports import IdempotencyKey
from service.domain.study import Study, StudyState
from service.domain.trial import TrialRequest
from service.store import tables
from service.store.rows import request_of
from service.store.studies import append_events, read_study, require_same

_REQUESTS, _TRIALS = tables.requests.c, tables.trials.c
MOST_REQUESTS = 1_000
"""Of one study: each of them is compared with every new one."""

_OPEN = frozenset({StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSING, StudyState.PAUSED})


def requests_of(connection: Connection, study_id: str, after: int = 0) -> Sequence[TrialRequest]:
    """The requests of a study with a number above `after`, in order."""
    return [request_of(row) for row in _rows(connection, study_id, after)]


def add_request(
    connection: Connection,
    study_id: str,
    parameters: Configuration,
    at: datetime,
    idempotency: IdempotencyKey | None,
    by: str | None,
) -> TrialRequest:
    """Append a request. Raises as `TrialStore.request` says."""
    connection.execute(select(tables.studies.c.id).where(tables.studies.c.id == study_id).with_for_update())
    study = read_study(connection, study_id)
    rows = _rows(connection, study_id)
    if idempotency is not None:
        known = next((row for row in rows if row["key"] == idempotency.key), None)
        if known is not None:
            require_same(known, idempotency, "trial")
            return request_of(known)
    if study.state not in _OPEN:
        raise StudyEnded(f"Study {study_id!r} is {study.state}: it tries nothing more. Start another one with `initial`.")
    again = select(_TRIALS.number).where(_TRIALS.study_id == study_id, _TRIALS.repeats.is_not(None)).limit(1)
    if study.amended_at is not None:  # a final that began before says nothing of the search that goes on
        again = again.where(_TRIALS.created_at > study.amended_at)
    if connection.execute(again).first() is not None:
        detail = "trains its best configurations again: it tries nothing more. Fork it to search on."
        raise StudyEnded(f"Study {study_id!r} {detail}")
    _refuse_known(connection, study, parameters, rows)
    number = len(rows) + 1
    if number > MOST_REQUESTS:
        raise TooManyRequests(
            f"Study {study_id!r} was asked for {MOST_REQUESTS} configurations: start another one with `initial`."
        )
    row = {"study_id": study_id, "number": number, "at": at, "parameters": dict(parameters)}
    key = {"key": idempotency and idempotency.key, "body_sha256": idempotency and idempotency.body_sha256}
    connection.execute(tables.requests.insert().values(**row, **key))
    payload = {"request": number, "parameters": dict(parameters), **({} if by is None else {"by": by})}
    # A driver that was about to end the study reads it again, and finds the request.
    connection.execute(update(tables.studies).where(tables.studies.c.id == study_id).values(version=study.version + 1))
    append_events(connection, study_id, [Event(EventKind.TRIAL_REQUESTED, study_id, at, payload)])
    return TrialRequest(number, parameters, at)


def _rows(connection: Connection, study_id: str, after: int = 0) -> Sequence[Any]:
    here = (_REQUESTS.study_id == study_id) & (_REQUESTS.number > after)
    statement = select(tables.requests).where(here).order_by(_REQUESTS.number)
    return connection.execute(statement).mappings().all()


def _refuse_known(connection: Connection, study: Study, parameters: Configuration, requests: Sequence[Mapping[str, Any]]) -> None:
    """Raises ConfigurationKnown for what a trial has, or what waits to be tried."""
    space = study.definition.search_space
    wanted = space.key(parameters)
    tried = select(_TRIALS.number, _TRIALS.parameters).where(_TRIALS.study_id == study.id).order_by(_TRIALS.number)
    for number, found in connection.execute(tried):
        if space.key(found) == wanted:
            raise ConfigurationKnown(f"Trial {number} has these parameters: look at it, or ask for other ones.")
    if any(space.key(row["parameters"]) == wanted for row in requests):
        raise ConfigurationKnown("These parameters were asked for already and wait for their turn: ask for other ones.")
    if any(space.key(one) == wanted for one in study.definition.initial):
        raise ConfigurationKnown(
            "These parameters are in the definition's `initial` and wait for their turn: ask for other ones."
        )
