"""The tables. `migrations` makes them; a test holds that both say the same."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    false,
)
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Moment(TypeDecorator[datetime]):
    """An aware time, kept as microseconds since 1970 in UTC: exact and in order on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:  # noqa: ARG002 - SQLAlchemy's signature
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002 - as above
        return None if value is None else _EPOCH + value * _MICROSECOND


def storable(text: str) -> str:
    """`text` with a replacement for what no database (halves of surrogate pairs) or not every one (NUL) can hold."""
    return text.replace("\x00", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Words(TypeDecorator[str]):
    """What somebody or some library said."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002 - as above
        return None if value is None else storable(value)


class Json(TypeDecorator[Any]):
    """A value as JSON text, in which floats stay exactly what they were, infinities and NaN among them."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:  # noqa: ARG002 - as above
        return None if value is None else storable(json.dumps(value, ensure_ascii=False))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:  # noqa: ARG002 - as above
        return None if value is None else json.loads(value)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)


def _study_key() -> ForeignKey:
    return ForeignKey("studies.id", ondelete="CASCADE")


studies = Table(
    "studies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("definition", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("state", Text, nullable=False, index=True),
    Column("reason", Text),
    Column("detail", Words),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("version", Integer, nullable=False),
    Column("last_event", Integer, nullable=False),
    Column("warm_start", Json),
    Column("is_urgent", Boolean, nullable=False, server_default=false()),
    Column("idle_seconds", Float, nullable=False, server_default="0"),
    Column("idle_since", Moment),
    Column("resumed_at", Moment),
    Column("amended_at", Moment),
    Column("created_by", Words),
    Column("trials_per_gpu", Integer, nullable=False, server_default="1"),
    Column("project", Text, nullable=False, server_default="default"),
    Index("ix_studies_project", "project", "created_at", "id"),
    Index("ix_studies_created_at", "created_at", "id"),
    Index("ix_studies_name", "name", "id"),
)

