"""Acts on what `reconcile` finds, and tells of each repair by an event."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol, assert_never

from service.controller.reconcile import (
    DeadLease,
    Finding,
    Graces,
    OpenAttempts,
    Processes,
    StrayDriver,
    StrayWorker,
    Surveyed,
    due,
    findings,
)
from service.domain.closing import lost_with_driver
from service.domain.ports import Clock, Store
from service.domain.repairs import Repaired, repaired
from service.domain.study import Study
from service.domain.trial import TrialState

_LOG = logging.getLogger("tuneyard.controller")
_OWNER = "controller"
_LEASE = timedelta(seconds=30)
_LOOK = timedelta(seconds=4)
"""How often the list of processes and the trials' states are read; leases are looked at each time."""


class ProcessList(Protocol):
    """The processes of this home: `service.controller.survey.ProcessTable`, or in tests something that remembers."""

    def look(self) -> Processes: ...

    def end(self, pid: int) -> None: ...


Sweep = Callable[[Collection[str], Collection[str], datetime], Sequence[str]]
"""Deletes what nobody uses, given the studies with a driver and those that have not ended; answers whose folders were deleted."""


class Reconciler:
    """Compares what runs with what the store says. `dead` answers the recorded drivers that have ended, by study."""

    def __init__(  # noqa: PLR0913 - all that it compares
        self,
        store: Store,
        clock: Clock,
        processes: ProcessList,
        dead: Callable[[], Mapping[str, int]],
        graces: Graces | None = None,
        sweep: Sweep = lambda *_: [],
        *,
        home: str = "",
    ) -> None:
        self._store = store
        self._clock = clock
        self._processes = processes
        self._dead = dead
        self._graces = graces or Graces()
        self._sweep = sweep
        self._home = home
        self._since: Mapping[Finding, datetime] = {}
        self._looked_at: datetime | None = None

    def look(self, studies: Mapping[str, Study]) -> None:
        """One look at the studies that have not ended, and what follows from it."""
        now = self._clock.now()
        leases, dead = self._store.leases.holders(now), self._dead()
        is_whole = self._looked_at is None or now - self._looked_at >= _LOOK
        if is_whole:
            self._looked_at = now
            counts = self._store.trials.counts(studies)
            running = [study_id for study_id, states in counts.items() if states.get(TrialState.RUNNING)]
            processes = self._processes.look()
            seen = Surveyed(studies, leases, dead, running, processes, self._home)
            ripe, self._since = due(findings(seen), self._since, now, self._graces)
            for study_id in self._sweep({*leases, *processes.drivers.values()}, studies, now):
                self._tell(study_id, Repaired.FOLDERS, "A driver that was killed left a folder of Ray Tune's: it was deleted.")
        else:
            ripe, _ = due(findings(Surveyed(studies, leases, dead, home=self._home)), {}, now, self._graces)
        for finding in ripe:
            try:
                self._repair(finding, now)
            except Exception:
                _LOG.exception("%s could not be repaired: it will be tried again", finding)

    def _repair(self, finding: Finding, now: datetime) -> None:
        match finding:
            case DeadLease(study_id, owner):
                self._store.leases.release(study_id, owner)
                self._tell(study_id, Repaired.LEASE, "The study's driver was killed: its lease was released, so that it goes on.")
            case OpenAttempts(study_id):
                self._close_attempts(study_id, now)
            case StrayDriver(study_id, pid):
                self._processes.end(pid)
                detail = f"Process {pid} went on driving the study, which has nothing to be driven for: it was ended."
                self._tell(study_id, Repaired.DRIVER, detail)
            case StrayWorker(pid):
                _LOG.warning("worker %d has no driver any more: it is ended", pid)
                self._processes.end(pid)
            case _:
                assert_never(finding)

    def _close_attempts(self, study_id: str, now: datetime) -> None:
        store = self._store
        if not store.leases.acquire(study_id, _OWNER, now, _LEASE):
            return
        try:
            study, trials = store.studies.get(study_id), store.trials
            changes = lost_with_driver(study, trials.history(study_id), trials.all_attempts(study_id), now)
            trials.record(_OWNER, changes)
        finally:
            store.leases.release(study_id, _OWNER)
        if not changes:
            return  # somebody was faster
        numbers = ", ".join(str(change.trial.number) for change in changes)
        self._tell(study_id, Repaired.ATTEMPTS, f"Nothing runs, and these trials stood as running: {numbers}. They are queued.")

    def _tell(self, study_id: str, what: Repaired, detail: str) -> None:
        _LOG.warning("study %s: %s", study_id, detail)
        self._store.events.add([repaired(study_id, self._clock.now(), what, detail)])
