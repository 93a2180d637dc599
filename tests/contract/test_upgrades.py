"""Databases that earlier versions wrote, brought up to date with everything in them.

`frozen/REVISION.json` holds, table by table, what the program of that revision wrote for the same two studies: see `freeze.py`.
"""

import json
import os
import sqlite3
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import MetaData, inspect, text
from sqlalchemy.exc import IntegrityError

from service.domain.access import Caller, Quotas, Role, Source
from service.domain.decision import Decision
from service.domain.errors import NotReady, SchemaTooNew, SchemaTooOld
from service.domain.history import PriorTrial
from service.domain.ports import IdempotencyKey, MirroredTrial, Store
from service.domain.share import Share
from service.domain.stored import Footprint
from service.domain.study import StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState
from service.domain.waiting import Waiting, WaitingCause
from service.store import migrations, versions
from service.store.database import Database
from service.store.sql import store_on
from service.store.versions import Standing, Versions, prepare, upgrade, versions_of
from tests.builders import NOW, a_definition, a_forecast, a_report, a_study, a_trial
from tests.contract.conftest import POSTGRESQL, at_once
from tests.contract.freeze import ADA, EMPTIED, FROZEN, HYPERBAND, STUDY
from tests.fakes import FakeClock

REVISIONS = sorted(path.stem for path in FROZEN.glob("*.json"))
NEWEST = REVISIONS[-1]
OPERATOR = Caller("token", Role.ADMIN, Source.OPERATOR)

Rows = Mapping[str, Sequence[Mapping[str, Any]]]


@pytest.fixture(params=["sqlite", POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    file = f"sqlite:///{tmp_path / 'home' / 'tuneyard.db'}"
    found: str = file if request.param == "sqlite" else request.getfixturevalue("empty_postgresql")
    return found


def frozen(revision: str) -> Rows:
    found: Rows = json.loads((FROZEN / f"{revision}.json").read_text())
    return found


def write(url: str, revision: str) -> Rows:
    """Make a database of this revision, with what its program wrote."""
    rows = frozen(revision)
    with opened(url) as database:
        database.make_private()
        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__file__).parent))
        with database.writing() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            there = MetaData()
            there.reflect(connection)
            for table in there.sorted_tables:  # those that others point to come first
                if table.name in rows:
                    kept = rows[table.name]
                    booleans = {column.name for column in table.columns if column.type.python_type is bool}
                    connection.execute(
                        table.insert(),
                        [{name: bool(one) if name in booleans else one for name, one in row.items()} for row in kept],
                    )
    return rows


class opened:  # noqa: N801 - reads as a function
    """The database, closed at the end."""

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    def __enter__(self) -> Database:
        return self._database

    def __exit__(self, *_: object) -> None:
        self._database.engine.dispose()


@pytest.fixture(params=REVISIONS)
def revision(request: pytest.FixtureRequest) -> str:
    """Each that there was, and the newest."""
    found: str = request.param
    return found


@pytest.fixture
def upgraded(url: str, revision: str) -> Iterator[Store]:
    """The store of a database of an earlier revision, brought up to date."""
    write(url, revision)
    assert upgrade(url) == (revision, NEWEST)
    with opened(url) as database:
        yield store_on(database, FakeClock())


def test_what_every_revision_wrote_is_kept() -> None:
    known = sorted(path.name[1:5] for path in (Path(migrations.__file__).parent / "versions").glob("v*.py"))
    assert known == REVISIONS, "run python -m tests.contract.freeze"


def test_no_row_and_no_value_is_lost_on_the_way_up_from_any_revision(url: str, revision: str) -> None:
    before = write(url, revision)
    upgrade(url)
    with opened(url) as database, database.reading() as connection:
        there = MetaData()
        there.reflect(connection)
        for name, rows in before.items():
            table = there.tables[name]
            names = list(rows[0])
            found = {
                _key(table, row): {column: row[column] for column in names}
                for row in map(dict, connection.execute(table.select()).mappings())
            }
            assert found == {_key(table, row): _as_now(name, row, revision) for row in rows}, name


