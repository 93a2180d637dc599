"""Everything a decision about a study may depend on: its trials, and the objective at each of their reports."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from search_spaces import Configuration
from service.domain.budget import Spending
from service.domain.objective import Objective
from service.domain.outcomes import Point
from service.domain.study import Study
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialState

_FRUITLESS = frozenset({AttemptOutcome.LOST, AttemptOutcome.FAILED, AttemptOutcome.CROWDED})
_KEPT = ("_open", "_bests", "_has_runs", "reports_given", "greatest")
"""What a history has worked out from its trials, and another report changes nothing about."""
_KNOWN = 3
"""Reports after which a trial's own times say how long its next one may take."""


@dataclass(frozen=True)
class PriorTrial:
    """A trial of an earlier study, in this study's space and by its objective."""

    study_id: str
    number: int
    parameters: Configuration
    values: tuple[float, ...]
    is_whole: bool
    """Whether it was trained to its end."""

    def value_at(self, report: int | None, objective: Objective) -> float:
        """The best finite value by a report, or at its end; NaN where it did not come there."""
        if not self.is_whole and (report is None or len(self.values) < report):
            return math.nan
        return min((one for one in self.values[:report] if math.isfinite(one)), key=objective.sort_key, default=math.nan)


@dataclass(frozen=True)
class History:
    """A study's trials by number, and for each the objective's value at reports 1, 2, ...

    Where a study has several objectives or outcomes, `points` are the rest of what each of these reports measured.
    `requested` are configurations that users put first, in their order, and `prior` trials of the studies it starts from.
    `seconds` is how long each report took that a trial gave itself, `stops` are trials that users asked to stop. `last_number` is
    the greatest number among trials that are left out here.
    """

    trials: Mapping[int, Trial] = field(default_factory=dict)
    values: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    requested: Sequence[Configuration] = ()
    prior: Sequence[PriorTrial] = ()
    points: Mapping[int, tuple[Point, ...]] = field(default_factory=dict)
    seconds: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    stops: frozenset[int] = frozenset()
    last_number: int = -1

    def with_trial(self, trial: Trial) -> "History":
        """This history with a new or changed trial."""
        changed = replace(self, trials={**self.trials, trial.number: trial})
        changed.__dict__.update(self._worked_out(trial))
        return changed

    def with_value(self, number: int, value: float, point: Point | None = None, seconds: float = 0.0) -> "History":
        """This history with one more report of a trial. A copy of another trial has NaN for the reports it took over."""
        trial = self.trials.get(number)
        copied = trial.parent_report if trial else 0
        before = self.values.get(number, (math.nan,) * copied)
        points = self.points
        if point is not None:
            points = {**points, number: (*points.get(number, (Point.unknown(),) * copied), point)}
        times = {**self.seconds, number: (*self.seconds.get(number, ()), seconds)}
        changed = replace(self, values={**self.values, number: (*before, value)}, points=points, seconds=times)
        changed.__dict__.update({name: getattr(self, name) for name in _KEPT})
        return changed

    def counted(self, number: int, reports: int) -> list[float]:
        """The finite values among a trial's first `reports` reports, of those that keep all outcomes."""
        values, points = self.values.get(number, ())[:reports], self.points.get(number)
        if points is None:
            return [value for value in values if math.isfinite(value)]
        return [value for value, point in zip(values, points, strict=False) if point.counts and math.isfinite(value)]

    def violation(self, number: int, reports: int) -> float:
        """By how much the nearest of a trial's first `reports` reports breaks the outcomes; 0 where one keeps them all.

        Infinite where none says anything of them.
        """
        return min((point.violation for point in self.points.get(number, ())[:reports]), default=math.inf)

    def point_of(self, trial: Trial) -> tuple[float, ...] | None:
        """The trial's values of all objectives: those at its best report by the first, whose export is kept."""
        if trial.best_report is None or trial.best_value is None:
            return None
        points = self.points.get(trial.number)
        return (trial.best_value,) if points is None else points[trial.best_report - 1].objectives

    @cached_property
    def searched(self) -> "History":
        """This history without the final's runs, which nothing that searches may see; itself where there are none."""
        if not self._has_runs:
            return self
        trials = {number: trial for number, trial in self.trials.items() if trial.repeats is None}
        values = {number: each for number, each in self.values.items() if number in trials}
        return replace(self, trials=trials, values=values, last_number=self.greatest)

    def in_state(self, *states: TrialState) -> list[Trial]:
        """Trials in these states, by number."""
        among = self.trials if any(state.is_end for state in states) else self._open
        return [trial for _, trial in sorted(among.items()) if trial.state in states]

    def best(self, objective: Objective) -> Trial | None:
        """The trial with the best report so far, the final's runs aside; the earlier one of two equals."""
        if objective not in self._bests:
            self._bests[objective] = _best(self.trials.values(), objective)
        return self._bests[objective]

    @cached_property
    def _open(self) -> Mapping[int, Trial]:
        """The trials that have not ended: few, and asked for several times by every decision."""
        return {number: trial for number, trial in self.trials.items() if not trial.state.is_end}

    @cached_property
    def _has_runs(self) -> bool:
        """Whether the final has begun."""
        return any(trial.repeats is not None for trial in self.trials.values())

    @cached_property
    def _bests(self) -> dict[Objective, Trial | None]:
        """What `best` has found."""
        return {}

    @cached_property
    def reports_given(self) -> int:
        """Reports that the trials gave themselves."""
        return sum(trial.own_reports for trial in self.trials.values())

    @cached_property
    def greatest(self) -> int:
        """The greatest number of a trial; -1 without one."""
        return max(self.trials, default=-1)

    def _worked_out(self, changed: Trial) -> dict[str, Any]:
        """What those of `_KEPT` are with a new or changed trial: a long history is not gone through for each of them."""
        still_open = {number: trial for number, trial in self._open.items() if number != changed.number}
        if not changed.state.is_end:
            still_open[changed.number] = changed
        bests = {
            objective: _best([changed] if best is None else [best, changed], objective)
            for objective, best in self._bests.items()
            if best is None or best.number != changed.number  # which may have become worse: to be looked for again
        }
        before = self.trials.get(changed.number)
        return {
            "_open": still_open,
            "_bests": bests,
            "_has_runs": self._has_runs or changed.repeats is not None,
            "reports_given": self.reports_given + changed.own_reports - (before.own_reports if before else 0),
            "greatest": max(self.greatest, changed.number),
        }

    def spending(self, study: Study, now: datetime) -> Spending:
        """What the study has spent, reports its live attempts have still to give included. The final costs nothing but time."""
        searched, gpus = self.searched, study.resources.gpus
        live = searched.in_state(TrialState.QUEUED, TrialState.RUNNING)
        mean = self.report_seconds if study.definition.budget.is_timed else 0.0
        is_capped = bool(gpus) and study.definition.budget.gpu_seconds is not None
        return Spending(
            trials=len(searched.trials),
            epochs=searched.reports_given + sum(max(0, trial.until - trial.reports) for trial in live),
            wall_clock_seconds=study.active_seconds(now),
            gpu_seconds=sum(trial.gpu_seconds for trial in self.trials.values()) if gpus else 0.0,
            reserved_gpu_seconds=gpus * self.reserved_seconds if is_capped else 0.0,
            next_gpu_seconds=gpus * self._next_seconds() if is_capped else 0.0,
            report_seconds=mean,
            report_gpu_seconds=gpus * mean,
            longest_gpu_seconds=gpus * self.longest_seconds if is_capped else 0.0,
        )

    @property
    def report_seconds(self) -> float:
        """The mean time of a report; 0 before the first."""
        return sum(trial.seconds for trial in self.trials.values()) / self.reports_given if self.reports_given else 0.0

    @property
    def longest_seconds(self) -> float:
        """The longest time of a report; 0 before the first."""
        return max(map(max, self.seconds.values()), default=0.0)

    @property
    def reserved_seconds(self) -> float:
        """What live attempts have still to train to their ends, each at its own mean speed where it has one."""
        live = self.in_state(TrialState.QUEUED, TrialState.RUNNING)
        return reserved_seconds(live, self.report_seconds)

    def charged(self, study: Study, trial: Trial, attempt: Attempt, most_seconds: float = math.inf) -> Trial:
        """The trial with what its attempt, which has ended, has cost beside its reports: only what was lost or failed did.

        That is all the time in which it held its worker without a report to show for it, at most `most_seconds`.
        """
        if attempt.ended_at is None or attempt.outcome not in _FRUITLESS:
            return trial
        reported = self.seconds.get(trial.number, ())[max(0, attempt.first - trial.parent_report) :]
        lost = (attempt.ended_at - attempt.started_at).total_seconds() - sum(reported)
        return trial.losing(min(most_seconds, max(0.0, lost)), study.resources.gpus)

    def _next_seconds(self) -> float:
        """What the next reports of the running trials may take together: each as long as the longest that is known of it."""
        longest = self.longest_seconds
        going_on = [trial for trial in self.in_state(TrialState.RUNNING) if trial.reports < trial.until]
        own = [self.seconds.get(trial.number, ()) for trial in going_on]
        return sum(max(times) if len(times) >= _KNOWN else longest for times in own)


def _best(trials: Iterable[Trial], objective: Objective) -> Trial | None:
    values = [
        (objective.sort_key(trial.best_value), trial.number, trial)
        for trial in trials
        if trial.best_value is not None and trial.repeats is None and not math.isnan(trial.best_value)
    ]
    return min(values, key=lambda one: one[:2])[2] if values else None


def reserved_seconds(live: Iterable[Trial], mean_seconds: float) -> float:
    """What these live trials have still to train to the ends of their attempts; `mean_seconds` is a report of one without any."""
    total = 0.0
    for trial in live:
        own = trial.own_reports
        total += max(0, trial.until - trial.reports) * (trial.seconds / own if own else mean_seconds)
    return total
