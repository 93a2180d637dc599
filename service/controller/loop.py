"""Look, decide, apply: once every half second, and never without trying again."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from service.controller.allocation import SharingRules
from service.controller.decide import Command, EndStudy, GiveUp, Launched, PauseStudy, Seen, StartDriver, decide
from service.controller.housekeeping import Housekeeping
from service.controller.quotas import ProjectQuotas
from service.controller.repairs import Reconciler
from service.controller.room import Capacity
from service.controller.shares import SharesKept
from service.domain.closing import closing_changes, lost_with_driver
from service.domain.errors import StaleWrite
from service.domain.paging import active_studies
from service.domain.ports import CheckpointStore, Clock, Store
from service.domain.study import Study, StudyReason, StudyState

_LOG = logging.getLogger("tuneyard.controller")
_OWNER = "controller"
_LEASE = timedelta(seconds=30)
_NO_SOONER = timedelta(minutes=1)
"""Than that after it went on a study does so again for room alone: a quota, or a download, may find none where some is free."""


class DriverProcesses(Protocol):
    """The drivers that were started: `service.controller.drivers.Drivers`, or in tests something that remembers."""

    def launched(self) -> Mapping[str, Launched]: ...

    def start(self, study_id: str, now: datetime, reports: int) -> None: ...

    def forget(self, study_id: str) -> None: ...

    def known(self) -> frozenset[str]: ...

    def log_tail(self, study_id: str) -> str: ...


class Controller:
    """Makes what the store asks for true. `capacity` is asked anew at each look, `prepared` holds a folder per study."""

    def __init__(  # noqa: PLR0913, PLR0917 - all that it reconciles
        self,
        store: Store,
        checkpoints: CheckpointStore,
        clock: Clock,
        drivers: DriverProcesses,
        capacity: Callable[[], Capacity | None],
        prepared: Path,
        rules: SharingRules | None = None,
        reconciler: Reconciler | None = None,
        quotas: ProjectQuotas | None = None,
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._clock = clock
        self._drivers = drivers
        self._capacity = capacity
        self._rules = rules or SharingRules()
        self._quotas = quotas or ProjectQuotas(store.projects)
        self._shares = SharesKept(store)
        self._housekeeping = Housekeeping(store, checkpoints, clock, prepared, self._forget)
        self._reconciler = reconciler

    def turn(self) -> None:
        """One look and what follows from it; a study that cannot be helped now does not keep the others waiting."""
        studies = list(active_studies(self._store.studies))
        if self._reconciler is not None:  # first: who was only kept waiting by what is repaired need not wait for the next turn
            self._reconciler.look({study.id: study for study in studies})
        capacity, now = self._capacity(), self._clock.now()  # a study can be ended without a cluster
        rules = replace(self._rules, projects=self._quotas.rules(now))
        seen = Seen(studies, self._store.leases.holders(now), self._launched(studies), capacity, now, rules)
        commands = decide(seen)
        self._shares.update(seen, [command.study_id for command in commands if isinstance(command, StartDriver)])
        for command in commands:
            self._guarded(command.study_id, lambda command=command: self._apply(command))  # type: ignore[misc]
        for study in studies:
            if study.state is StudyState.PAUSED and study.reason is StudyReason.NO_SPACE:
                self._guarded(study.id, lambda study=study: self._resume(study))  # type: ignore[misc]
        active = {study.id: study for study in studies}
        begun = {study.id for study in studies if study.started_at is not None}  # the others have nothing to tidy
        for study_id in self._drivers.known() | self._housekeeping.known() | begun:
            tidy = lambda it=study_id: self._housekeeping.tidy(it, active.get(it))  # noqa: E731
            self._guarded(study_id, tidy)
        self._housekeeping.sweep(self._clock.now(), self._guarded)

    def _launched(self, studies: Sequence[Study]) -> Mapping[str, Launched]:
        """The launches that count: one that ended in a pause did not come to nothing."""
        launched = dict(self._drivers.launched())
        for study in studies:
            last = launched.get(study.id)
            if last is None or last.alive:
                continue
            if study.state is StudyState.PAUSED or (study.resumed_at is not None and study.resumed_at > last.at):
                self._drivers.forget(study.id)
                del launched[study.id]
        return launched

    def _forget(self, study_id: str) -> None:
        self._drivers.forget(study_id)

    def _guarded(self, study_id: str, act: Callable[[], None]) -> None:
        try:
            act()
        except StaleWrite:
            _LOG.info("study %s changed meanwhile: next turn", study_id)
        except Exception:
            _LOG.exception("study %s: will try again", study_id)

    def _apply(self, command: Command) -> None:
        match command:
            case StartDriver(study_id):
                reports = sum(trial.reports for trial in self._store.trials.history(study_id).trials.values())
                _LOG.info("starting a driver for study %s", study_id)
                self._drivers.start(study_id, self._clock.now(), reports)
            case PauseStudy(study_id):
                self._pause(study_id)
            case EndStudy(study_id):
                self._end(study_id)
            case GiveUp(study_id):
                self._give_up(study_id)

    def _give_up(self, study_id: str) -> None:
        """Pause a study whose drivers keep ending, for somebody to mend what ends them; fail one that never got a report."""
        study = self._store.studies.get(study_id)
        detail = "The study's driver ended again and again without a new report. The end of its log:\n"
        detail += self._drivers.log_tail(study_id)
        if any(trial.reports for trial in self._store.trials.history(study_id).trials.values()):
            self._store.studies.save(study.pausing(StudyReason.TOO_MANY_FAILURES, self._clock.now(), detail), by=_OWNER)
            if study.state is StudyState.RUNNING:
                self._pause(study_id)
        else:
            self._store.studies.save(study.stopping(StudyReason.DRIVER_FAILED, detail))
            self._end(study_id)

    def _end(self, study_id: str) -> None:
        """What the driver of a stopping study would have done, had it not ended before; nothing where it has just done it."""
        now = self._clock.now()
        if not self._store.leases.acquire(study_id, _OWNER, now, _LEASE):
            return
        try:
            study, trials = self._store.studies.get(study_id), self._store.trials
            if study.state is not StudyState.STOPPING:
                return
            changes = closing_changes(study, trials.history(study.id), now, trials.all_attempts(study.id))
            if changes:
                self._store.trials.record(_OWNER, changes)
            ended = self._store.studies.save(study.ended(now))
            _LOG.info("study %s is %s: %s", study.id, ended.state, ended.reason)
        finally:
            self._store.leases.release(study_id, _OWNER)

    def _resume(self, study: Study) -> None:
        """Go on with a study that was paused for want of room, once there is some."""
        now = self._clock.now()
        if study.resumed_at is not None and now - study.resumed_at < _NO_SOONER:
            return
        if self._checkpoints.has_room(study.id):
            self._store.studies.save(study.resumed(now), by=_OWNER)
            _LOG.info("study %s goes on: there is room again", study.id)

    def _pause(self, study_id: str) -> None:
        """What the driver of a pausing study would have done, had it not ended before; nothing where it has just done it."""
        now = self._clock.now()
        if not self._store.leases.acquire(study_id, _OWNER, now, _LEASE):
            return
        try:
            study, trials = self._store.studies.get(study_id), self._store.trials
            if study.state is not StudyState.PAUSING:
                return
            changes = lost_with_driver(study, trials.history(study.id), trials.all_attempts(study.id), now)
            trials.record(_OWNER, changes)
            self._store.studies.save(study.paused(now))
            _LOG.info("study %s is paused: %s", study.id, study.reason)
        finally:
            self._store.leases.release(study_id, _OWNER)