def _key(table: Any, row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column.name] for column in table.primary_key)


def _as_now(table: str, row: Mapping[str, Any], revision: str) -> Mapping[str, Any]:
    """What has another meaning by now: see revision 0003."""
    if table == "trials" and row["reason"] == "out_of_memory" and revision < "0003":
        return {**row, "state": "infeasible", "version": row["version"] + 1}
    return row


def test_studies_of_any_revision_read_as_the_same(upgraded: Store, revision: str) -> None:
    [written] = [row for row in frozen(revision)["studies"] if row["id"] == STUDY]
    study = replace(
        a_study(**HYPERBAND), state=StudyState.RUNNING, started_at=NOW + timedelta(seconds=3), version=written["version"]
    )
    assert upgraded.studies.get(STUDY) == study
    emptied = upgraded.studies.get(EMPTIED)
    assert (emptied.state, emptied.reason, emptied.detail) == (
        StudyState.CANCELLED,
        StudyReason.CANCEL_REQUESTED,
        "nobody wants it",
    )
    assert emptied.definition == a_definition()
    assert upgraded.studies.with_key(IdempotencyKey("post-1", "ab" * 32)) == study


def test_trials_of_any_revision_keep_their_attempts_and_reports(upgraded: Store, revision: str) -> None:
    trials = upgraded.trials
    assert [_shown(trials.get(STUDY, number)) for number in range(4)] == [
        (TrialState.COMPLETED, TrialReason.EPOCHS_DONE, 3, 0.75, 2, 6.0, 3.0),
        (TrialState.INFEASIBLE, TrialReason.OUT_OF_MEMORY, 1, 0.25, 1, 2.0, 1.0),
        (TrialState.RUNNING, None, 1, 0.625, 1, 2.0, 1.0),
        (TrialState.RUNNING, None, 0, None, None, 0.0, 0.0),
    ]
    assert trials.get(STUDY, 0).detail == "as it was told: \u00fc\n"
    assert trials.reports(STUDY, 0) == [a_report(number, value) for number, value in enumerate((0.5, 0.75, 0.1 + 0.2), 1)]
    began, ended = NOW + timedelta(seconds=5), NOW + timedelta(seconds=60)
    assert trials.attempts(STUDY, 1) == [Attempt(1, 0, 3, began, ended, AttemptOutcome.FAILED, "localhost:1")]
    assert trials.attempts(STUDY, 2) == [Attempt(1, 0, 1, began)]
    assert trials.history(STUDY).values == {0: (0.5, 0.75, 0.1 + 0.2), 1: (0.25,), 2: (0.625,)}
    best = trials.best(STUDY)
    assert best is not None
    assert best.number == 0


def test_decisions_requests_and_what_earlier_studies_knew_are_kept(upgraded: Store, revision: str) -> None:
    if revision < "0004":
        assert upgraded.trials.requests(STUDY) == []
        return
    [(_, decision)] = upgraded.trials.decisions(STUDY, 4)
    assert decision == Decision("proposed", "random")
    assert upgraded.trials.get(STUDY, 4) == a_trial(
        4, created_at=NOW + timedelta(seconds=80), parameters={"learning_rate": 2e-3}, parent=0, parent_report=2, seed=5
    )
    assert [dict(one.parameters) for one in upgraded.trials.requests(STUDY)] == [{"learning_rate": 3e-3}]
    prior = PriorTrial("before-abc123", 3, {"learning_rate": 4e-3}, (0.5, 0.75), is_whole=True)
    assert list(upgraded.trials.history(EMPTIED).prior) == [prior]


def test_events_of_any_revision_are_kept_in_order(upgraded: Store, revision: str) -> None:
    written = [row for row in frozen(revision)["events"] if row["study_id"] == STUDY]
    found = upgraded.events.after(STUDY, 0)
    assert [(one.id, one.kind, one.payload) for one in found] == [
        (row["id"], row["kind"], json.loads(row["payload"])) for row in sorted(written, key=lambda row: row["id"])
    ]


