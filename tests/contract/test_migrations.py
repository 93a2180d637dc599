"""Databases that are made, brought up to date and refused."""

import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Table, create_engine, inspect, text

from service.domain.decision import Decision
from service.domain.errors import NotReady
from service.domain.history import History
from service.domain.ports import Change, Store
from service.domain.trial import TrialReason, TrialState
from service.store import migrations, tables
from service.store.database import Database
from service.store.rows import report_row, study_row, trial_row
from service.store.sql import open_store, store_on
from service.store.tables import metadata
from service.store.versions import upgrade
from tests.builders import NOW, a_report, a_study, a_trial
from tests.contract.conftest import DRIVER, POSTGRESQL, at_once, has_study, has_trial
from tests.fakes import FakeClock

NEWEST = "0009"


@pytest.fixture(params=["sqlite", POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'home' / 'tuneyard.db'}"
    empty: str = request.getfixturevalue("empty_postgresql")
    return empty


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    upgrade(url)
    database = Database(url)
    yield database
    database.engine.dispose()


def everything(store: Store) -> list[Any]:
    studies, trials = store.studies, store.trials
    study = studies.get("intents-abc123")
    number = 0
    return [study, trials.get(study.id, number), trials.reports(study.id, number), store.events.after(study.id, 0)]


def test_an_empty_database_gets_every_table(database: Database) -> None:
    assert set(inspect(database.engine).get_table_names()) == {*metadata.tables, "alembic_version"}


def test_the_migrated_schema_is_that_of_the_tables(database: Database) -> None:
    with database.reading() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []


def test_deleting_a_study_deletes_what_belongs_to_it_by_the_databases_own_rules(database: Database) -> None:
    keys = {
        (table, key["constrained_columns"][0]): key["options"].get("ondelete")
        for table in metadata.tables
        for key in inspect(database.engine).get_foreign_keys(table)
    }
    expected = {
        (table.name, str(key.column_keys[0])) for table in metadata.tables.values() for key in table.foreign_key_constraints
    }
    assert set(keys) == expected
    assert set(keys.values()) == {"CASCADE"}


def test_a_database_with_rows_in_it_survives_another_migration(url: str, database: Database) -> None:
    store = store_on(database, FakeClock())
    has_trial(store, has_study(store), values=[0.5, 0.75])
    before = everything(store)
    upgrade(url)
    assert everything(store) == before


def an_old_database(url: str, revision: str, *rows: tuple[Table, dict[str, Any]]) -> Database:
    """A database of an earlier version with these rows in it: of each what its table had then."""
    database = Database(url)
    database.make_private()
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with database.writing() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for table, row in rows:
            columns = {column["name"] for column in inspect(connection).get_columns(table.name)}
            connection.execute(table.insert().values({name: value for name, value in row.items() if name in columns}))
    return database


def a_study_row() -> tuple[Table, dict[str, Any]]:
    return (tables.studies, {**study_row(a_study()), "last_event": 0})


def test_a_database_of_the_first_version_keeps_its_rows_and_gets_the_tables_of_this_one(url: str) -> None:
    trial = a_trial(reports=1, value=0.5, best_value=0.5, best_report=1, best_epoch=1.0, state=TrialState.RUNNING)
    of_trial = {"study_id": trial.study_id, "trial": 0, **report_row(a_report())}
    rows = [a_study_row(), (tables.trials, trial_row(trial)), (tables.reports, of_trial)]
    database = an_old_database(url, "0001", *rows)
    upgrade(url)
    store = store_on(database, FakeClock())
    assert everything(store) == [a_study(), trial, [a_report()], []]
    assert store.trials.history(trial.study_id) == History({0: trial}, {0: (0.5,)}, seconds={0: (2.0,)})
    assert (store.trials.decisions(trial.study_id, 0), store.trials.requests(trial.study_id)) == ([], [])
    assert store.mirror.deleted() == []
    database.engine.dispose()


def test_a_trial_that_ran_out_of_memory_becomes_infeasible_and_the_tracker_hears_of_it(url: str) -> None:
    before = [
        a_trial(number, state=TrialState.FAILED, reason=reason, version=4)
        for number, reason in enumerate((TrialReason.OUT_OF_MEMORY, TrialReason.DIVERGED))
    ]
    database = an_old_database(url, "0002", a_study_row(), *((tables.trials, trial_row(trial)) for trial in before))
    upgrade(url)
    store = store_on(database, FakeClock())
    after = [store.trials.get(trial.study_id, trial.number) for trial in before]
    assert after == [replace(before[0], state=TrialState.INFEASIBLE, version=before[0].version + 1), before[1]]
    database.engine.dispose()


def test_a_study_of_the_version_before_decisions_goes_on_with_them(url: str) -> None:
    database = an_old_database(url, "0003", a_study_row(), (tables.trials, trial_row(a_trial(version=7))))
    upgrade(url)
    store = store_on(database, FakeClock())
    study = store.studies.get("intents-abc123")
    assert store.trials.get(study.id, 0) == a_trial(version=7)
    assert store.leases.acquire(study.id, DRIVER, NOW, timedelta(days=1))
    decision = Decision("proposed", "random")
    store.trials.record(DRIVER, [Change(a_trial(1, parent=0, parent_report=2, seed=5), decision=decision)])
    assert store.trials.get(study.id, 1) == a_trial(1, parent=0, parent_report=2, seed=5)
    assert [found for _, found in store.trials.decisions(study.id, 1)] == [decision]
    database.engine.dispose()


def test_two_processes_may_migrate_the_same_database_at_the_same_time(url: str) -> None:
    found = at_once(*[lambda: upgrade(url)] * 3)
    assert sorted(found, key=str) == sorted([(None, NEWEST), (NEWEST, NEWEST), (NEWEST, NEWEST)], key=str)
    store = open_store(url)
    assert store.studies.add(a_study()) == store.studies.get("intents-abc123")
    close(store)


def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str, database: Database) -> None:
    store = store_on(database, FakeClock())
    has_trial(store, has_study(store), values=[0.5])
    before = everything(store)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NotReady, match="newer version"):
        upgrade(url)
    assert everything(store) == before


