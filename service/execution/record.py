"""What a driver knows of its study, kept equal to the store by writing through."""

from collections.abc import Callable
from dataclasses import replace

from service.domain.attempts import with_attempt
from service.domain.errors import IllegalMove, StaleWrite
from service.domain.ports import Change, Store
from service.domain.study import Study, StudyReason

_WRITES = 20


class StudyRecord:
    """A study, its history and its attempts as the store has them. Writes need the study's lease, held by `owner`.

    Not thread-safe: the ledger has the lock.
    """

    def __init__(self, store: Store, study_id: str, owner: str) -> None:
        """Raises StudyNotFound."""
        self._store = store
        self._owner = owner
        self.study = store.studies.get(study_id)
        self.history = store.trials.history(study_id)
        self.tried = store.trials.all_attempts(study_id)
        self._held: list[Change] = []

    def hold(self, changes: list[Change]) -> None:
        """Take in changes of trials that are yet to be written, with what follows from them, before anybody hears of either."""
        self._held += changes
        self._take_in(changes)

    def write(self, changes: list[Change]) -> None:
        """Record changes of trials together with what is held, in the store first. Raises LeaseLost."""
        if not self._held and not changes:
            return
        self._store.trials.record(self._owner, [*self._held, *changes])
        self._held = []
        self._take_in(changes)

    def save(self, change: Callable[[Study], Study]) -> None:
        """Compare-and-set with the study's newest version: a client may be stopping it at the same time."""
        self.write([])
        for _ in range(_WRITES):
            changed = change(self.study)
            if changed == self.study:
                return
            try:
                self.study = self._store.studies.save(changed)
            except StaleWrite:
                self.read_study()
            else:
                return
        raise IllegalMove(f"Study {self.study.id!r} changes faster than its driver can write.")

    def stop_unless_changed(self, reason: StudyReason) -> None:
        """Stop the study, unless it was changed since it was last read, as by a request for a trial: then it is read again."""
        try:
            self.study = self._store.studies.save(self.study.stopping(reason))
        except StaleWrite:
            self.read_study()

    def read_study(self) -> None:
        """The study as stored; its definition stays the object it was, as what the search works out hangs on it."""
        study, known = self._store.studies.get(self.study.id), self.study.definition
        self.study = replace(study, definition=known) if study.definition == known else study

    def read_stops(self) -> None:
        """Which trials users asked to stop."""
        stops = self._store.trials.stops(self.study.id)
        if stops != self.history.stops:  # a history that is the same object has been thought about already
            self.history = replace(self.history, stops=stops)

    def read_requests(self) -> bool:
        """Whether users asked for trials that the history does not have yet."""
        known = len(self.history.requested)  # requests are counted from 1
        new = [request.parameters for request in self._store.trials.requests(self.study.id, after=known)]
        if new:
            self.history = replace(self.history, requested=(*self.history.requested, *new))
        return bool(new)

    def _take_in(self, changes: list[Change]) -> None:
        definition = self.study.definition
        for change in changes:
            self.history = self.history.with_trial(change.trial)
            if change.attempt is not None:
                self.tried = with_attempt(self.tried, change.trial.number, change.attempt)
            if change.report is not None:
                metrics = change.report.metrics
                value, point = metrics[definition.objective.metric], definition.point(metrics)
                self.history = self.history.with_value(change.trial.number, value, point, change.report.seconds)
