"""The studies, and what everything that belongs to one begins with: does it exist, and what happened to it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import BigInteger, Connection, RowMapping, bindparam, func, literal, select
from sqlalchemy.exc import IntegrityError

from service.domain.deletion import Deletion
from service.domain.errors import IdempotencyConflict, StaleWrite, StudyNotFound, StudyStillActive
from service.domain.events import Event, EventKind
from service.domain.history import PriorTrial
from service.domain.ports import Clock, IdempotencyKey, Page, StudyQuery
from service.domain.study import Study, StudyState
from service.store import tables
from service.store.cursors import after, decode, encode
from service.store.database import Database
from service.store.deletions import add_deletion
from service.store.projects import keep_usage
from service.store.rows import changes_between, event_of, prior_row, study_of, study_payload, study_row

_STUDIES = tables.studies.c
_COUNT_EVENTS = (  # built once, as every report has an event
    tables.studies.update()
    .where(_STUDIES.id == bindparam("of_study"))
    .values(last_event=_STUDIES.last_event + bindparam("more", type_=BigInteger))
    .returning(_STUDIES.last_event)
)
_ADD_EVENTS = tables.events.insert()
_LATELY = 100
"""Events among which one is looked for that may be told again."""


class SqlStudies:
    """The port `StudyStore`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def add(self, study: Study, idempotency: IdempotencyKey | None = None, prior: Sequence[PriorTrial] = ()) -> Study:
        try:
            return self._add(study, idempotency, prior)
        except IntegrityError:
            # Another request with this key was a moment faster.
            known = self.with_key(idempotency) if idempotency else None
            if known is None:
                raise
            return known

    def _add(self, study: Study, idempotency: IdempotencyKey | None, prior: Sequence[PriorTrial]) -> Study:
        with self._database.writing() as connection:
            if idempotency is not None:
                known = _with_key(connection, idempotency)
                if known is not None:
                    return known
            connection.execute(tables.studies.insert().values(**study_row(study), last_event=0))
            if idempotency is not None:
                row = {"key": idempotency.key, "body_sha256": idempotency.body_sha256, "study_id": study.id}
                connection.execute(tables.idempotency.insert().values(row))
            if prior:
                rows = [{"study_id": study.id, "number": at, "document": prior_row(one)} for at, one in enumerate(prior)]
                connection.execute(tables.prior_trials.insert(), rows)
            asked = {} if study.created_by is None else {"by": study.created_by}
            payload = {"name": study.definition.name, **study_payload(study), **asked}
            append_events(connection, study.id, [Event(EventKind.STUDY_CREATED, study.id, study.created_at, payload)])
        return study

    def with_key(self, idempotency: IdempotencyKey) -> Study | None:
        with self._database.reading() as connection:
            return _with_key(connection, idempotency)

    def get(self, study_id: str) -> Study:
        with self._database.reading() as connection:
            return read_study(connection, study_id)

    def project_of(self, study_id: str) -> str:
        with self._database.reading() as connection:
            project: str | None = connection.execute(select(_STUDIES.project).where(_STUDIES.id == study_id)).scalar()
        if project is None:
            raise StudyNotFound(study_id)
        return project

    def find(self, query: StudyQuery) -> Page[Study]:
        is_down = query.order.startswith("-")
        column = _STUDIES.name if query.order.endswith("name") else tables.studies.c.created_at
        by_name = column is _STUDIES.name
        keys = [column, _STUDIES.id]
        statement = select(tables.studies).limit(query.limit + 1)
        statement = statement.order_by(*(key.desc() if is_down else key for key in keys))
        if query.project is not None:
            statement = statement.where(_STUDIES.project == query.project)
        if query.states:
            statement = statement.where(_STUDIES.state.in_([state.value for state in query.states]))
        if query.name:
            if tables.storable(query.name) != query.name:
                return Page([], None)
            statement = statement.where(func.lower(_STUDIES.name).contains(query.name.lower(), autoescape=True))
        if query.cursor is not None:
            first, study_id = decode(query.cursor, query.order, [str if by_name else int, str])
            key = [first if by_name else _moment(first), study_id]
            statement = statement.where(after(keys, key, [is_down, is_down]))
        with self._database.reading() as connection:
            found = [study_of(row) for row in connection.execute(statement).mappings()]
        items = found[: query.limit]
        cursor = None
        if len(found) > query.limit:
            last = items[-1]
            cursor = encode(query.order, [last.definition.name if by_name else _number(last.created_at), last.id])
        return Page(items, cursor)

    def save(self, study: Study, by: str | None = None) -> Study:
        saved = replace(study, version=study.version + 1)
        asked = {} if by is None else {"by": by}
        with self._database.writing() as connection:
            connection.execute(select(_STUDIES.id).where(_STUDIES.id == study.id).with_for_update())
            before = read_study(connection, study.id)
            if before.version != study.version:
                raise StaleWrite(
                    f"Study {study.id!r} was changed meanwhile: it is {before.state}, version {before.version}. Read it again."
                )
            connection.execute(tables.studies.update().where(_STUDIES.id == study.id).values(study_row(saved)))
            now, events = self._clock.now(), []
            if before.definition != saved.definition:
                payload = {"changed": changes_between(before.definition, saved.definition), **asked}
                events.append(Event(EventKind.STUDY_CHANGED, study.id, now, payload))
            if not events or study_payload(before) != study_payload(saved):
                events.append(Event(EventKind.STUDY_STATE, study.id, now, {**study_payload(saved), **asked}))
            append_events(connection, study.id, events)
        return saved

    def delete(self, study_id: str, by: str | None = None) -> Deletion:
        with self._database.writing() as connection:
            # First, as a driver's transaction does, and goes on to the study: in the other order each would wait for the other.
            connection.execute(select(tables.leases.c.owner).where(tables.leases.c.study_id == study_id).with_for_update())
            statement = select(_STUDIES.state, _STUDIES.name, _STUDIES.project).where(_STUDIES.id == study_id).with_for_update()
            row = connection.execute(statement).one_or_none()
            if row is None:
                raise StudyNotFound(study_id)
            if not StudyState(row.state).is_end:
                raise StudyStillActive(f"Study {study_id!r} is {row.state}: cancel it, and delete it once it has ended.")
            deletion = add_deletion(connection, study_id, row.name, row.project, self._clock.now(), by)
            keep_usage(connection, study_id, row.project)
            connection.execute(tables.studies.delete().where(_STUDIES.id == study_id))
        return deletion


