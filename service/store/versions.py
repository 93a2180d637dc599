"""Which version of the tables a database has, and how it gets this program's."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DatabaseError

from service.domain.errors import NotReady, SchemaTooNew, SchemaTooOld, StoreAway
from service.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"


class Standing(StrEnum):
    """How a database's version compares with the program's."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"


@dataclass(frozen=True)
class Versions:
    """The version of a database, None of one without tables, and those that this program knows, the oldest first."""

    found: str | None
    known: Sequence[str]

    @property
    def newest(self) -> str:
        """This program's own."""
        return self.known[-1]

    @property
    def standing(self) -> Standing:
        """How the two compare: a version that this program does not know is a later program's."""
        if self.found is None:
            return Standing.EMPTY
        if self.found == self.newest:
            return Standing.CURRENT
        return Standing.OLDER if self.found in self.known else Standing.NEWER


def versions_of(url: str) -> Versions:
    """The versions of a database, which is not changed. Raises NotReady when it cannot be read."""
    database = Database(url)
    try:
        if database.file is not None and not database.file.exists():
            return Versions(None, _known())
        with _understood(), database.reading() as connection:
            return Versions(_found(connection), _known())
    finally:
        database.engine.dispose()


def prepare(url: str) -> None:
    """Make the tables of an empty database; those of an older version are only brought up to date in a file of our own.

    Of that file a copy is kept beside it. A server may have other users: raises SchemaTooOld, which names the command. Raises
    SchemaTooNew for what a later version wrote, and NotReady when it cannot be used at all.
    """
    versions = versions_of(url)
    if versions.standing is Standing.OLDER and not Database(url).is_sqlite:
        raise SchemaTooOld(
            f"The database has version {versions.found} of the tables, and this program needs {versions.newest}: stop every "
            "service that uses it, make a backup, and run `tuneyard db upgrade`."
        )
    if versions.standing is not Standing.CURRENT:
        upgrade(url)


def upgrade(url: str) -> tuple[str | None, str]:
    """Create the tables, or bring those of an older version up to date; answers from which version to which.

    Safe when several do so at once. Raises SchemaTooNew, or NotReady when it cannot.
    """
    from alembic import command  # noqa: PLC0415 - one process migrates, and many open the store

    database = Database(url)
    config = _config()
    try:
        with _understood():
            database.make_private()
            with database.writing() as connection:
                database.take_turns(connection)
                versions = Versions(_found(connection), _known())
                if versions.standing is Standing.NEWER:
                    raise SchemaTooNew(
                        f"The database was written by a newer version of Tuneyard: its tables have version {versions.found}, and "
                        f"this program knows up to {versions.newest}. Install that version."
                    )
                if versions.standing is Standing.OLDER and database.file is not None:
                    _keep_copy(database.file, database.file.with_name(f"{database.file.name}.{versions.found}"))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
    finally:
        database.engine.dispose()
    return versions.found, versions.newest


def _keep_copy(file: Path, copy: Path) -> None:
    """A copy of a SQLite database that others may be reading, and that nobody writes to; whole, or not there."""
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}")
    os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
    try:
        with contextlib.closing(sqlite3.connect(file)) as source, contextlib.closing(sqlite3.connect(temporary)) as target:
            source.backup(target)
        temporary.replace(copy)
    finally:
        temporary.unlink(missing_ok=True)


def _found(connection: Connection) -> str | None:
    """The version that stands in the database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _known() -> Sequence[str]:
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - as above

    return [one.revision for one in ScriptDirectory.from_config(_config()).walk_revisions()][::-1]


def _config() -> "Config":
    from alembic.config import Config  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    return config


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Raises NotReady for whatever a database says that cannot be used."""
    try:
        yield
    except DatabaseError as error:
        raise NotReady(f"The database cannot be used ({error.orig}): check TUNEYARD_DATABASE_URL and that it runs.") from error
    except StoreAway as error:
        raise NotReady(f"The database cannot be used ({error.cause}): check TUNEYARD_DATABASE_URL and that it runs.") from error
    except (OSError, sqlite3.Error) as error:
        detail = (
            f"The database's file, or the copy beside it, cannot be made ({error}): check TUNEYARD_DATABASE_URL and the disk."
        )
        raise NotReady(detail) from error
