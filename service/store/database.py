"""Connections and transactions: what differs between the databases is here and nowhere else."""

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.pool import StaticPool

from service.domain.errors import NotReady, StoreAway

_BUSY_SECONDS = 30.0
"""How long a writer waits for another process's transaction, all of which are short."""
_LOOK_SECONDS = 0.01
_CONNECT_SECONDS = 5
"""How long a PostgreSQL server may take to answer at all, and as long again, silent, until its connection counts as broken."""
_CONNECTIONS = 15
"""Of one process to PostgreSQL, at most. They are made when they are needed."""
_FRESH_SECONDS = 1.0
_IDLE_SECONDS = 15
"""How long a transaction may stand still until PostgreSQL ends it: a process that was stopped in one keeps others waiting."""
_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL,
    }
)  # fmt: skip
"""What SQLite says while its file cannot be used, rather than of a statement."""
_READ_ONLY = "25006"
"""What PostgreSQL says of a statement that writes, by the number of the standard."""
_TURNS_LOCK = 0x74756E65
"""A number that no other user of a PostgreSQL server is likely to lock."""


def no_condition(_: Connection) -> None:
    """Lets everybody write."""


class Database:
    """Transactions on one database, from any number of threads and processes."""

    def __init__(self, url: str, before_writing: Callable[[Connection], None] = no_condition) -> None:
        """Connects when first used. Raises NotReady for a URL that names no database we know.

        Each transaction that writes begins with `before_writing`, which may raise to forbid it.
        """
        self._before_writing = before_writing
        self._moment = threading.local()
        self._url = _parsed(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.file = _file_of(self._url) if self.is_sqlite else None
        # One connection is the whole database in memory: its transactions take turns.
        self._turns: Any = nullcontext() if self.file or not self.is_sqlite else threading.RLock()
        self.engine = _sqlite(self._url, self.file) if self.is_sqlite else _postgresql(self._url)
        # Connections are closed with the last user of this object, not whenever Python comes to them.
        weakref.finalize(self, self.engine.dispose)
        snapshot: dict[str, Any] = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self.engine.execution_options(**snapshot)
        self._writer = self.engine.execution_options(is_writing=True)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one moment of the database. Raises StoreAway."""
        known: Connection | None = getattr(self._moment, "connection", None)
        with _known_away():
            if known is not None:
                yield known
                return
            with self._turns, self._reader.begin() as connection:
                yield connection

    @contextmanager
    def at_one_moment(self) -> Iterator[None]:
        """Let all that this thread reads in the block see the same moment, in one transaction. Raises StoreAway."""
        with self.reading() as connection:
            before = getattr(self._moment, "connection", None)
            self._moment.connection = connection
            try:
                yield
            finally:
                self._moment.connection = before

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is committed when the block ends well, and has never been otherwise.

        Raises StoreAway, after which nobody knows whether it was committed if it was about to be.
        """
        with _known_away(), self._turns, self._writer.begin() as connection:
            self._before_writing(connection)
            yield connection

    def take_turns(self, connection: Connection) -> None:
        """Let no other transaction that asks for the same begin its work before this one has ended."""
        if not self.is_sqlite:  # there, every writer has the database to itself
            connection.execute(select(func.pg_advisory_xact_lock(_TURNS_LOCK)))

    def make_private(self) -> None:
        """Create the file of a SQLite database so that only its owner reads it."""
        if self.file is not None:
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self.file, os.O_CREAT | os.O_RDWR, 0o600))


