"""What a controller does that does not lead: it serves its own machine, and writes nothing into the store.

The drivers that it started while it led go on, each by its own lease, and whoever leads now knows them by these.
"""

import logging
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from service.domain.paging import active_studies
from service.domain.ports import Clock, Store
from service.folders import folders_in, remove

_LOG = logging.getLogger("tuneyard.controller")
_EVERY = timedelta(minutes=5)
_UNUSED = timedelta(minutes=10)
"""How old prepared rows must be of a study that has ended, until they are deleted."""


class OwnDrivers(Protocol):
    """The drivers of this machine: `service.controller.drivers.Drivers`, or in tests something that remembers."""

    def known(self) -> frozenset[str]: ...

    def forget(self, study_id: str) -> None: ...

    def launched(self) -> Mapping[str, object]: ...

    def by_process(self) -> Mapping[int, str]: ...


class Follower:
    """Looks after one machine while another leads. `sweep` deletes what Ray and drivers left; `prepared` has a folder a study."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        drivers: OwnDrivers,
        prepared: Path,
        sweep: Callable[[Collection[str], Collection[str], datetime], object],
    ) -> None:
        self._store = store
        self._clock = clock
        self._drivers = drivers
        self._prepared = prepared
        self._sweep = sweep
        self._swept_at: datetime | None = None

    def turn(self) -> None:
        """See to drivers that have ended, and now and then to what they left."""
        self._drivers.launched()  # which takes note of those that have ended
        for study_id in self._drivers.known():
            self._drivers.forget(study_id)  # what came of it counts for the one that leads, should this one lead again
        now = self._clock.now()
        if self._swept_at is not None and now - self._swept_at < _EVERY:
            return
        self._swept_at = now
        active = {study.id for study in active_studies(self._store.studies)}
        driven = {*self._store.leases.holders(now), *self._drivers.by_process().values()}
        self._sweep(driven, active, now)
        for study_id, changed in folders_in(self._prepared).items():
            if study_id not in active and study_id not in driven and now - changed > _UNUSED:
                _LOG.info("study %s is over: its prepared rows are deleted", study_id)
                remove(self._prepared / study_id)
