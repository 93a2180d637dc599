"""Everything a decision about a study may depend on: its trials, and the objective at each of their reports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from search_spaces import Configuration
from service.domain.budget import Spending
from service.domain.objective import Objective
from service.domain.outcomes import Point
from service.domain.study import Study
from service.domain.trial import Trial, TrialState


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
    """

    trials: Mapping[int, Trial] = field(default_factory=dict)
    values: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    requested: Sequence[Configuration] = ()
    prior: Sequence[PriorTrial] = ()
    points: Mapping[int, tuple[Point, ...]] = field(default_factory=dict)

    def with_trial(self, trial: Trial) -> "History":
        """This history with a new or changed trial."""
        return replace(self, trials={**self.trials, trial.number: trial})

    def with_value(self, number: int, value: float, point: Point | None = None) -> "History":
        """This history with one more report of a trial. A copy of another trial has NaN for the reports it took over."""
        trial = self.trials.get(number)
        copied = trial.parent_report if trial else 0
        before = self.values.get(number, (math.nan,) * copied)
        points = self.points
        if point is not None:
            points = {**points, number: (*points.get(number, (Point.unknown(),) * copied), point)}
        return replace(self, values={**self.values, number: (*before, value)}, points=points)

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

    @property
    def searched(self) -> "History":
        """This history without the final's runs, which nothing that searches may see; itself where there are none."""
        trials = {number: trial for number, trial in self.trials.items() if trial.repeats is None}
        if len(trials) == len(self.trials):
            return self
        return replace(self, trials=trials, values={number: each for number, each in self.values.items() if number in trials})

    def in_state(self, *states: TrialState) -> list[Trial]:
        """Trials in these states, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.state in states]

    def best(self, objective: Objective) -> Trial | None:
        """The trial with the best report so far, the final's runs aside; the earlier one of two equals."""
        ranked = [trial for trial in self.trials.values() if trial.best_value is not None and trial.repeats is None]
        return min(ranked, key=lambda trial: (objective.sort_key(trial.best_value or 0.0), trial.number), default=None)

    def spending(self, study: Study, now: datetime) -> Spending:
        """What the study has spent, reports its live attempts have still to give included. The final costs nothing but time."""
        searched = self.searched
        live = searched.in_state(TrialState.QUEUED, TrialState.RUNNING)
        return Spending(
            trials=len(searched.trials),
            epochs=sum(trial.reports - trial.parent_report for trial in searched.trials.values())
            + sum(max(0, trial.until - trial.reports) for trial in live),
            wall_clock_seconds=(now - study.started_at).total_seconds() if study.started_at else 0.0,
            gpu_seconds=sum(trial.gpu_seconds for trial in self.trials.values()),
        )