def insert_or_change(connection: Connection, table: Table, row: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Add a row or, where its primary key is there already, change that one; who is at it at the same moment waits."""
    insert = (sqlite if connection.dialect.name == "sqlite" else postgresql).insert(table)
    keys = list(table.primary_key.columns)
    connection.execute(insert.values(row).on_conflict_do_update(index_elements=keys, set_=changes))


@contextmanager
def _known_away() -> Iterator[None]:
    """Tell a database that does not answer, or has no room, from a statement that is wrong. Raises StoreAway."""
    try:
        yield
    except (DBAPIError, NoConnection) as error:
        if not _is_away(error):
            raise
        said = error.orig if isinstance(error, DBAPIError) else error
        raise StoreAway(_first_line(said)) from error


def _is_away(error: DBAPIError | NoConnection) -> bool:
    """SQLite says by a code what is the matter; a client of PostgreSQL has a class of errors for it, and may find out later."""
    if isinstance(error, NoConnection):
        return True  # every connection is taken, and none came back
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        return code & 0xFF in _AWAY
    return not isinstance(error.orig, sqlite3.Error) and (isinstance(error, OperationalError) or error.connection_invalidated)


def _file_of(url: URL) -> Path | None:
    """The file of a SQLite database, which may be named by a URI; None for one in memory."""
    name = url.database or ""
    path = unquote(urlsplit(name).path) if name.startswith("file:") else name
    return None if path in {"", ":memory:"} or url.query.get("mode") == "memory" else Path(path)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def tracking_url(url: str, store_url: str) -> str:
    """MLflow's database, as MLflow takes its URL. Raises NotReady where it is no database, or the store's own."""
    parsed, own = _parsed(url, "TUNEYARD_MLFLOW_DATABASE_URL"), _parsed(store_url)
    if parsed.get_backend_name() == "sqlite":
        return url
    if (parsed.host, parsed.port, parsed.database, parsed.query) == (own.host, own.port, own.database, own.query):
        raise NotReady(
            "MLflow needs a database, or a schema, of its own: set TUNEYARD_MLFLOW_DATABASE_URL to another name, or add "
            "`?options=-csearch_path%3Dmlflow` to it after `CREATE SCHEMA mlflow`."
        )
    return parsed.render_as_string(hide_password=False)


def _parsed(url: str, variable: str = "TUNEYARD_DATABASE_URL") -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    backend = parsed.get_backend_name() if parsed else None
    if parsed is None or backend not in {"sqlite", "postgresql", "postgres"}:
        raise NotReady(f"The database URL must begin with sqlite:/// or postgresql://: set {variable} to one that does.")
    if backend == "sqlite":
        return parsed.set(drivername="sqlite+pysqlite")
    try:
        import psycopg  # noqa: F401, PLC0415 - an optional dependency
    except ImportError as error:
        raise NotReady("PostgreSQL needs the extra `postgres`: pip install '.[postgres]' in a clone.") from error
    return parsed.set(drivername="postgresql+psycopg")


def _postgresql(url: URL) -> Engine:
    # A server that vanishes without a word, as with its machine, would be waited for until the system gives up.
    patience = {
        "connect_timeout": _CONNECT_SECONDS, "keepalives_idle": _CONNECT_SECONDS, "keepalives_interval": 1,
        "keepalives_count": _CONNECT_SECONDS, "tcp_user_timeout": 2000 * _CONNECT_SECONDS,
    }  # fmt: skip
    # As many as are ever needed at once are kept: what overflows a pool is connected anew each time.
    engine = create_engine(
        url,
        pool_size=_CONNECTIONS,
        max_overflow=0,
        connect_args={key: each for key, each in patience.items() if key not in url.query},
    )
    event.listen(engine, "connect", _on_connect_to_postgresql)
    event.listen(engine, "checkin", _on_checkin)

    def ask_whether_it_lives(connection: Any, record: Any, _: object) -> None:
        """Of a connection that lay idle. One that was just in use need not be asked, which takes as long as a statement."""
        if time.monotonic() - record.info.get("used_at", time.monotonic()) < _FRESH_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error  # all that are older are closed, and one is made anew

    event.listen(engine, "checkout", ask_whether_it_lives)
    event.listen(engine, "handle_error", _on_error_of_postgresql)
    return engine


def _on_error_of_postgresql(context: ExceptionContext) -> None:
    """A server that only reads has handed its part to another one, which is found by connecting anew."""
    if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
        context.is_disconnect = True


def _on_checkin(_: object, record: Any) -> None:
    record.info["used_at"] = time.monotonic()


def _on_connect_to_postgresql(connection: Any, _: object) -> None:
    # Not among the options of the connection: not every pool between us and the server lets those through.
    connection.autocommit = True
    connection.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    connection.autocommit = False


def _sqlite(url: URL, file: Path | None) -> Engine:
    options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_SECONDS, "check_same_thread": False}}
    if file is None:
        options["poolclass"] = StaticPool
    engine = create_engine(url, **options)
    event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    return engine


def _on_connect(connection: Any, _: object) -> None:
    connection.isolation_level = None  # transactions begin where `_on_begin` says, not where Python guesses
    connection.execute("PRAGMA foreign_keys = ON")
    _write_ahead(connection)


def _write_ahead(connection: Any) -> None:
    """Wait for whoever writes to a new file: to change its journal meanwhile is refused at once, whatever one would wait."""
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return


def _on_begin(connection: Connection) -> None:
    # A writer takes its turn at once: a transaction that reads first and writes then cannot wait for another one.
    is_writing = connection.get_execution_options().get("is_writing")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")
