"""Open the store of a database, and bring its tables up to date."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.exc import DatabaseError

from service.clock import SystemClock
from service.domain.errors import NotReady
from service.domain.ports import Clock, Store
from service.store.access import SqlAccess
from service.store.database import Database
from service.store.leases import SqlLeases
from service.store.mirror import SqlMirror
from service.store.studies import SqlEvents, SqlStudies
from service.store.trials import SqlTrials

_MIGRATIONS = Path(__file__).parent / "migrations"


def open_store(url: str) -> Store:
    """The store at a SQLAlchemy URL: `sqlite:///FILE` or `postgresql://...`. Raises NotReady for any other.

    Connects when first used; `migrate` has to have been run.
    """
    return store_on(Database(url), SystemClock())


def store_on(database: Database, clock: Clock) -> Store:
    """All ports on one database."""
    return Store(
        studies=SqlStudies(database, clock),
        trials=SqlTrials(database, clock),
        events=SqlEvents(database),
        leases=SqlLeases(database),
        mirror=SqlMirror(database),
        access=SqlAccess(database, clock),
    )


def migrate(url: str) -> None:
    """Create the tables, or bring those of an older version up to date. Raises NotReady when it cannot."""
    database = Database(url)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    try:
        database.make_private()
        with database.writing() as connection:
            database.take_turns(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise NotReady(f"The database was written by a newer version of Tuneyard ({error}): install that version.") from error
    except DatabaseError as error:
        raise NotReady(f"The database cannot be used ({error.orig}): check TUNEYARD_DATABASE_URL and that it runs.") from error
    except OSError as error:
        raise NotReady(f"The database's file cannot be made ({error}): check TUNEYARD_DATABASE_URL.") from error
    finally:
        database.engine.dispose()
