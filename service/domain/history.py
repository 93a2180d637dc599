"""Everything a decision about a study may depend on: its trials, and the objective at each of their reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from service.domain.budget import Spending
from service.domain.definition import Objective
from service.domain.study import Study
from service.domain.trial import Trial, TrialState


@dataclass(frozen=True)
class History:
    """A study's trials by number, and for each the objective's value at reports 1, 2, ..."""

    trials: Mapping[int, Trial] = field(default_factory=dict)
    values: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    def with_trial(self, trial: Trial) -> "History":
        """This history with a new or changed trial."""
        return replace(self, trials={**self.trials, trial.number: trial})

    def with_value(self, number: int, value: float) -> "History":
        """This history with one more report of a trial."""
        return replace(self, values={**self.values, number: (*self.values.get(number, ()), value)})

    def in_state(self, *states: TrialState) -> list[Trial]:
        """Trials in these states, by number."""
        return [trial for _, trial in sorted(self.trials.items()) if trial.state in states]

    def best(self, objective: Objective) -> Trial | None:
        """The trial with the best report so far; the earlier one of two equals."""
        ranked = [trial for trial in self.trials.values() if trial.best_value is not None]
        return min(ranked, key=lambda trial: (objective.sort_key(trial.best_value or 0.0), trial.number), default=None)

    def spending(self, study: Study, now: datetime) -> Spending:
        """What the study has spent, reports its live attempts have still to give included."""
        live = self.in_state(TrialState.QUEUED, TrialState.RUNNING)
        return Spending(
            trials=len(self.trials),
            epochs=sum(trial.reports for trial in self.trials.values())
            + sum(max(0, trial.until - trial.reports) for trial in live),
            wall_clock_seconds=(now - study.started_at).total_seconds() if study.started_at else 0.0,
            gpu_seconds=sum(trial.gpu_seconds for trial in self.trials.values()),
        )
