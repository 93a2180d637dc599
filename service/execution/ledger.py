"""The ledger of one study: what its driver knows, kept equal to the store by writing through.

Ray asks it what to run next and tells it what came of it. The ledger holds no state that the store does not have: a new
driver opens the ledger again, and goes on where the last one was killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest
from threading import RLock

from service.domain.budget import time_is_up
from service.domain.closing import closing_changes, end_trial_with, hopeless
from service.domain.decision import Decision
from service.domain.errors import IllegalMove, StaleWrite
from service.domain.history import History
from service.domain.ports import Change, Clock, Store
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, Report, Trial, TrialReason, TrialState
from service.execution.assignment import Progress
from service.search import Cut, Done, Promote, Resume, Start, Wait, next_action
from service.search.decide import end_of
from service.search.feasible import broken_outcome
from service.search.final import ends_study

_WRITES = 20


@dataclass(frozen=True)
class Idle:
    """Nothing may start now, but attempts are running: ask again."""


@dataclass(frozen=True)
class Finished:
    """Nothing may start and nothing runs."""


class Ledger:
    """One study's history in memory and in the store. Thread-safe; its writes need the study's lease, held by `owner`."""

    def __init__(self, store: Store, clock: Clock, study_id: str, owner: str, slots: int) -> None:
        """Replay the store: what ran under a driver that is gone is queued again. Raises LeaseLost, StudyNotFound."""
        self._store = store
        self._clock = clock
        self._owner = owner
        self._lock = RLock()
        self._slots = slots
        self._study = store.studies.get(study_id)
        self._history = store.trials.history(study_id)
        self._attempts: dict[int, Attempt] = {}
        self._replay()

    @property
    def study(self) -> Study:
        """The study as last read."""
        with self._lock:
            return self._study

    @property
    def history(self) -> History:
        """All trials as they are now."""
        with self._lock:
            return self._history

    @property
    def slots(self) -> int:
        """Attempts that may run at once."""
        return min(self._slots, self._study.definition.resources.max_concurrent_trials)

    def begin(self) -> None:
        """Mark the study as running, unless it is already on its way to its end."""
        self._save_study(lambda study: study.running(self._clock.now()) if study.state is StudyState.QUEUED else study)
        # The driver before may have died between a report and what follows from it.
        best = self._history.best(self._study.definition.objective)
        if self._study.state is StudyState.RUNNING and best is not None and self._reached_target(best):
            self._stop_study(StudyReason.TARGET_REACHED)

    def refresh(self) -> Study:
        """Read what the API and the clock have decided since: a stop or cancel request, trials asked for, time that is up."""
        with self._lock:
            self._read_study()
            self._read_requests()
            spent = self._history.spending(self._study, self._clock.now())
            if self._study.state is StudyState.RUNNING and time_is_up(self._study.definition.budget, spent):
                self._stop_study(StudyReason.BUDGET_SPENT)
            return self._study

    def next(self) -> Trial | Idle | Finished:
        """The trial whose next attempt has just begun, in the store too."""
        with self._lock:
            live = len(self._attempts)
            nothing = Idle() if live else Finished()
            if self._study.state is not StudyState.RUNNING or live >= self.slots:
                return nothing
            while True:
                now = self._clock.now()
                match next_action(self._study, self._history, now):
                    case Start() as start:
                        return self._start(start.trial(self._study.id, now), now, start.why)
                    case Resume(number):
                        return self._start(self._history.trials[number], now)
                    case Promote(number, rung, until, why):
                        return self._start(self._history.trials[number].promoted(rung, until), now, why)
                    case Cut() as cut:
                        self._cut(cut, now)
                    case Wait():
                        return nothing
                    case Done(reason):
                        if self._read_requests() or not self._stop_unless_changed(reason):
                            continue  # asked for since the last refresh, or this very moment
                        return nothing

    def record(self, progress: Progress) -> bool:
        """Take in the reports of a live attempt; answers whether the attempt may go on."""
        with self._lock:
            attempt = self._attempts.get(progress.number)
            if attempt is None or attempt.number != progress.attempt:
                return False  # an attempt that was given up: whatever it says, another one will say it again
            self._take_reports(progress, attempt)
            trial = self._history.trials[progress.number]
            if self._study.state is StudyState.RUNNING and self._reached_target(trial):
                self._stop_study(StudyReason.TARGET_REACHED)
            if progress.outcome is not None:
                self._close(progress)
                return False
            if self._study.state is not StudyState.RUNNING:
                self._end_attempt(end_trial_with(self._study, trial, self._clock.now()), AttemptOutcome.STOPPED)
                return False
            end = end_of(self._study, self._history, trial)
            if end is not None:
                reason, why = end
                self._end_attempt(trial.ended(reason, self._clock.now(), why.outcome), AttemptOutcome.STOPPED, why=why)
            return end is None

    def note_beginning(self, copy: Trial, report: int) -> None:
        """Say of a copy that begins from report `report` where that is not its parent's, as the state there is gone."""
        if report >= copy.parent_report:
            return
        whence = f"from its report {report}" if report else "from its start"
        detail = f"the state of trial {copy.parent} at report {copy.parent_report} is gone: trained again {whence}"
        with self._lock:
            trial = self._history.trials[copy.number]
            if trial.detail is None:
                self._write([Change(trial=replace(trial, detail=detail))])

    def lose(self, number: int, attempt_number: int, detail: str) -> None:
        """The process of a live attempt is gone: its trial is queued again, or fails after too many losses in a row."""
        with self._lock:
            attempt = self._attempts.get(number)
            if attempt is None or attempt.number != attempt_number:
                return
            self._end_attempt(self._history.trials[number].lost(self._clock.now()), AttemptOutcome.LOST, detail)

    def finish(self) -> Study:
        """End every trial that has not ended, and then the study, for the reason it is stopping for."""
        with self._lock:
            if self._study.state.is_end:
                return self._study  # the watch was here first: a cancelled study
            now = self._clock.now()
            self._write(
                [
                    replace(change, attempt=self._closed(change.trial.number, now))
                    for change in closing_changes(self._study, self._history, now)
                ]
            )
            self._attempts.clear()
            self._save_study(lambda study: study.ended(self._clock.now()))
            return self._study

    def _replay(self) -> None:
        now = self._clock.now()
        changes = []
        for trial in self._history.in_state(TrialState.RUNNING):
            attempts = self._store.trials.attempts(trial.study_id, trial.number)
            closed = [
                replace(attempt, ended_at=now, outcome=AttemptOutcome.LOST, detail="the study's driver ended")
                for attempt in attempts
                if attempt.ended_at is None
            ]
            changes.append(Change(trial=trial.interrupted(), attempt=closed[-1] if closed else None))
        self._write(changes)

    def _read_requests(self) -> bool:
        """Whether users asked for trials that the history does not have yet."""
        known = len(self._history.requested)
        new = [request.parameters for request in self._store.trials.requests(self._study.id)[known:]]
        if new:
            self._history = replace(self._history, requested=(*self._history.requested, *new))
        return bool(new)

    def _cut(self, cut: Cut, now: datetime) -> None:
        trials = self._history.trials
        self._write(
            [
                Change(trials[number].ended(cut.reason, now, None if why is None else why.outcome), decision=why)
                for number, why in zip_longest(cut.numbers, cut.why)
            ]
        )

    def _start(self, trial: Trial, now: datetime, why: Decision | None = None) -> Trial:
        started = trial.started(now)
        attempt = Attempt(number=started.attempts, first=started.reports, until=started.until, started_at=now)
        self._attempts[started.number] = attempt
        self._write([Change(trial=started, attempt=attempt, decision=why)])
        return started

    def _take_reports(self, progress: Progress, attempt: Attempt) -> None:
        objective = self._study.definition.objective
        gpus = self._study.definition.resources.gpus_per_trial
        changes = []
        trial = self._history.trials[progress.number]
        for report in progress.reports:
            if report.number <= trial.reports:
                continue
            trial = trial.reported(report, objective, gpus, counts=self._study.definition.counts(report.metrics))
            changes.append(Change(trial=trial, report=report))
        if attempt.worker is None:
            self._attempts[trial.number] = replace(attempt, worker=progress.worker)
            changes.append(Change(trial=trial, attempt=self._attempts[trial.number]))
        self._write(changes)

    def _close(self, progress: Progress) -> None:
        now = self._clock.now()
        trial = self._history.trials[progress.number]
        if progress.outcome == "failed":
            reason = TrialReason(progress.reason or TrialReason.TRAINER_ERROR)
            self._end_attempt(trial.ended(reason, now, progress.detail), AttemptOutcome.FAILED, progress.detail)
            given_up = hopeless(self._history)
            if given_up and self._study.state is StudyState.RUNNING:
                self._stop_study(StudyReason.TOO_MANY_FAILURES, given_up)
            return
        is_whole = trial.reports >= self._study.definition.reports_of(trial.parameters)
        is_over = is_whole or progress.outcome == "stopped_early"
        broken = broken_outcome(self._study, self._history, trial, is_last=is_over)
        if broken is not None:
            reason, why = broken
            self._end_attempt(trial.ended(reason, now, why.outcome), AttemptOutcome.DONE, why=why)
        elif is_over:
            reason = TrialReason.EPOCHS_DONE if is_whole else TrialReason.NO_IMPROVEMENT
            self._end_attempt(trial.ended(reason, now), AttemptOutcome.DONE)
        else:
            self._end_attempt(trial.paused(), AttemptOutcome.DONE)

    def _end_attempt(self, trial: Trial, outcome: AttemptOutcome, detail: str | None = None, why: Decision | None = None) -> None:
        attempt = replace(self._attempts[trial.number], ended_at=self._clock.now(), outcome=outcome, detail=detail)
        del self._attempts[trial.number]
        self._write([Change(trial=trial, attempt=attempt, decision=why)])

    def _closed(self, number: int, now: datetime) -> Attempt | None:
        attempt = self._attempts.get(number)
        return attempt and replace(attempt, ended_at=now, outcome=AttemptOutcome.STOPPED)

    def _reached_target(self, trial: Trial) -> bool:
        return ends_study(self._study, trial)

    def _write(self, changes: list[Change]) -> None:
        if not changes:
            return
        self._store.trials.record(self._owner, changes)
        definition = self._study.definition
        for change in changes:
            self._history = self._history.with_trial(change.trial)
            report: Report | None = change.report
            if report is not None:
                value, point = report.metrics[definition.objective.metric], definition.point(report.metrics)
                self._history = self._history.with_value(change.trial.number, value, point)

    def _stop_study(self, reason: StudyReason, detail: str | None = None) -> None:
        self._save_study(lambda study: study if study.state.is_end else study.stopping(reason, detail))

    def _stop_unless_changed(self, reason: StudyReason) -> bool:
        """Whether the study is stopping now; not where it was changed since it was last read, as by a request for a trial."""
        try:
            self._study = self._store.studies.save(self._study.stopping(reason))
        except StaleWrite:
            self._read_study()
            return self._study.state is not StudyState.RUNNING
        return True

    def _read_study(self) -> None:
        """The study as stored; its definition stays the object it was, as what the search works out hangs on it."""
        study, known = self._store.studies.get(self._study.id), self._study.definition
        self._study = replace(study, definition=known) if study.definition == known else study

    def _save_study(self, change: Callable[[Study], Study]) -> None:
        """Compare-and-set with the study's newest version: a client may be stopping it at the same time."""
        with self._lock:
            for _ in range(_WRITES):
                changed = change(self._study)
                if changed == self._study:
                    return
                try:
                    self._study = self._store.studies.save(changed)
                except StaleWrite:
                    self._read_study()
                else:
                    return
            raise IllegalMove(f"Study {self._study.id!r} changes faster than its driver can write.")
