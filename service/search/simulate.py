"""A study without Ray or a trainer: the same decisions on a clock of its own. For tests, benchmarks and previews."""

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from search_spaces import Configuration
from service.domain.budget import time_is_up
from service.domain.closing import closing_changes
from service.domain.history import History
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Report, Trial, TrialReason, TrialState
from service.search.actions import Action, Cut, Done, Promote, Resume, Start, Wait
from service.search.decide import end_of, next_action
from service.search.feasible import broken_outcome
from service.search.final import ends_study

Objective = Callable[[Configuration, int], float]
Seconds = Callable[[Configuration, int], float]
Fail = Callable[[Trial, int], TrialReason | None]
Stop = Callable[[Trial, int], bool]
Measure = Callable[[Configuration, int], Mapping[str, float]]
Row = Callable[[Configuration, History], Configuration | None]
Gain = Callable[[Configuration, int, float | None], float]


@dataclass(frozen=True)
class SimulatedAttempt:
    """One attempt: who ran it, at which rung, and when, in seconds since the study began."""

    number: int
    bracket: int
    rung: int
    worker: int
    began: float
    ended: float


@dataclass(frozen=True)
class Simulation:
    """What came of a study: `reason` is None when it was interrupted, `best_by_time` each new best value with its time."""

    history: History
    reason: StudyReason | None
    seconds: float
    attempts: tuple[SimulatedAttempt, ...]
    actions: tuple[Action, ...]
    best_by_time: tuple[tuple[float, float], ...]
    under_way: Mapping[int, float]
    """For how long each trial that runs when it was interrupted has been at its next report."""

    def rungs_by_time(self) -> Mapping[tuple[int, int], tuple[tuple[float, float], ...]]:
        """When attempts ran, as (began, ended), for each bracket and rung."""
        spans: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for attempt in self.attempts:
            spans.setdefault((attempt.bracket, attempt.rung), []).append((attempt.began, attempt.ended))
        return {rung: tuple(sorted(found)) for rung, found in sorted(spans.items())}

    def most_live(self, bracket: int, rung: int) -> int:
        """Most attempts of a rung that ran at once."""
        spans = self.rungs_by_time().get((bracket, rung), ())
        return max((sum(began <= at < ended for began, ended in spans) for at, _ in spans), default=0)


def simulate(  # noqa: PLR0913 - what a simulated world needs; all but the first two by keyword
    study: Study,
    objective: Objective,
    *,
    workers: int = 1,
    seconds: Seconds | float = 1.0,
    fail: Fail | None = None,
    stop: Stop | None = None,
    history: History | None = None,
    stop_after_reports: int | None = None,
    row: Row | None = None,
    gain: Gain | None = None,
    measure: Measure | None = None,
    lose: Stop | None = None,
    overhead_seconds: float = 0.0,
) -> Simulation:
    """Run a study to its end, or until so many reports have come in.

    `objective` gives the value at a report of a configuration, `seconds` how long that report takes, `fail` the reason for
    which a trial fails in place of a report, `stop` whether it stops early by itself with a report. `row` puts what is known in
    the place of what was proposed, for a world of fixed rows; None ends the study. `gain` stands in for `objective` in a world
    where the way counts: it is told the value at the report before too, of a copy its parent's. `measure` gives the other
    metrics of a report, for several objectives and for outcomes. `lose` says whether the attempt is lost in place of a report,
    and `overhead_seconds` is what a report takes beside its training. A `history` to go on from is taken as after a crash: what
    runs is queued again.
    """
    running = replace(study, state=StudyState.RUNNING, started_at=study.started_at or study.created_at)
    known = _replayed(history or History())
    world = _World(running, objective, workers, seconds, fail, stop, row, gain, measure, lose, overhead_seconds, known)
    reason = world.run(stop_after_reports)
    return Simulation(
        world.history, reason, world.clock, tuple(world.attempts), tuple(world.actions), tuple(world.best_by_time),
        world.under_way(),
    )  # fmt: skip


def _replayed(history: History) -> History:
    for trial in history.in_state(TrialState.RUNNING):
        history = history.with_trial(trial.interrupted())
    return history


