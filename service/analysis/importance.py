"""What the trials say of how much each parameter matters: which of them can be compared, and what fANOVA's shares mean."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.analysis.axes import unit
from service.analysis.spread import evenly
from service.domain.definition import Objective
from service.domain.history import History
from service.domain.study_analysis import Axis, Importance, ParameterImportance
from service.domain.trial import Trial, TrialState

FEWEST = 10
"""With fewer trials a forest finds what is not there."""
_MOST = 1000
"""Trials that are looked at: more change the shares little, and take longer."""
_MIDDLE = 0.5
"""Where a trial stands that does not have a parameter: no split there tells it from the others, so that what its lack changes
is put down to the parameter which decides that."""


@dataclass(frozen=True)
class Compared:
    """Trials at the same report: their best objectives up to it, and on each parameter's axis their places in [0, 1]."""

    report: int | None
    objectives: Sequence[float]
    places: Mapping[str, Sequence[float | None]]

    @property
    def varied(self) -> Sequence[str]:
        """Parameters of which there is more than one value."""
        return [name for name, places in self.places.items() if len({at for at in places if at is not None}) > 1]


def compared(history: History, scored: Mapping[int, Sequence[float]], objective: Objective, axes: Sequence[Axis]) -> Compared:
    """The trials at the last report that half of those with a value have reached, and at least ten.

    A trial that a scheduler stopped is not worse than one that went on for having had less time. A completed trial had all it
    was to have, and so counts everywhere. `scored` holds the values of each trial's reports, NaN for what a copy took over.
    """
    longest = max(map(len, scored.values()), default=0)
    wanted = min(len(scored), max(FEWEST, (len(scored) + 1) // 2))

    def at(report: int) -> list[int]:
        return [number for number, values in scored.items() if _tells(history.trials[number], values, report)]

    telling = {one: len(at(one)) for one in range(longest, 0, -1)}
    # Members of a population begin at different reports: there may be none that so many have a value at.
    wanted = min(wanted, max(telling.values(), default=0))
    report = next((one for one, count in telling.items() if count >= wanted), 0)
    numbers = evenly(sorted(at(report)), _MOST)
    best = min if objective.direction == "minimize" else max
    configurations = [history.trials[number].parameters for number in numbers]
    places = {axis.parameter: [unit(axis, one) for one in configurations] for axis in axes}
    values = [best(value for value in scored[number][:report] if math.isfinite(value)) for number in numbers]
    return Compared(report or None, values, places)


def _tells(trial: Trial, values: Sequence[float], report: int) -> bool:
    """Whether a trial has a value by a report: it came there or had its end before, and has a finite one of its own by then."""
    is_there = trial.state is TrialState.COMPLETED or len(values) >= report
    return is_there and any(map(math.isfinite, values[:report]))


def request_of(trials: Compared) -> Mapping[str, Any] | None:
    """What `service.analysis.fanova` is asked, for the parameters that vary; None when it need not be asked."""
    columns = [[_MIDDLE if at is None else at for at in trials.places[name]] for name in trials.varied]
    if len(trials.objectives) < FEWEST or len(columns) < 2:  # noqa: PLR2004 - one alone explains all there is to explain
        return None
    return {"points": list(zip(*columns, strict=True)), "values": trials.objectives}


def importance_of(trials: Compared, shares: Sequence[float] | None) -> Importance:
    """The shares by parameter, the largest first; `shares` is the answer to `request_of`, for the parameters that vary."""
    count = len(trials.objectives)
    if count < FEWEST:
        too_few = f"{count} trials can be compared so far, and importance needs {FEWEST}: ask again when there are more."
        return Importance([ParameterImportance(name, None) for name in trials.places], count, trials.report, too_few)
    is_flat = len(set(trials.objectives)) == 1
    found = dict(zip(trials.varied, shares or [0.0 if is_flat else 1.0] * len(trials.varied), strict=True))
    parameters = [
        ParameterImportance(name, found.get(name, 0.0), _note(places, is_varied=name in found))
        for name, places in trials.places.items()
    ]
    parameters.sort(key=lambda one: -(one.importance or 0.0))
    note = None if any(found.values()) else "No parameter explains how these trials differ."
    return Importance(parameters, count, trials.report, note)


def _note(places: Sequence[float | None], *, is_varied: bool) -> str | None:
    having = sum(at is not None for at in places)
    if not having:
        return f"None of these {len(places)} trials has it."
    if not is_varied:
        return f"It has the same value in all {having} trials that have it."
    return f"{having} of these {len(places)} trials have it." if having < len(places) else None
