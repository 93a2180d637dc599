"""What lies on disk of the studies: checkpoints within their budget, and nothing of studies that are over."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from service.controller.retention import GRACE, Deletion, Retained, reserve, retain
from service.domain.errors import CheckpointNotFound, StorageAway, StudyNotFound
from service.domain.events import Event, EventKind
from service.domain.ports import CheckpointStore, Clock, Store
from service.domain.repairs import Repaired, repaired
from service.domain.stored import Footprint, Stored, StoredKind
from service.domain.study import Study
from service.domain.trial import Trial, TrialState
from service.folders import folders_in

_LOG = logging.getLogger("tuneyard.controller")
_LOOK = timedelta(seconds=2)
"""How often the checkpoints of a study with a budget for them are measured; without one, where a trial has ended."""
_MEASURE = timedelta(seconds=15)
"""How often those of any other study that goes on are measured, to be shown."""
_MORE, _LONGEST = 100, timedelta(seconds=5)
"""A study that was tidied when `n` trials had ended is again once more than `n / 100` others have, or any after that time."""
_SWEEP = timedelta(minutes=5)
_AWAY = timedelta(seconds=15)
_ORPHANED = timedelta(minutes=10)
"""How long nothing has been written for a study that the store does not know, until its prepared rows are deleted."""


class Housekeeping:
    """Deletes what is not kept. `prepared` holds a folder per study; `forget` drops what else is known of one that is over."""

    def __init__(
        self, store: Store, checkpoints: CheckpointStore, clock: Clock, prepared: Path, forget: Callable[[str], None]
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._clock = clock
        self._prepared = prepared
        self._forget_others = forget
        self._tidied: dict[str, int] = {}
        """How many trials had ended when a study was last tidied."""
        self._retained: dict[str, datetime] = {}
        """When that was."""
        self._measured: dict[str, datetime] = {}
        self._swept_at: datetime | None = None
        self._away_until: datetime | None = None
        """When to ask the object storage again, which did not answer."""

    def known(self) -> frozenset[str]:
        """Studies that were looked after, and are not forgotten."""
        return frozenset(self._tidied)

    def tidy(self, study_id: str, study: Study | None) -> None:
        """Delete checkpoints that are not kept, and forget a study that has ended; `study` is None for one that is not active.

        While the object storage is away, this waits: others have their turns meanwhile.
        """
        if self._away_until is not None and self._clock.now() < self._away_until:
            return
        try:
            self._tidy(study_id, study)
        except StorageAway as error:
            self._away_until = self._clock.now() + _AWAY
            _LOG.warning("checkpoints are not looked after for %s s: %s", _AWAY.seconds, error.cause)

    def _tidy(self, study_id: str, study: Study | None) -> None:
        try:
            newest = study or self._store.studies.get(study_id)
        except StudyNotFound:
            self.forget(study_id)
            return
        counts = self._store.trials.counts([study_id]).get(study_id, {})
        ended = sum(count for state, count in counts.items() if state.is_end)
        if newest.state.is_end or self._is_worth_it(study_id, ended):
            self._retain(newest)
            self._tidied[study_id] = ended
            self._retained[study_id] = self._clock.now()
        elif self._is_due(newest):
            self._measure(newest, counts.get(TrialState.RUNNING, 0))
        if newest.state.is_end:
            self.forget(study_id)

    def sweep(self, now: datetime, guarded: Callable[[str, Callable[[], None]], None]) -> None:
        """At the start and now and then: look for what workers wrote after their study's end, and what a crash left."""
        last = self._swept_at
        if last is not None and now - last < _SWEEP:
            return
        self._swept_at = now
        try:
            checkpoints, prepared = self._checkpoints.studies(), folders_in(self._prepared)
        except StorageAway as error:
            _LOG.warning("what was left behind is looked for later: %s", error.cause)
            return
        for study_id in sorted(checkpoints.keys() | prepared.keys()):
            changed = max(seen[study_id] for seen in (checkpoints, prepared) if study_id in seen)
            # Most of what there is has long been swept, and a long history is not read again for nothing.
            is_new = last is None or changed > last - _SWEEP
            is_old = now - changed > _ORPHANED
            guarded(study_id, lambda it=study_id, new=is_new, old=is_old: self._sweep_study(it, is_new=new, is_old=old))  # type: ignore[misc]

    def forget(self, study_id: str) -> None:
        """Drop what is only of use while a study goes on."""
        self._forget_others(study_id)
        shutil.rmtree(self._prepared / study_id, ignore_errors=True)
        self._tidied.pop(study_id, None)
        self._retained.pop(study_id, None)
        self._measured.pop(study_id, None)

    def _sweep_study(self, study_id: str, *, is_new: bool, is_old: bool) -> None:
        try:
            study = self._store.studies.get(study_id)
        except StudyNotFound:
            # Its checkpoints stay: the service may have been pointed at another database. The mirror deletes a deleted study's.
            if is_old:
                self.forget(study_id)
            return
        if study.state.is_end and is_new:
            self._retain(study)
            self.forget(study_id)

    def _is_worth_it(self, study_id: str, ended: int) -> bool:
        """Whether enough trials ended since the study was last tidied: its history is read for that, however long it is."""
        before = self._tidied.get(study_id, 0)
        if abs(ended - before) > before // _MORE:
            return True
        return ended != before and self._clock.now() - self._retained[study_id] >= _LONGEST

    def _is_due(self, study: Study) -> bool:
        """Whether it is time to measure an active study's checkpoints again."""
        last = self._measured.get(study.id)
        every = _MEASURE if study.definition.checkpoints.max_total_gb is None else _LOOK
        return last is None or self._clock.now() - last >= every

    def _measure(self, study: Study, running: int) -> None:
        """Look whether the budget is kept, without reading the history as long as it is."""
        stored = self._checkpoints.stored(study.id)
        limit, total = study.definition.checkpoints.max_bytes, sum(one.bytes for one in stored)
        now = self._clock.now()
        is_above = limit is not None and total + reserve(stored, running) > limit
        if is_above or any(one.kind is StoredKind.UNFINISHED and now - one.at > GRACE for one in stored):
            self._retain(study)
            return
        self._measured[study.id] = now
        known = self._known(study.id)
        self._note(study.id, known, replace(known, bytes=total, detail=None))

    def _retain(self, study: Study) -> None:
        stored = self._checkpoints.stored(study.id)  # first: a trial that begins meanwhile is in the history then
        now = self._clock.now()
        self._measured[study.id] = now
        history = self._store.trials.history(study.id)
        retained = retain(study, history, stored, now)
        known = self._known(study.id)
        missing = tuple(number for number in retained.missing if self._is_gone(study, history.trials[number]))
        new = Footprint(retained.bytes, now, _detail(study, retained), missing)
        events = [_of_deletion(study.id, one, now) for one in retained.deletions]
        if new.detail is not None and known.detail is None:
            events.append(_of_budget(study, retained, new.detail, now))
        lost = [number for number in new.missing if number not in known.missing]
        events += [repaired(study.id, now, Repaired.EXPORT, _said_of_missing(number)) for number in lost]
        self._checkpoints.drop(study.id, [one.stored for one in retained.deletions])
        self._note(study.id, known, new, events)

    def _is_gone(self, study: Study, trial: Trial) -> bool:
        """Whether a trial's best export is not there, also now: it may have been written since the listing."""
        try:
            self._checkpoints.manifest(study.id, trial.number, trial.best_report or 0)
        except CheckpointNotFound:
            return True
        return False

    def _known(self, study_id: str) -> Footprint:
        return self._store.footprints.of([study_id]).get(study_id, Footprint(0, self._clock.now()))

    def _note(self, study_id: str, known: Footprint, new: Footprint, events: Sequence[Event] = ()) -> None:
        if events:
            self._store.events.add(events)
        if replace(new, at=known.at) != known:
            self._store.footprints.set(study_id, replace(new, at=self._clock.now()))


def _of_deletion(study_id: str, deletion: Deletion, now: datetime) -> Event:
    stored: Stored = deletion.stored
    payload = {
        "trial": stored.trial, "kind": stored.kind.value, "report": stored.report, "bytes": stored.bytes,
        "because": deletion.because.value,
    }  # fmt: skip
    return Event(EventKind.CHECKPOINT_DELETED, study_id, now, payload)


def _of_budget(study: Study, retained: Retained, detail: str, now: datetime) -> Event:
    payload = {"bytes": retained.bytes, "max_bytes": study.definition.checkpoints.max_bytes, "detail": detail}
    return Event(EventKind.CHECKPOINT_BUDGET, study.id, now, payload)


def _detail(study: Study, retained: Retained) -> str | None:
    if not retained.over:
        return None
    allowed = study.definition.checkpoints.max_total_gb
    return (
        f"The checkpoints that cannot be spared take {retained.bytes / 1e9:.3g} GB, and `checkpoints.max_total_gb` is "
        f"{allowed:g}: the study goes on above its budget. Fewer trials at once, or a smaller model, would take less."
    )


def _said_of_missing(number: int) -> str:
    return f"The exported model of trial {number} is gone from the disk: it cannot be pulled. Train it again to have it."