def test_the_mirror_goes_on_from_where_it_got(upgraded: Store, revision: str) -> None:
    assert upgraded.mirror.experiment(STUDY) == "17"
    assert upgraded.mirror.mirrored(STUDY) == {
        -1: MirroredTrial(STUDY, -1, "run-study", 1, 2),
        0: MirroredTrial(STUDY, 0, "run-0", 4, 3),
        2: MirroredTrial(STUDY, 2, "run-2", 1, 0),
    }
    assert upgraded.mirror.deleted() == ([] if revision < "0002" else ["deleted-abc123"])
    assert [one.study_id for one in upgraded.deletions.recent()] == ([] if revision < "0005" else ["deleted-abc123"])


def test_leases_sessions_and_login_codes_go_on_to_count(upgraded: Store, revision: str) -> None:
    assert upgraded.leases.holders(NOW)[STUDY] == "driver-4711-99"
    whose = OPERATOR if revision < "0007" else ADA  # there was nobody else
    assert upgraded.access.caller_of("ef" * 32, NOW) == whose
    assert upgraded.access.use_login_code("cd" * 32, NOW) == whose


def test_projects_tokens_and_the_audit_log_are_kept(upgraded: Store, revision: str) -> None:
    assert upgraded.studies.get(STUDY).project == "default"
    if revision < "0007":
        assert (upgraded.access.tokens(), upgraded.audit.after(0)) == ([], [])
        assert [project.name for project in upgraded.projects.all()] == ["default"]
        return
    assert [(token.name, token.role, token.project) for token in upgraded.access.tokens()] == [("ada", Role.EDITOR, "vision")]
    assert upgraded.projects.get("vision").quotas == Quotas(3, 2.5, 10.0)
    assert [entry.action for entry in upgraded.audit.after(0)] == ["pauseStudy"]
    assert upgraded.projects.usage(["default"])["default"].gpu_seconds == (5.0 if revision < "0009" else 12.5)


def test_no_row_of_the_audit_log_is_changed_or_deleted(url: str) -> None:
    write(url, NEWEST)
    with opened(url) as database:
        wiped = [] if database.is_sqlite else ["TRUNCATE audit"]
        for statement in ("UPDATE audit SET caller = 'somebody else'", "DELETE FROM audit", *wiped):
            with pytest.raises(IntegrityError, match="only ever added to"), database.writing() as connection:
                connection.execute(text(statement))
        assert [entry.caller for entry in store_on(database, FakeClock()).audit.after(0)] == ["ada"]


def test_shares_footprints_stops_and_forecasts_are_kept(upgraded: Store, revision: str) -> None:
    if revision < "0005":
        assert (upgraded.shares.all(), upgraded.footprints.of([STUDY]), upgraded.forecasts.of(STUDY)) == ({}, {}, [])
        return
    waiting = Waiting(WaitingCause.QUEUE, "others run", NOW + timedelta(seconds=82))
    assert upgraded.shares.all() == {STUDY: Share(2, 3, 0.25, waiting, 1)}
    footprint = Footprint(12345678901, NOW + timedelta(seconds=83), "above its budget", (1,))
    assert upgraded.footprints.of([STUDY]) == {STUDY: footprint}
    assert upgraded.trials.stops(STUDY) == {3}
    assert upgraded.forecasts.of(STUDY) == [a_forecast()]


def test_a_study_of_any_revision_goes_on(upgraded: Store, revision: str) -> None:
    stopping = upgraded.studies.save(upgraded.studies.get(STUDY).stopping(StudyReason.STOP_REQUESTED), by="ada")
    assert upgraded.studies.get(STUDY) == stopping
    assert upgraded.events.after(STUDY, 0)[-1].payload["by"] == "ada"


