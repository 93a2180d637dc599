"""The ledger of one study: what its driver knows, kept equal to the store by writing through.

Ray asks it what to run next and tells it what came of it. The ledger holds no state that the store does not have: a new
driver opens the ledger again, and goes on where the last one was killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import zip_longest
from threading import RLock

from service.domain.breaker import tripped
from service.domain.budget import time_is_up
from service.domain.closing import closing_changes, end_trial_with, lost_with_driver, revived
from service.domain.decision import Decision
from service.domain.history import History
from service.domain.packing import sharing, trials_per_gpu
from service.domain.ports import Change, Clock, Store
from service.domain.quarantine import elsewhere, is_known, nodes_of, quarantine_event, quarantined
from service.domain.retries import after_failure, after_storage_away, keeps_being_held_up
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState
from service.execution.assignment import Progress
from service.execution.record import StudyRecord
from service.search import Action, Cut, Done, Promote, Resume, Start, Wait, next_action
from service.search.decide import end_of, stopped_before_their_ends
from service.search.feasible import broken_outcome
from service.search.final import ends_study, search_is_over


@dataclass(frozen=True)
class Idle:
    """Nothing may start now, but attempts are running: ask again."""


@dataclass(frozen=True)
class Finished:
    """Nothing may start and nothing runs."""


class Ledger:
    """One study's history in memory and in the store. Thread-safe; its writes need the study's lease, held by `owner`."""

    def __init__(self, store: Store, clock: Clock, study_id: str, owner: str) -> None:
        """Replay the store: what ran under a driver that is gone is queued again. Raises LeaseLost, StudyNotFound."""
        self._store = store
        self._clock = clock
        self._lock = RLock()
        _, self._slots = store.shares.poll(study_id)
        self._wanted: int | None = None
        self._unable: tuple[Wait | Done, History, int] | None = None
        """Where nothing more could start when that was last asked: the answer, the history, and the study's version."""
        self._known = StudyRecord(store, study_id, owner)
        self._attempts: dict[int, Attempt] = {}
        self._found = quarantined(self.study, self.history, self._known.tried, clock.now())
        self._placed = nodes_of(self._found)
        self._packing = self.study.trials_per_gpu
        self._pack()
        self._known.write(lost_with_driver(self.study, self.history, self._known.tried, clock.now()))

    @property
    def study(self) -> Study:
        """The study as last read."""
        with self._lock:
            return self._known.study

    @property
    def history(self) -> History:
        """All trials as they are now."""
        with self._lock:
            return self._known.history

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is live."""
        return not self._attempts

    @property
    def slots(self) -> int:
        """Attempts that may run at once: what the controller grants, and the study allows.

        None while its nodes change, or how many of its trials share a GPU.
        """
        if self._placed != nodes_of(self._found) or self._packing != self.study.trials_per_gpu:
            return 0
        return min(self._slots, self.study.definition.resources.max_concurrent_trials)

    def begin(self, can_go_on: Callable[[Trial], bool] = lambda _: False) -> None:
        """Mark the study as running, unless it is on its way to its end or to a pause.

        Of a study that was extended, the trials that its end stopped and that `can_go_on` are as they were before it.
        """
        with self._lock:
            if self.study.state is StudyState.QUEUED:
                is_searching = not search_is_over(self.study, self.history)
                self._known.write(revived(self.history, can_go_on, is_searching=is_searching))
            self._known.save(lambda study: study.running(self._clock.now()) if study.state is StudyState.QUEUED else study)
            self._end_if_reached()  # the driver before may have died between a report and what follows from it
            self._judge()

    def refresh(self) -> Study:
        """Read what the API and the clock have decided since: a stop or cancel request, trials asked for, time that is up."""
        with self._lock:
            _, self._slots = self._store.shares.poll(self.study.id)
            definition = self.study.definition
            self._known.read_study()
            self._read_stops()
            self._known.read_requests()
            if self.study.definition is not definition:
                self._end_if_reached()
            if self.study.state is StudyState.RUNNING and self._time_is_up():
                self._stop_study(StudyReason.BUDGET_SPENT)
            return self.study

    def poll(self) -> Study:
        """A cheap look: the slots it has now, and whatever else was decided. Tells the controller how many it could use."""
        with self._lock:
            version, self._slots = self._store.shares.poll(self.study.id)
            if version != self.study.version:
                self.refresh()
            wanted = self._could_use()
            if wanted != self._wanted and self.study.state is StudyState.RUNNING:
                self._store.shares.want(self.study.id, wanted)
                self._wanted = wanted
            return self.study

    def next(self) -> Trial | Idle | Finished:
        """The trial whose next attempt has just begun, in the store too."""
        with self._lock:
            live = len(self._attempts)
            nothing = Idle() if live else Finished()
            while self.study.state is StudyState.RUNNING and (live < self.slots or self._is_done()):
                now = self._clock.now()
                match self._ask(now):
                    case Start() as start:
                        return self._start(start.trial(self.study.id, now), now, start.why)
                    case Resume(number):
                        return self._start(self.history.trials[number], now)
                    case Promote(number, rung, until, why):
                        return self._start(self.history.trials[number].promoted(rung, until), now, why)
                    case Cut() as cut:
                        self._cut(cut, now)
                    case Wait():
                        break
                    case Done(reason):
                        if not self._known.read_requests():  # asked for since the last refresh
                            self._known.stop_unless_changed(reason)
            return nothing

    def record(self, progress: Progress) -> bool:
        """Take in the reports of a live attempt; answers whether the attempt may go on."""
        with self._lock:
            attempt = self._attempts.get(progress.number)
            if attempt is None or attempt.number != progress.attempt:
                return False  # an attempt that was given up: whatever it says, another one will say it again
            self._take_reports(progress, attempt)
            trial = self.history.trials[progress.number]
            if self.study.state is StudyState.RUNNING and self._reached_target(trial):
                self._stop_study(StudyReason.TARGET_REACHED)
            if self.study.state is StudyState.RUNNING and self._time_is_up():
                self._stop_study(StudyReason.BUDGET_SPENT)
            is_interrupted = progress.outcome == "interrupted"
            if progress.outcome is not None and not is_interrupted:
                self._close(progress)
                return False
            if self.study.state is StudyState.PAUSING or (is_interrupted and self.study.state is StudyState.RUNNING):
                self._end_attempt(trial.interrupted(progress.seconds, self.study.resources.gpus), AttemptOutcome.PAUSED)
                return False
            if self.study.state is not StudyState.RUNNING:
                self._end_attempt(end_trial_with(self.study, trial, self._clock.now()), AttemptOutcome.STOPPED)
                return False
            end, is_crowded = end_of(self.study, self.history, trial), self._is_crowded(progress)
            if end is not None:
                reason, why = end
                self._end_attempt(trial.ended(reason, self._clock.now(), why.outcome), AttemptOutcome.STOPPED, why=why)
            elif is_crowded or len(self._attempts) > self.slots:
                self._end_attempt(trial.interrupted(), AttemptOutcome.CROWDED if is_crowded else AttemptOutcome.PREEMPTED)
                return False
            self._known.write([])
            return end is None

    def note_beginning(self, copy: Trial, report: int) -> None:
        """Say of a copy that begins from report `report` where that is not its parent's, as the state there is gone."""
        if report >= copy.parent_report:
            return
        whence = f"from its report {report}" if report else "from its start"
        detail = f"the state of trial {copy.parent} at report {copy.parent_report} is gone: trained again {whence}"
        with self._lock:
            trial = self.history.trials[copy.number]
            if trial.detail is None:
                self._known.write([Change(trial=replace(trial, detail=detail))])

    def lose(self, number: int, attempt_number: int, detail: str) -> None:
        """The process of a live attempt is gone: its trial is queued again, or fails after too many losses in a row."""
        with self._lock:
            attempt = self._attempts.get(number)
            if attempt is None or attempt.number != attempt_number:
                return
            self._end_attempt(self.history.trials[number].lost(self._clock.now()), AttemptOutcome.LOST, detail)
            self._judge()

    def place(self) -> frozenset[str]:
        """The nodes that the attempts of the next fit have to keep from. To be asked between two fits.

        As many of them as may by what was measured share a GPU from now on.
        """
        with self._lock:
            self._placed = nodes_of(self._found)
            self._known.save(lambda study: replace(study, trials_per_gpu=self._packing))
            _, self._slots = self._store.shares.poll(self.study.id)  # none before the controller has counted anew
            return self._placed

    def is_held(self) -> bool:
        """Whether nothing may start although the study is not at its end: it has no slot, or its trials wait for their time."""
        with self._lock:
            if self._attempts or self.study.state is not StudyState.RUNNING:
                return False
            return not self._is_done() if self.slots == 0 else isinstance(self._ask(self._clock.now()), Wait)

    def lack_room(self, detail: str) -> None:
        """Pause the study, as some disk that it needs is full: it goes on once there is room again."""
        with self._lock:
            self._pause_study(StudyReason.NO_SPACE, detail)

    def pause(self) -> Study:
        """The pausing study is paused, now that none of its trials runs. As it is when it was resumed meanwhile."""
        with self._lock:
            self._known.save(lambda study: study.paused(self._clock.now()) if study.state is StudyState.PAUSING else study)
            return self.study

    def finish(self) -> Study:
        """End every trial that has not ended, and then the study, for the reason it is stopping for."""
        with self._lock:
            if self.study.state.is_end:
                return self.study  # the watch was here first: a cancelled study
            now = self._clock.now()
            self._known.write(
                [
                    replace(change, attempt=self._closed(change.trial.number, now))
                    for change in closing_changes(self.study, self.history, now)
                ]
            )
            self._attempts.clear()
            self._known.save(lambda study: study.ended(self._clock.now()) if study.state is StudyState.STOPPING else study)
            return self.study

    def _ask(self, now: datetime) -> Action:
        action = next_action(self.study, self.history, now)
        self._unable = (action, self.history, self.study.version) if isinstance(action, Wait | Done) else None
        return action

    def _is_done(self) -> bool:
        """Whether nothing runs, and nothing is left to do by the last answer: a study without a slot can end."""
        if self._attempts or self._unable is None:
            return False
        action, history, version = self._unable
        return isinstance(action, Done) and history is self.history and version == self.study.version

    def _could_use(self) -> int:
        """Attempts that could run at once: those that do when no other may start, else as many as the study allows."""
        if self._unable is not None:
            _, history, version = self._unable
            is_stale = history is not self.history or version != self.study.version
            if is_stale or self.history.in_state(TrialState.QUEUED):  # whose time may have come
                self._ask(self._clock.now())
        return self.study.definition.resources.max_concurrent_trials if self._unable is None else len(self._attempts)

    def _read_stops(self) -> None:
        """What users asked to stop ends, where it waits for a slot that may be long in coming."""
        self._known.read_stops()
        asked = stopped_before_their_ends(self.history)
        if asked is not None and self.study.state is StudyState.RUNNING:
            self._cut(asked, self._clock.now())

    def _cut(self, cut: Cut, now: datetime) -> None:
        trials = self.history.trials
        self._known.write(
            [
                Change(trials[number].ended(cut.reason, now, None if why is None else why.outcome), decision=why)
                for number, why in zip_longest(cut.numbers, cut.why)
            ]
        )

    def _start(self, trial: Trial, now: datetime, why: Decision | None = None) -> Trial:
        started = trial.started(now)
        attempt = Attempt(started.attempts, started.reports, started.until, started_at=now, gpus=self.study.resources.gpus)
        self._attempts[started.number] = attempt
        self._known.write([Change(trial=started, attempt=attempt, decision=why)])
        return started

    def _take_reports(self, progress: Progress, attempt: Attempt) -> None:
        objective = self.study.definition.objective
        gpus = self.study.resources.gpus
        changes = []
        trial = self.history.trials[progress.number]
        for report in progress.reports:
            if report.number <= trial.reports:
                continue
            trial = trial.reported(report, objective, gpus, counts=self.study.definition.counts(report.metrics))
            changes.append(Change(trial=trial, report=report))
        seen = self._attempts[trial.number] = _seen(attempt, progress)
        if seen != attempt:
            changes.append(Change(trial=trial, attempt=seen))
        self._known.hold(changes)
        if seen.peak_bytes != attempt.peak_bytes:
            self._pack()

    def _close(self, progress: Progress) -> None:
        now = self._clock.now()
        trial = self.history.trials[progress.number]
        if progress.outcome == "no_space":
            self._end_attempt(trial.interrupted(), AttemptOutcome.PAUSED, progress.detail)
            self.lack_room(progress.detail or "")
            return
        if progress.outcome == "away":
            self._end_attempt(after_storage_away(trial, now), AttemptOutcome.LOST, progress.detail)
            self._judge()
            if keeps_being_held_up(trial):
                self._pause_study(StudyReason.TOO_MANY_FAILURES, progress.detail)
            return
        if progress.outcome in {"failed", "refused"}:
            reason = TrialReason(progress.reason or TrialReason.TRAINER_ERROR)
            if self._is_crowded(progress):
                self._end_attempt(trial.interrupted(), AttemptOutcome.CROWDED, progress.detail)
                return
            most = self.study.definition.max_retries if progress.outcome == "failed" else 0
            after = after_failure(trial, reason, progress.detail, most, now)
            self._end_attempt(after, AttemptOutcome.FAILED, progress.detail)
            self._judge()
            return
        is_whole = trial.reports >= self.study.definition.reports_of(trial.parameters)
        is_over = is_whole or progress.outcome == "stopped_early"
        broken = broken_outcome(self.study, self.history, trial, is_last=is_over)
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
        self._known.write([Change(trial=self.history.charged(self.study, trial, attempt), attempt=attempt, decision=why)])
        if outcome is AttemptOutcome.CROWDED:
            self._pack()

    def _pack(self) -> None:
        """Look again how many trials may share a GPU; when they are more or fewer than now, all leave for another fit."""
        if self.study.definition.resources.is_packed:
            self._packing = trials_per_gpu(self.history.trials, self._known.tried)

    def _is_crowded(self, progress: Progress) -> bool:
        """Whether the attempt was short of memory, and others on its GPU may have had it."""
        if not self.study.definition.resources.is_packed or sharing(self._attempts[progress.number].gpus) == 1:
            return False
        if progress.outcome is not None:
            return progress.reason == TrialReason.OUT_OF_MEMORY
        return progress.memory is not None and progress.memory.refusals > 0

    def _judge(self) -> None:
        """Keep the study from places where it fails, or pause it when it fails everywhere: it would only burn its budget."""
        now = self._clock.now()
        known, self._found = self._found, quarantined(self.study, self.history, self._known.tried, now)
        self._store.events.add([quarantine_event(self.study.id, one, now) for one in self._found if not is_known(one, known)])
        why = tripped(self.study, self.history, elsewhere(self._known.tried, self._found))
        if why is not None:
            self._pause_study(StudyReason.TOO_MANY_FAILURES, why)

    def _closed(self, number: int, now: datetime) -> Attempt | None:
        attempt = self._attempts.get(number)
        return attempt and replace(attempt, ended_at=now, outcome=AttemptOutcome.STOPPED)

    def _end_if_reached(self) -> None:
        """Stop the study where its best trial is as good as the target, which may be lower than it was."""
        best = self.history.best(self.study.definition.objective)
        if self.study.state is StudyState.RUNNING and best is not None and self._reached_target(best):
            self._stop_study(StudyReason.TARGET_REACHED)

    def _reached_target(self, trial: Trial) -> bool:
        return ends_study(self.study, trial)

    def _time_is_up(self) -> bool:
        budget = self.study.definition.budget
        return budget.is_timed and time_is_up(budget, self.history.spending(self.study, self._clock.now()))

    def _stop_study(self, reason: StudyReason, detail: str | None = None) -> None:
        self._known.save(lambda study: study if study.state.is_end else study.stopping(reason, detail))

    def _pause_study(self, reason: StudyReason, detail: str | None = None) -> None:
        self._known.save(
            lambda study: study.pausing(reason, self._clock.now(), detail) if study.state is StudyState.RUNNING else study
        )


def _seen(attempt: Attempt, progress: Progress) -> Attempt:
    """The attempt with what its progress says of where it runs and what it takes there."""
    seen = replace(attempt, worker=attempt.worker or progress.worker)
    if progress.memory is None:
        return seen
    peak = max(progress.memory.peak_bytes, seen.peak_bytes or 0)
    return replace(seen, peak_bytes=peak, gpu_bytes=progress.memory.total_bytes)
