"""Look, decide, apply: once every half second, and never without trying again."""

import logging
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from service.controller.allocation import Capacity
from service.controller.decide import Command, EndStudy, GiveUp, Launched, Seen, StartDriver, decide
from service.controller.retention import kept
from service.domain.closing import closing_changes
from service.domain.errors import StaleWrite, StudyNotFound
from service.domain.ports import CheckpointStore, Clock, Store, StudyQuery
from service.domain.study import Study, StudyReason, StudyState

_LOG = logging.getLogger("tuneyard.controller")
_ACTIVE = frozenset(state for state in StudyState if not state.is_end)
_OWNER = "controller"
_NOTHING = Capacity(cpus=0, gpus=0)
_LEASE = timedelta(seconds=30)
_SWEEP = timedelta(minutes=5)
_ORPHANED = timedelta(minutes=10)
"""How long nothing has been written for a study that the store does not know, until its prepared rows are deleted."""


class DriverProcesses(Protocol):
    """The drivers that were started: `service.controller.drivers.Drivers`, or in tests something that remembers."""

    def launched(self) -> Mapping[str, Launched]: ...

    def start(self, study_id: str, slots: int, now: datetime, reports: int) -> None: ...

    def forget(self, study_id: str) -> None: ...

    def known(self) -> frozenset[str]: ...

    def log_tail(self, study_id: str) -> str: ...


class Controller:
    """Makes what the store asks for true. `capacity` is asked anew at each look, `prepared` holds a folder per study."""

    def __init__(
        self,
        store: Store,
        checkpoints: CheckpointStore,
        clock: Clock,
        drivers: DriverProcesses,
        capacity: Callable[[], Capacity | None],
        prepared: Path,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._clock = clock
        self._drivers = drivers
        self._capacity = capacity
        self._prepared = prepared
        self._tidied: dict[str, int] = {}
        self._swept_at: datetime | None = None

    def turn(self) -> None:
        """One look and what follows from it; a study that cannot be helped now does not keep the others waiting."""
        studies = self._active()
        capacity = self._capacity() or _NOTHING  # a study can be ended without a cluster
        now = self._clock.now()
        seen = Seen(studies, self._store.leases.holders(now), self._drivers.launched(), capacity, now)
        for command in decide(seen):
            self._guarded(command.study_id, lambda command=command: self._apply(command))  # type: ignore[misc]
        active = {study.id: study for study in studies}
        for study_id in self._drivers.known() | self._tidied.keys() | active.keys():
            self._guarded(study_id, lambda study_id=study_id: self._tidy(study_id, active.get(study_id)))  # type: ignore[misc]
        self._sweep(self._clock.now())

    def _active(self) -> list[Study]:
        found: list[Study] = []
        cursor = None
        while True:
            page = self._store.studies.find(StudyQuery(states=_ACTIVE, order="created_at", limit=500, cursor=cursor))
            found += page.items
            cursor = page.cursor
            if cursor is None:
                return found

    def _guarded(self, study_id: str, act: Callable[[], None]) -> None:
        try:
            act()
        except StaleWrite:
            _LOG.info("study %s changed meanwhile: next turn", study_id)
        except Exception:
            _LOG.exception("study %s: will try again", study_id)

    def _apply(self, command: Command) -> None:
        match command:
            case StartDriver(study_id, slots):
                reports = sum(trial.reports for trial in self._store.trials.history(study_id).trials.values())
                _LOG.info("starting a driver for study %s with %d slots", study_id, slots)
                self._drivers.start(study_id, slots, self._clock.now(), reports)
            case EndStudy(study_id):
                self._end(self._store.studies.get(study_id))
            case GiveUp(study_id):
                study = self._store.studies.get(study_id)
                detail = "The study's driver ended again and again without a new report. The end of its log:\n"
                stopping = study.stopping(StudyReason.DRIVER_FAILED, detail + self._drivers.log_tail(study_id))
                self._end(self._store.studies.save(stopping))

    def _end(self, study: Study) -> None:
        now = self._clock.now()
        if not self._store.leases.acquire(study.id, _OWNER, now, _LEASE):
            return
        try:
            changes = closing_changes(study, self._store.trials.history(study.id), now)
            if changes:
                self._store.trials.record(_OWNER, changes)
            ended = self._store.studies.save(study.ended(now))
            _LOG.info("study %s is %s: %s", study.id, ended.state, ended.reason)
        finally:
            self._store.leases.release(study.id, _OWNER)

    def _tidy(self, study_id: str, study: Study | None) -> None:
        """Delete weights that are not kept, whenever a trial has ended; forget studies that have."""
        try:
            newest = study or self._store.studies.get(study_id)
        except StudyNotFound:
            self._forget(study_id)
            return
        counts = self._store.trials.counts([study_id]).get(study_id, {})
        ended = sum(count for state, count in counts.items() if state.is_end)
        if ended != self._tidied.get(study_id, 0) or newest.state.is_end:
            self._checkpoints.keep_only(study_id, kept(newest, self._store.trials.history(study_id)))
            self._tidied[study_id] = ended
        if newest.state.is_end:
            self._forget(study_id)

    def _sweep(self, now: datetime) -> None:
        """At the start and now and then: look for what workers wrote after their study's end, and what a crash left."""
        last = self._swept_at
        if last is not None and now - last < _SWEEP:
            return
        self._swept_at = now
        checkpoints, prepared = self._checkpoints.studies(), _folders(self._prepared)
        for study_id in sorted(checkpoints.keys() | prepared.keys()):
            changed = max(seen[study_id] for seen in (checkpoints, prepared) if study_id in seen)
            # Most of what there is has long been swept, and a long history is not read again for nothing.
            is_new = last is None or changed > last - _SWEEP
            is_old = now - changed > _ORPHANED
            self._guarded(study_id, lambda it=study_id, new=is_new, old=is_old: self._sweep_study(it, is_new=new, is_old=old))  # type: ignore[misc]

    def _sweep_study(self, study_id: str, *, is_new: bool, is_old: bool) -> None:
        try:
            study = self._store.studies.get(study_id)
        except StudyNotFound:
            # Its checkpoints stay: the service may have been pointed at another database. The mirror deletes a deleted study's.
            if is_old:
                self._forget(study_id)
            return
        if study.state.is_end and is_new:
            self._checkpoints.keep_only(study_id, kept(study, self._store.trials.history(study_id)))
            self._forget(study_id)

    def _forget(self, study_id: str) -> None:
        self._drivers.forget(study_id)
        shutil.rmtree(self._prepared / study_id, ignore_errors=True)
        self._tidied.pop(study_id, None)


def _folders(root: Path) -> Mapping[str, datetime]:
    """The folders in `root`, and when something was last added to or taken from each."""
    if not root.is_dir():
        return {}
    return {path.name: datetime.fromtimestamp(path.stat().st_mtime, UTC) for path in root.iterdir() if path.is_dir()}