def _shown(trial: Trial) -> tuple[Any, ...]:
    return (trial.state, trial.reason, trial.reports, trial.best_value, trial.best_report, trial.seconds, trial.gpu_seconds)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_service_brings_its_own_file_up_to_date_and_keeps_a_copy_as_it_was(tmp_path: Path, revision: str) -> None:
    file = tmp_path / "tuneyard.db"
    rows = write(f"sqlite:///{file}", revision)
    prepare(f"sqlite:///{file}")
    assert versions_of(f"sqlite:///{file}").found == NEWEST
    copy = tmp_path / f"tuneyard.db.{revision}"
    assert versions_of(f"sqlite:///{copy}").found == revision
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as connection:
        assert {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in rows} == {
            name: len(kept) for name, kept in rows.items()
        }
    assert sorted(path.name for path in tmp_path.iterdir() if "-" not in path.name) == ["tuneyard.db", copy.name]


def test_a_file_that_is_up_to_date_is_not_copied(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tuneyard.db'}"
    prepare(url)
    prepare(url)
    assert [path.name for path in tmp_path.iterdir() if "-" not in path.name] == ["tuneyard.db"]


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_file_of_which_no_copy_can_be_kept_is_left_as_it_is(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tuneyard.db'}"
    write(url, REVISIONS[0])
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(NotReady):
            prepare(url)
    finally:
        tmp_path.chmod(0o700)
    assert versions_of(url).found == REVISIONS[0]


@pytest.mark.integration
@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_a_server_of_an_earlier_revision_is_refused_with_the_command_that_mends_it(empty_postgresql: str, revision: str) -> None:
    write(empty_postgresql, revision)
    with pytest.raises(SchemaTooOld, match="tuneyard db upgrade"):
        prepare(empty_postgresql)
    assert versions_of(empty_postgresql) == Versions(revision, REVISIONS)
    upgrade(empty_postgresql)
    prepare(empty_postgresql)


def test_an_empty_database_gets_its_tables_without_being_asked(url: str) -> None:
    assert versions_of(url).standing is Standing.EMPTY
    prepare(url)
    assert versions_of(url).standing is Standing.CURRENT


def test_a_database_of_a_later_program_is_refused_by_everybody_and_left_alone(url: str) -> None:
    upgrade(url)
    with opened(url) as database, database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    for use in (prepare, upgrade):
        with pytest.raises(SchemaTooNew, match="newer version"):
            use(url)
    assert versions_of(url) == Versions("9999", REVISIONS)


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_of_upgrades_at_the_same_time_one_does_it_and_the_others_find_it_done(url: str, revision: str) -> None:
    write(url, revision)
    found = at_once(*[lambda: upgrade(url)] * 3)
    assert sorted(map(str, found)) == sorted(map(str, [(revision, NEWEST), (NEWEST, NEWEST), (NEWEST, NEWEST)]))


def test_an_upgrade_that_fails_half_way_leaves_everything_as_it_was(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(url, "0004")

    def half_of_it(config: Config, _: str) -> None:
        config.attributes["connection"].execute(text("CREATE TABLE half (a INTEGER)"))
        raise OSError("the plug was pulled")

    monkeypatch.setattr(command, "upgrade", half_of_it)
    with pytest.raises(NotReady, match="the plug was pulled"):
        upgrade(url)
    with opened(url) as database:
        assert not inspect(database.engine).has_table("half")
    assert versions_of(url).found == "0004"


@pytest.mark.parametrize(
    ("found", "standing"),
    [(None, Standing.EMPTY), ("1", Standing.OLDER), ("2", Standing.OLDER), ("3", Standing.CURRENT), ("4", Standing.NEWER)],
)
def test_a_version_stands_where_the_program_knows_it(found: str | None, standing: Standing) -> None:
    assert Versions(found, ["1", "2", "3"]).standing is standing


def test_versions_are_known_from_the_oldest_to_the_newest() -> None:
    assert list(versions._known()) == REVISIONS
