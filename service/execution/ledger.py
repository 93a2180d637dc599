"""The ledger of one study: what its driver knows, kept equal to the store by writing through.

Ray asks it what to run next and tells it what came of it. The ledger holds no state that the store does not have: a new
driver opens the ledger again, and goes on where the last one was killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from threading import RLock

from service.domain.budget import time_is_up
from service.domain.closing import closing_changes, end_trial_with, hopeless
from service.domain.errors import IllegalMove, StaleWrite
from service.domain.history import History
from service.domain.ports import Change, Clock, Store
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, Report, Trial, TrialReason, TrialState
from service.execution.assignment import Progress
from service.search import Cut, Done, Promote, Resume, Start, Wait, next_action

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
        """Read what the API and the clock have decided since: a stop or cancel request, time that is up."""
        with self._lock:
            self._study = self._store.studies.get(self._study.id)
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
                    case Start(number, parameters, bracket, rung, until):
                        trial = Trial(
                            study_id=self._study.id,
                            number=number,
                            parameters=parameters,
                            until=until,
                            bracket=bracket,
                            rung=rung,
                            created_at=now,
                        )
                        return self._start(trial, now)
                    case Resume(number):
                        return self._start(self._history.trials[number], now)
                    case Promote(number, rung, until):
                        return self._start(self._history.trials[number].promoted(rung, until), now)
                    case Cut(numbers, reason):
                        self._write([Change(trial=self._history.trials[number].ended(reason, now)) for number in numbers])
                    case Wait():
                        return nothing
                    case Done(reason):
                        self._stop_study(reason)
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
            return True

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

    def _start(self, trial: Trial, now: datetime) -> Trial:
        started = trial.started(now)
        attempt = Attempt(number=started.attempts, first=started.reports, until=started.until, started_at=now)
        self._attempts[started.number] = attempt
        self._write([Change(trial=started, attempt=attempt)])
        return started

    def _take_reports(self, progress: Progress, attempt: Attempt) -> None:
        objective = self._study.definition.objective
        gpus = self._study.definition.resources.gpus_per_trial
        changes = []
        trial = self._history.trials[progress.number]
        for report in progress.reports:
            if report.number <= trial.reports:
                continue
            trial = trial.reported(report, objective, gpus)
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
            why = hopeless(self._history)
            if why and self._study.state is StudyState.RUNNING:
                self._stop_study(StudyReason.TOO_MANY_FAILURES, why)
        elif trial.reports >= self._study.definition.reports_of(trial.parameters):
            self._end_attempt(trial.ended(TrialReason.EPOCHS_DONE, now), AttemptOutcome.DONE)
        elif progress.outcome == "stopped_early":
            self._end_attempt(trial.ended(TrialReason.NO_IMPROVEMENT, now), AttemptOutcome.DONE)
        else:
            self._end_attempt(trial.paused(), AttemptOutcome.DONE)

    def _end_attempt(self, trial: Trial, outcome: AttemptOutcome, detail: str | None = None) -> None:
        attempt = replace(self._attempts[trial.number], ended_at=self._clock.now(), outcome=outcome, detail=detail)
        del self._attempts[trial.number]
        self._write([Change(trial=trial, attempt=attempt)])

    def _closed(self, number: int, now: datetime) -> Attempt | None:
        attempt = self._attempts.get(number)
        return attempt and replace(attempt, ended_at=now, outcome=AttemptOutcome.STOPPED)

    def _reached_target(self, trial: Trial) -> bool:
        target = self._study.definition.budget.target
        value = trial.best_value
        return target is not None and value is not None and self._study.definition.objective.reaches(value, target)

    def _write(self, changes: list[Change]) -> None:
        if not changes:
            return
        self._store.trials.record(self._owner, changes)
        metric = self._study.definition.objective.metric
        for change in changes:
            self._history = self._history.with_trial(change.trial)
            report: Report | None = change.report
            if report is not None:
                self._history = self._history.with_value(change.trial.number, report.metrics[metric])

    def _stop_study(self, reason: StudyReason, detail: str | None = None) -> None:
        self._save_study(lambda study: study if study.state.is_end else study.stopping(reason, detail))

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
                    self._study = self._store.studies.get(self._study.id)
                else:
                    return
            raise IllegalMove(f"Study {self._study.id!r} changes faster than its driver can write.")
