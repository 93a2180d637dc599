"""A database that is away is told from a statement that is wrong."""

import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from service.domain.errors import NotReady, StoreAway
from service.store.database import Database, tracking_url
from service.store.versions import upgrade


def a_database(folder: Path) -> Database:
    database = Database(f"sqlite:///{folder / 'tuneyard.db'}")
    with database.writing() as connection:
        connection.exec_driver_sql("CREATE TABLE words (word TEXT PRIMARY KEY)")
    return database


def test_a_file_that_has_no_room_to_grow_is_a_store_that_is_away_and_keeps_what_it_has(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    with database.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 4")
    with pytest.raises(StoreAway, match="try again") as raised, database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO words VALUES (?)", ("a" * 100_000,))
    assert "database or disk is full" in raised.value.cause
    with database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar() == 0


def test_a_file_that_another_process_holds_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.database._BUSY_SECONDS", 0)
    database = a_database(tmp_path)
    other = sqlite3.connect(tmp_path / "tuneyard.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreAway), database.writing():
        pass
    other.close()


def test_who_opens_a_new_file_while_another_makes_its_first_tables_waits_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = sqlite3.connect(tmp_path / "tuneyard.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE words (word TEXT PRIMARY KEY)")
    waits = SimpleNamespace(monotonic=time.monotonic, sleep=lambda _: other.execute("COMMIT"))
    monkeypatch.setattr("service.store.database.time", waits)
    with Database(f"sqlite:///{tmp_path / 'tuneyard.db'}").reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM words").scalar() == 0
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    other.close()


def test_a_file_whose_folder_is_gone_is_away_and_cannot_be_migrated(tmp_path: Path) -> None:
    with pytest.raises(StoreAway), Database(f"sqlite:///{tmp_path / 'gone' / 'tuneyard.db'}").reading():
        pass
    (tmp_path / "tuneyard.db").mkdir()
    with pytest.raises(NotReady):
        upgrade(f"sqlite:///{tmp_path / 'tuneyard.db'}")


OWN = "postgresql://tuneyard:secret@db/tuneyard"


@pytest.mark.parametrize(
    "url",
    ["postgresql://mlflow:s%40cret@db/mlflow", "postgres://mlflow:s%40cret@db/tuneyard?options=-csearch_path%3Dmlflow"],
)
def test_mlflow_gets_a_database_or_a_schema_of_its_own_by_a_driver_that_is_installed(url: str) -> None:
    found = tracking_url(url, OWN)
    assert found.startswith("postgresql+psycopg://mlflow:s%40cret@db/")
    assert found.partition("?")[2] == url.partition("?")[2].replace("%3D", "%3D")


def test_the_stores_own_database_is_none_for_mlflow_whoever_logs_in() -> None:
    with pytest.raises(NotReady, match="of its own"):
        tracking_url("postgresql+psycopg://another:other@db/tuneyard", OWN)


def test_a_file_for_mlflow_is_taken_as_it_is_and_what_is_no_database_is_refused() -> None:
    assert tracking_url("sqlite:////srv/mlflow.db", OWN) == "sqlite:////srv/mlflow.db"
    with pytest.raises(NotReady, match="TUNEYARD_MLFLOW_DATABASE_URL"):
        tracking_url("http://mlflow", OWN)


def test_a_statement_that_is_wrong_stays_a_mistake_of_ours(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    with pytest.raises(OperationalError, match="no such table"), database.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM sentences")
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO words VALUES ('a'), ('a')")