class SqlEvents:
    """The port `EventStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, events: Sequence[Event]) -> None:
        with self._database.writing() as connection:
            for study_id in dict.fromkeys(event.study_id for event in events):
                last = connection.execute(select(_STUDIES.last_event).where(_STUDIES.id == study_id).with_for_update()).scalar()
                if last is not None:
                    told = _told_lately(connection, study_id, last)
                    append_events(connection, study_id, [one for one in events if one.study_id == study_id and one not in told])

    def after(self, study_id: str, event_id: int, limit: int = 500) -> Sequence[Event]:
        columns = tables.events.c
        seen = literal(event_id, BigInteger)  # a client may name one that is greater than any there is
        statement = select(tables.events).where(columns.study_id == study_id, columns.id > seen).order_by(columns.id).limit(limit)
        with self._database.reading() as connection:
            found = [event_of(row) for row in connection.execute(statement).mappings()]
            if not found:
                require_study(connection, study_id)
        return found

    def latest(self, study_ids: Collection[str]) -> Mapping[str, tuple[int, bool]]:
        statement = select(_STUDIES.id, _STUDIES.last_event, _STUDIES.state).where(_STUDIES.id.in_(study_ids))
        with self._database.reading() as connection:
            return {row.id: (row.last_event, StudyState(row.state).is_end) for row in connection.execute(statement)}


def _told_lately(connection: Connection, study_id: str, last: int) -> list[Event]:
    """The study's latest events, as who adds them: of a database that went away nobody knows what it had stored."""
    columns = tables.events.c
    statement = select(tables.events).where(columns.study_id == study_id, columns.id > last - _LATELY)
    return [replace(event_of(row), id=0) for row in connection.execute(statement).mappings()]


def read_study(connection: Connection, study_id: str) -> Study:
    """One study; raises StudyNotFound."""
    row = connection.execute(select(tables.studies).where(_STUDIES.id == study_id)).mappings().one_or_none()
    if row is None:
        raise StudyNotFound(study_id)
    return study_of(row)


def keep_study(connection: Connection, study_id: str) -> bool:
    """Whether the study is there, and so stays to the end of the transaction. It may be changed meanwhile, and not deleted."""
    statement = select(_STUDIES.id).where(_STUDIES.id == study_id).with_for_update(read=True, key_share=True)
    return connection.execute(statement).first() is not None


def require_study(connection: Connection, study_id: str) -> None:
    """Raises StudyNotFound."""
    if connection.execute(select(_STUDIES.id).where(_STUDIES.id == study_id)).first() is None:
        raise StudyNotFound(study_id)


def append_events(connection: Connection, study_id: str, events: Sequence[Event]) -> None:
    """Number events within their study and append them.

    The study's counter stays locked until the transaction ends, so that nobody sees an event before an earlier one.
    """
    if not events:
        return
    last = connection.execute(_COUNT_EVENTS, {"of_study": study_id, "more": len(events)}).scalar_one()
    rows: list[Mapping[str, Any]] = [
        {
            "study_id": study_id,
            "id": last - len(events) + place,
            "kind": event.kind.value,
            "at": event.at,
            "payload": event.payload,
        }
        for place, event in enumerate(events, start=1)
    ]
    connection.execute(_ADD_EVENTS, rows)


def _with_key(connection: Connection, idempotency: IdempotencyKey) -> Study | None:
    """The study that was added under this key. Raises IdempotencyConflict when it was another request."""
    keys = tables.idempotency.c
    row = connection.execute(select(tables.idempotency).where(keys.key == idempotency.key)).mappings().one_or_none()
    if row is None:
        return None
    require_same(row, idempotency, "study")
    return read_study(connection, row["study_id"])


def require_same(row: RowMapping, idempotency: IdempotencyKey, what: str) -> None:
    """Raises IdempotencyConflict unless the key came with the same body before."""
    if row["body_sha256"] != idempotency.body_sha256:
        raise IdempotencyConflict(
            f"The Idempotency-Key {idempotency.key!r} was used for another request: send a new one with every new {what}."
        )


def _number(moment: Any) -> int:
    return int(tables.Moment().process_bind_param(moment, None) or 0)  # type: ignore[arg-type]


def _moment(number: int) -> Any:
    try:
        return tables.Moment().process_result_value(number, None)  # type: ignore[arg-type]
    except OverflowError:
        return tables.Moment().process_result_value(0, None)  # type: ignore[arg-type]