def test_a_store_is_opened_by_its_url(url: str) -> None:
    upgrade(url)
    store = open_store(url)
    store.studies.add(a_study())
    assert store.studies.get("intents-abc123").created_at == NOW
    close(store)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("Buy milk, and remember to water the plants.\n" * 100)
    with pytest.raises(NotReady):
        upgrade(f"sqlite:///{file}")
    assert file.read_text().startswith("Buy milk")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "tuneyard.db", tmp_path):
        with pytest.raises(NotReady):
            upgrade(f"sqlite:///{path}")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    connection = sqlite3.connect(file)
    connection.execute("CREATE TABLE studies (title TEXT)")
    connection.close()
    with pytest.raises(NotReady):
        upgrade(f"sqlite:///{file}")


@pytest.mark.parametrize("name", ["{file}", "file:{file}?uri=true", "file://{file}?uri=true", "file:{quoted}?uri=true"])
def test_a_file_is_for_its_owner_alone_however_it_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "my home" / "tuneyard.db"
    monkeypatch.chdir(tmp_path)
    upgrade(f"sqlite:///{name.format(file=file, quoted=quote(str(file)))}")
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".db"] == [file]
    assert (stat.S_IMODE(file.stat().st_mode), stat.S_IMODE(file.parent.stat().st_mode)) == (0o600, 0o700)


@pytest.mark.parametrize("name", ["", ":memory:", "file::memory:?uri=true", "file:any?mode=memory&uri=true"])
def test_a_database_in_memory_has_no_file(name: str) -> None:
    assert Database(f"sqlite:///{name}").file is None


@pytest.mark.integration
def test_a_server_that_does_not_answer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="TUNEYARD_DATABASE_URL"):
        upgrade(f"postgresql:///tuneyard?host={tmp_path}")


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/tuneyard", "sqlite", "http://localhost"])
def test_a_url_of_no_database_we_know_is_refused(url: str) -> None:
    for use in (upgrade, open_store):
        with pytest.raises(NotReady):
            use(url)


def close(store: Store) -> None:
    database: Database = store.studies._database  # type: ignore[attr-defined]
    database.engine.dispose()


def test_alembic_has_one_head_whose_tables_are_made_from_nothing(tmp_path: Path) -> None:
    fresh = create_engine(f"sqlite:///{tmp_path / 'fresh.db'}")
    metadata.create_all(fresh)
    upgrade(f"sqlite:///{tmp_path / 'migrated.db'}")
    migrated = create_engine(f"sqlite:///{tmp_path / 'migrated.db'}")
    indexes = [
        {table: sorted(str(index) for index in inspect(engine).get_indexes(table)) for table in metadata.tables}
        for engine in (fresh, migrated)
    ]
    for engine in (fresh, migrated):
        engine.dispose()
    assert indexes[0] == indexes[1]
