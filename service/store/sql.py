"""Open the store of a database, and bring its tables up to date."""

from pathlib import Path

from sqlalchemy.exc import DatabaseError

from service.clock import SystemClock
from service.domain.errors import NotReady, StoreAway
from service.domain.ports import Clock, Store
from service.store.access import SqlAccess
from service.store.audit import SqlAudit
from service.store.database import Database
from service.store.deletions import SqlDeletions
from service.store.footprints import SqlFootprints
from service.store.forecasts import SqlForecasts
from service.store.leases import SqlLeases
from service.store.mirror import SqlMirror
from service.store.projects import SqlProjects
from service.store.shares import SqlShares
from service.store.studies import SqlEvents, SqlStudies
from service.store.tracked import SqlTracked
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
        shares=SqlShares(database),
        forecasts=SqlForecasts(database),
        footprints=SqlFootprints(database),
        deletions=SqlDeletions(database),
        mirror=SqlMirror(database),
        tracked=SqlTracked(database),
        access=SqlAccess(database, clock),
        projects=SqlProjects(database),
        audit=SqlAudit(database),
    )


def migrate(url: str) -> None:
    """Create the tables, or bring those of an older version up to date. Raises NotReady when it cannot."""
    from alembic import command  # noqa: PLC0415 - one process migrates, and many open the store
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

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
    except StoreAway as error:
        raise NotReady(f"The database cannot be used ({error.cause}): check TUNEYARD_DATABASE_URL and that it runs.") from error
    except OSError as error:
        raise NotReady(f"The database's file cannot be made ({error}): check TUNEYARD_DATABASE_URL.") from error
    finally:
        database.engine.dispose()
