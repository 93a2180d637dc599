"""A database that is away is told from a statement that is wrong."""

import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from service.domain.errors import NotReady, StoreAway
from service.store.database import Database
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


def test_a_file_whose_folder_is_gone_is_away_and_cannot_be_migrated(tmp_path: Path) -> None:
    with pytest.raises(StoreAway), Database(f"sqlite:///{tmp_path / 'gone' / 'tuneyard.db'}").reading():
        pass
    (tmp_path / "tuneyard.db").mkdir()
    with pytest.raises(NotReady):
        upgrade(f"sqlite:///{tmp_path / 'tuneyard.db'}")


def test_a_statement_that_is_wrong_stays_a_mistake_of_ours(tmp_path: Path) -> None:
    database = a_database(tmp_path)
    with pytest.raises(OperationalError, match="no such table"), database.reading() as connection:
        connection.exec_driver_sql("SELECT * FROM sentences")
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO words VALUES ('a'), ('a')")
