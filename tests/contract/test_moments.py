"""What is read at one moment, and connections to a server that end without a word."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from service.domain.errors import StoreAway
from service.domain.ports import Store
from service.store import database as module
from service.store.database import Database
from service.store.leadership import SqlLeadership, led_by
from service.store.sql import open_store, store_on
from service.store.versions import upgrade
from tests.builders import NOW, a_study
from tests.contract.conftest import POSTGRESQL, end, has_study, has_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["sqlite", POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    file = f"sqlite:///{tmp_path / 'tuneyard.db'}"
    found: str = file if request.param == "sqlite" else request.getfixturevalue("empty_postgresql")
    upgrade(found)
    return found


def test_the_last_event_of_each_study_is_told_and_whether_it_has_ended(store: Store) -> None:
    has_trial(store, has_study(store), values=[0.5])
    has_study(store, "other-abc123")
    last = store.events.after(STUDY, 0)[-1].id
    wanted = [STUDY, "other-abc123", "unknown-abc123"]
    assert store.events.latest(wanted) == {STUDY: (last, False), "other-abc123": (1, False)}
    end(store)
    assert store.events.latest([STUDY]) == {STUDY: (store.events.after(STUDY, 0)[-1].id, True)}
    assert store.events.latest([]) == {}


def test_what_another_writes_in_between_is_not_seen_before_the_moment_has_passed(url: str) -> None:
    store, other = open_store(url), open_store(url)
    store.studies.add(a_study())
    with store.at_one_moment():
        before = store.studies.get(STUDY)
        with store.at_one_moment():
            other.studies.save(before.running(NOW))
            assert store.studies.get(STUDY) == before
        assert store.events.latest([STUDY]) == {STUDY: (1, False)}
    assert store.studies.get(STUDY) == replace(before.running(NOW), version=1)
    assert store.events.latest([STUDY]) == {STUDY: (2, False)}


@pytest.fixture
def server(empty_postgresql: str) -> Iterator[Database]:
    upgrade(empty_postgresql)
    database = Database(empty_postgresql)
    yield database
    database.engine.dispose()


def end_connections(url: str) -> None:
    """As a server does that is started again. They have ended when it returns."""
    other = Database(url)
    with other.writing() as connection:
        others = "datname = current_database() AND pid <> pg_backend_pid()"
        connection.execute(text(f"SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE {others}"))
    other.engine.dispose()


@pytest.mark.integration
def test_a_connection_that_ended_while_it_lay_idle_is_replaced_without_a_word(
    empty_postgresql: str, server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", 0.0)
    store = store_on(server, FakeClock())
    store.studies.add(a_study())
    end_connections(empty_postgresql)
    assert store.studies.get(STUDY).created_at == NOW


@pytest.mark.integration
def test_of_a_connection_that_ended_just_after_its_use_one_hears_once(
    empty_postgresql: str, server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", 1000.0)
    store = store_on(server, FakeClock())
    store.studies.add(a_study())
    end_connections(empty_postgresql)
    with pytest.raises(StoreAway):
        store.studies.get(STUDY)
    assert store.studies.get(STUDY).created_at == NOW


@pytest.mark.integration
def test_a_leader_that_stands_still_in_the_middle_of_a_write_keeps_nobody_from_leading(
    empty_postgresql: str, server: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    leadership = SqlLeadership(server)
    assert leadership.acquire("controller-one-1-1", NOW, MINUTE)
    monkeypatch.setattr(module, "_IDLE_SECONDS", 1)  # of connections that are made from now on
    stopped = Database(empty_postgresql, led_by("controller-one-1-1"))

    def stand_still() -> None:
        with stopped.writing() as connection:
            assert leadership.acquire("controller-two-1-1", NOW + MINUTE, MINUTE), "it waits until the server has ended the other"
            connection.execute(text("DELETE FROM studies"))

    with pytest.raises(StoreAway):
        stand_still()
    stopped.engine.dispose()


@pytest.mark.integration
def test_a_server_that_only_reads_is_away_and_its_connections_are_not_kept(empty_postgresql: str, server: Database) -> None:
    store, operator = store_on(server, FakeClock()), Database(empty_postgresql)
    with operator.writing() as connection:
        connection.execute(text("ALTER DATABASE empty SET default_transaction_read_only = on"))
    with pytest.raises(StoreAway):
        store.studies.add(a_study())
    with operator.writing() as connection:
        connection.execute(text("ALTER DATABASE empty RESET default_transaction_read_only"))
    operator.engine.dispose()
    assert store.studies.add(a_study()).id == STUDY
