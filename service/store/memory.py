"""A store that is gone with its process: the same tables and statements, in a SQLite database that has no file."""

from service.clock import SystemClock
from service.domain.ports import Clock, Store
from service.store.database import Database
from service.store.sql import store_on
from service.store.tables import metadata


def memory_store(clock: Clock | None = None) -> Store:
    """An empty store of its own; safe to use from several threads."""
    database = Database("sqlite://")
    with database.writing() as connection:
        metadata.create_all(connection)
    return store_on(database, clock or SystemClock())