@dataclass
class _World:
    study: Study
    objective: Objective
    workers: int
    seconds: Seconds | float
    fail: Fail | None
    stop: Stop | None
    row: Row | None
    gain: Gain | None
    measure: Measure | None
    lose: Stop | None
    overhead_seconds: float
    history: History
    clock: float = 0.0
    attempts: list[SimulatedAttempt] = field(default_factory=list)
    actions: list[Action] = field(default_factory=list)
    best_by_time: list[tuple[float, float]] = field(default_factory=list)
    _events: list[tuple[float, int, float]] = field(default_factory=list)
    """When the next report of a trial is due: (time, trial, seconds it takes)."""
    _live: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Worker and beginning of each live attempt, by trial."""

    def run(self, stop_after_reports: int | None) -> StudyReason | None:
        reports = 0
        while True:
            reason = self._fill()
            if reason is not None:
                self._close(reason)
                return reason
            if stop_after_reports is not None and reports >= stop_after_reports:
                return None
            self.clock, number, took = heapq.heappop(self._events)
            self._report(self.history.trials[number], took)
            reports += 1
            reason = self._overdue(number)
            if reason is not None:
                self._close(reason)
                return reason

    def under_way(self) -> Mapping[int, float]:
        return {number: max(0.0, took + self.overhead_seconds - (due - self.clock)) for due, number, took in self._events}

    @property
    def _now(self) -> datetime:
        return self.study.created_at + timedelta(seconds=self.clock)

    def _fill(self) -> StudyReason | None:
        """Start what may start; the study's reason to end when that is all."""
        slots = min(self.workers, self.study.definition.resources.max_concurrent_trials)
        while len(self._live) < slots:
            action = next_action(self.study, self.history, self._now)
            self.actions.append(action)
            match action:
                case Start():
                    parameters = self.row(action.parameters, self.history) if self.row else action.parameters
                    if parameters is None:
                        return StudyReason.SPACE_EXHAUSTED
                    self._begin(replace(action, parameters=parameters).trial(self.study.id, self._now))
                case Resume(number):
                    self._begin(self.history.trials[number])
                case Promote(number, rung, until):
                    self._begin(self.history.trials[number].promoted(rung, until))
                case Cut(numbers, reason):
                    for number in numbers:
                        self.history = self.history.with_trial(self.history.trials[number].ended(reason, self._now))
                case Wait():
                    return None
                case Done(study_reason):
                    return study_reason
        return None

    def _begin(self, trial: Trial) -> None:
        taken = {worker for worker, _ in self._live.values()}
        worker = next(worker for worker in range(self.workers) if worker not in taken)
        self._live[trial.number] = (worker, self.clock)
        self.history = self.history.with_trial(trial.started(self._now))
        self._expect(trial)

    def _expect(self, trial: Trial) -> None:
        due = self.seconds if isinstance(self.seconds, int | float) else self.seconds(trial.parameters, trial.reports + 1)
        heapq.heappush(self._events, (self.clock + due + self.overhead_seconds, trial.number, due))

    def _report(self, trial: Trial, seconds: float) -> None:
        number, gpus = trial.reports + 1, self.study.resources.gpus
        failure = self.fail(trial, number) if self.fail else None
        if failure is not None:
            self._end(trial.losing(seconds, gpus).ended(failure, self._now))
            return
        if self.lose and self.lose(trial, number):
            self._end(trial.losing(seconds, gpus).lost(self._now))
            return
        definition = self.study.definition
        value = self._value(trial, number)
        metrics = {**(self.measure(trial.parameters, number) if self.measure else {}), definition.objective.metric: value}
        report = Report(
            number=number, epoch=float(number), step=number, metrics=metrics, seconds=seconds,
            attempt=trial.attempts, worker=str(self._live[trial.number][0]), at=self._now,
        )  # fmt: skip
        point = definition.point(metrics)
        counts = point is None or point.counts
        trial = trial.reported(report, definition.objective, gpus, counts=counts)
        self.history = self.history.with_trial(trial).with_value(trial.number, value, point, seconds)
        if counts and (not self.best_by_time or definition.objective.better(value, self.best_by_time[-1][1])):
            self.best_by_time.append((self.clock, value))
        is_whole = number >= definition.reports_of(trial.parameters)
        is_over = is_whole or bool(self.stop and self.stop(trial, number))
        broken = broken_outcome(self.study, self.history, trial, is_last=is_over)
        if broken is not None:
            self._end(trial.ended(broken[0], self._now, broken[1].outcome))
        elif is_over:
            self._end(trial.ended(TrialReason.EPOCHS_DONE if is_whole else TrialReason.NO_IMPROVEMENT, self._now))
        elif number < trial.until:
            self._go_on(trial)
        else:
            self._end(trial.paused())

    def _value(self, trial: Trial, number: int) -> float:
        if self.gain is None:
            return self.objective(trial.parameters, number)
        values = self.history.values
        known = values.get(trial.number, () if trial.parent is None else values[trial.parent][: trial.parent_report])
        return self.gain(trial.parameters, number, known[-1] if known else None)

    def _go_on(self, trial: Trial) -> None:
        end = end_of(self.study, self.history, trial)
        if end is None:
            self._expect(trial)
        else:
            self._end(trial.ended(end[0], self._now))

    def _end(self, trial: Trial) -> None:
        worker, began = self._live.pop(trial.number)
        self.attempts.append(SimulatedAttempt(trial.number, trial.bracket, trial.rung, worker, began, self.clock))
        self.history = self.history.with_trial(trial)

    def _overdue(self, number: int) -> StudyReason | None:
        """What the caller of `next_action` looks after: the target, and time that is up."""
        if ends_study(self.study, self.history.trials[number]):
            return StudyReason.TARGET_REACHED
        budget = self.study.definition.budget
        is_over = budget.is_timed and time_is_up(budget, self.history.spending(self.study, self._now))
        return StudyReason.BUDGET_SPENT if is_over else None

    def _close(self, reason: StudyReason) -> None:
        ending = self.study.stopping(reason)
        for change in closing_changes(ending, self.history, self._now):
            self.history = self.history.with_trial(change.trial)
