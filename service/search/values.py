"""How good a trial is, as a search sees it: by the best of its reports, as that is the one a user gets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.domain.decision import Decision, DecisionKind
from service.domain.history import History
from service.domain.objective import Objective
from service.domain.study import Study
from service.domain.trial import Trial


def value_by(history: History, trial: Trial, report: int, objective: Objective) -> float:
    """The best finite value among the trial's first `report` reports that keep all outcomes; NaN when there is none."""
    if report >= trial.reports and trial.best_value is not None and math.isfinite(trial.best_value):
        return trial.best_value  # known already, and asked for more often than anything else
    return min(history.counted(trial.number, report), key=objective.sort_key, default=math.nan)


def counts_at(trial: Trial, report: int) -> bool:
    """Whether the trial has a value at that report: it came there, or stopped early by itself and keeps the one it had."""
    return trial.reports >= report or trial.stopped_early


def best_of(history: History, trials: Iterable[Trial], report: int, most: int, objective: Objective) -> list[Trial]:
    """At most `most` trials that have a finite value at `report`: best first, the lower number of two equals.

    Those that have yet to keep all outcomes come last, by how near they are to it: that is less than to be no number.
    """
    placed = [(_place(history, trial, report, objective), trial) for trial in trials if counts_at(trial, report)]
    ranked = sorted(((place, trial.number, trial) for place, trial in placed if place is not None), key=lambda item: item[:2])
    return [trial for _, _, trial in ranked[:most]]


def _place(history: History, trial: Trial, report: int, objective: Objective) -> tuple[float, float] | None:
    value = value_by(history, trial, report, objective)
    if math.isfinite(value):
        return 0.0, objective.sort_key(value)
    violation = history.violation(trial.number, report)
    return (violation, 0.0) if 0 < violation < math.inf else None


@dataclass(frozen=True)
class Comparison:
    """Trials compared at a report: the value and the place of each, counted from 1, and the value that the last place took."""

    report: int
    values: Mapping[int, float]
    ranks: Mapping[int, int]
    among: int
    cut: float | None
    incumbent: Trial | None

    @staticmethod
    def of(study: Study, history: History, trials: Sequence[Trial], report: int, places: int) -> "Comparison":
        """The comparison of `trials`, of which so many are taken."""
        objective = study.definition.objective
        ranked = best_of(history, trials, report, len(trials), objective)
        known = {trial.number: value_by(history, trial, report, objective) for trial in ranked}
        values = {number: value for number, value in known.items() if math.isfinite(value)}
        last = ranked[min(places, len(ranked)) - 1] if ranked and places else None
        return Comparison(
            report=report,
            values=values,
            ranks={trial.number: rank for rank, trial in enumerate(ranked, start=1)},
            among=len(trials),
            cut=None if last is None else values.get(last.number),
            incumbent=history.best(objective),
        )

    def decision(self, kind: DecisionKind, by: str, trial: Trial, rung: int) -> Decision:
        """The decision about one of them that followed."""
        return Decision(
            kind=kind, by=by, report=self.report, rung=rung, bracket=trial.bracket, value=self.values.get(trial.number),
            rank=self.ranks.get(trial.number), among=self.among, cut=self.cut,
        ).beside(self.incumbent)  # fmt: skip