idempotency = Table(
    "idempotency_keys",
    metadata,
    Column("key", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    Column("study_id", Text, _study_key(), nullable=False, index=True),
)

trials = Table(
    "trials",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("parameters", Json, nullable=False),
    Column("until", Integer, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("bracket", Integer, nullable=False),
    Column("rung", Integer, nullable=False),
    Column("reports", Integer, nullable=False),
    Column("value", Float),
    Column("best_value", Float),
    Column("best_report", Integer),
    Column("best_epoch", Float),
    Column("attempts", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("gpu_seconds", Float, nullable=False),
    Column("reason", Text),
    Column("detail", Words),
    Column("started_at", Moment),
    Column("ended_at", Moment),
    Column("version", Integer, nullable=False),
    Column("parent", Integer),
    Column("parent_report", Integer, nullable=False, server_default="0"),
    Column("repeats", Integer),
    Column("seed", Integer),
    Column("errors", Integer, nullable=False, server_default="0"),
    Column("not_before", Moment),
    Column("lost_seconds", Float, nullable=False, server_default="0"),
    Index("ix_trials_best_value", "study_id", "best_value", "number"),
)


def _of_trial(name: str, *columns: Column[Any]) -> Table:
    """A table of what belongs to one trial, numbered within it."""
    return Table(
        name,
        metadata,
        Column("study_id", Text, primary_key=True),
        Column("trial", Integer, primary_key=True),
        Column("number", Integer, primary_key=True),
        *columns,
        ForeignKeyConstraint(["study_id", "trial"], ["trials.study_id", "trials.number"], ondelete="CASCADE"),
    )


attempts = _of_trial(
    "attempts",
    Column("first", Integer, nullable=False),
    Column("until", Integer, nullable=False),
    Column("started_at", Moment, nullable=False),
    Column("ended_at", Moment),
    Column("outcome", Text),
    Column("worker", Words),
    Column("detail", Words),
    Column("gpus", Float, nullable=False, server_default="0"),
    Column("peak_bytes", BigInteger),
    Column("gpu_bytes", BigInteger),
)

reports = _of_trial(
    "reports",
    Column("epoch", Float, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("metrics", Json, nullable=False),
    Column("seconds", Float, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("worker", Words, nullable=False),
    Column("at", Moment, nullable=False),
)

decisions = _of_trial("decisions", Column("at", Moment, nullable=False), Column("document", Json, nullable=False))


def _of_study(name: str, *columns: Column[Any]) -> Table:
    """A table of what belongs to a study, numbered within it."""
    return Table(
        name,
        metadata,
        Column("study_id", Text, _study_key(), primary_key=True),
        Column("number", Integer, primary_key=True),
        *columns,
    )


requests = _of_study(
    "requests",
    Column("at", Moment, nullable=False),
    Column("parameters", Json, nullable=False),
    Column("key", Text),
    Column("body_sha256", Text),
)
"""Configurations that users asked for while the study ran, each under the client's name for the request where it gave one."""

prior_trials = _of_study("prior_trials", Column("document", Json, nullable=False))
"""What a study knows of the studies that it starts from. They may be deleted; this stays."""

trial_stops = _of_study("trial_stops", Column("at", Moment, nullable=False), Column("asked_by", Words))
"""Trials that users asked to stop; `number` is the trial's."""

forecasts = _of_study("forecasts", Column("at", Moment, nullable=False), Column("document", Json, nullable=False))
"""What was expected of a study, as it was foretold while it ran."""

shares = Table(
    "shares",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("slots", Integer, nullable=False),
    Column("wanted", Integer),
    Column("lag", Float, nullable=False),
    Column("waiting", Json),
    Column("trials_per_gpu", Integer, nullable=False, server_default="1"),
)
"""What the controller grants each study that runs or waits, and what its driver asks for."""

footprints = Table(
    "footprints",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("at", Moment, nullable=False),
    Column("detail", Words),
    Column("missing", Json, nullable=False),
)
"""What each study's checkpoints take on disk, as the controller last measured it."""

events = Table(
    "events",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("id", Integer, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("at", Moment, nullable=False),
    Column("payload", Json, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", Moment, nullable=False),
)

leadership = Table(
    "leadership",
    metadata,
    Column("role", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("expires_at", Moment, nullable=False),
)
"""Who leads, of those of whom only one may act: a row for each role, of which the controller's is the only one."""

experiments = Table(
    "mirror_experiments",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("experiment_id", Text, nullable=False, index=True),
)

mirrored = Table(
    "mirror_runs",
    metadata,
    Column("study_id", Text, _study_key(), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("run_id", Text, nullable=False, index=True),
    Column("version", Integer, nullable=False),
    Column("reports", Integer, nullable=False),
)

deletions = Table(
    "mirror_deletions",
    metadata,
    Column("study_id", Text, primary_key=True),
    Column("at", Moment),
    Column("document", Json),
    Column("forgotten", Json),
    Column("forgotten_at", Moment),
)
"""What was deleted with a study, and whether the tracker has forgotten it too: the one table about a study that outlives it."""

login_codes = Table(
    "login_codes",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("caller", Json),
    Column("expires_at", Moment, nullable=False, index=True),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("caller", Json),
    Column("expires_at", Moment, nullable=False, index=True),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", Text, primary_key=True),
    Column("sha256", Text, nullable=False, index=True, unique=True),
    Column("name", Words, nullable=False),
    Column("role", Text, nullable=False),
    Column("project", Text),
    Column("created_at", Moment, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("expires_at", Moment),
    Column("revoked_at", Moment),
    Column("last_used_at", Moment),
)

projects = Table(
    "projects",
    metadata,
    Column("name", Text, primary_key=True),
    Column("created_at", Moment, nullable=False),
    Column("max_running_studies", Integer),
    Column("max_gpu_hours", Float),
    Column("max_stored_gb", Float),
)

past_usage = Table(
    "past_usage",
    metadata,
    Column("project", Text, primary_key=True),
    Column("gpu_seconds", Float, nullable=False),
)
"""What each project's studies had used that are deleted by now."""

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Moment, nullable=False, index=True),
    Column("caller", Words, nullable=False),
    Column("role", Text, nullable=False),
    Column("project", Text, index=True),
    Column("token", Text),
    Column("action", Text, nullable=False),
    Column("target", Words, nullable=False),
    Column("status", Integer, nullable=False),
    Column("address", Text, nullable=False),
)
"""What callers did. Rows are only ever added: a trigger that the migrations make refuses everything else."""
