"""How good a trial is, as a search sees it: by the best of its reports, as that is the one a user gets."""

import math
from collections.abc import Iterable

from service.domain.definition import Objective
from service.domain.history import History
from service.domain.trial import Trial


def value_by(history: History, trial: Trial, report: int, objective: Objective) -> float:
    """The best finite value among the trial's first `report` reports; NaN when there is none."""
    values = [value for value in history.values.get(trial.number, ())[:report] if math.isfinite(value)]
    return min(values, key=objective.sort_key, default=math.nan)


def counts_at(trial: Trial, report: int) -> bool:
    """Whether the trial has a value at that report: it came there, or stopped early by itself and keeps the one it had."""
    return trial.reports >= report or trial.stopped_early


def best_of(history: History, trials: Iterable[Trial], report: int, most: int, objective: Objective) -> list[Trial]:
    """At most `most` trials that have a finite value at `report`: best first, the lower number of two equals."""
    valued = [(value_by(history, trial, report, objective), trial) for trial in trials if counts_at(trial, report)]
    ranked = sorted(
        ((objective.sort_key(value), trial.number, trial) for value, trial in valued if math.isfinite(value)),
        key=lambda item: item[:2],
    )
    return [trial for _, _, trial in ranked[:most]]
