"""Open the store of a database."""

from dataclasses import replace

from service.clock import SystemClock
from service.domain.ports import Clock, Store
from service.store.access import SqlAccess
from service.store.audit import SqlAudit
from service.store.database import Database, no_condition
from service.store.deletions import SqlDeletions
from service.store.footprints import SqlFootprints
from service.store.forecasts import SqlForecasts
from service.store.leadership import SqlLeadership, led_by
from service.store.leases import SqlLeases
from service.store.mirror import SqlMirror
from service.store.projects import SqlProjects
from service.store.shares import SqlShares
from service.store.studies import SqlEvents, SqlStudies
from service.store.tracked import SqlTracked
from service.store.trials import SqlTrials


def open_store(url: str, leader: str | None = None) -> Store:
    """The store at a SQLAlchemy URL: `sqlite:///FILE` or `postgresql://...`. Raises NotReady for any other.

    Connects when first used; `service.store.versions.prepare` has to have been run. Of a controller that is named as `leader`
    every write raises LeadershipLost unless it leads.
    """
    store = store_on(Database(url, led_by(leader) if leader else no_condition), SystemClock())
    return store if leader is None else replace(store, leadership=SqlLeadership(Database(url)))


def store_on(database: Database, clock: Clock) -> Store:
    """All ports on one database."""
    return Store(
        studies=SqlStudies(database, clock),
        trials=SqlTrials(database, clock),
        events=SqlEvents(database),
        leases=SqlLeases(database),
        leadership=SqlLeadership(database),
        shares=SqlShares(database),
        forecasts=SqlForecasts(database),
        footprints=SqlFootprints(database),
        deletions=SqlDeletions(database),
        mirror=SqlMirror(database),
        tracked=SqlTracked(database),
        access=SqlAccess(database, clock),
        projects=SqlProjects(database),
        audit=SqlAudit(database),
        at_one_moment=database.at_one_moment,
    )
