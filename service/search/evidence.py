"""What a model is told of the trials so far: for each its value at one report, pending, or bad."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from search_spaces import Configuration
from service.domain.history import History
from service.domain.objective import Objective
from service.domain.pareto import best_first
from service.domain.rungs import all_rungs
from service.domain.study import Study
from service.domain.trial import Trial, TrialReason, TrialState
from service.search.values import counts_at, value_by

_OWN_FAULT = frozenset({TrialReason.DIVERGED, TrialReason.TRAINER_ERROR})
"""Failures that the configuration may be to blame for: models count them as bad. A lost worker says nothing."""


@dataclass(frozen=True)
class Observation:
    """What is known of a configuration: its value, None while it is pending, NaN when it failed or is infeasible.

    `values` are those of all objectives where there are several. `violation` is by how much one without a value broke the
    outcomes, infinite where it is bad for another reason.
    """

    parameters: Configuration
    value: float | None
    values: tuple[float, ...] = ()
    violation: float = math.inf

    @property
    def is_measured(self) -> bool:
        """Whether it has a finite value."""
        return self.value is not None and math.isfinite(self.value)

    @property
    def is_telling(self) -> bool:
        """Whether it can be put in its place among the others."""
        return self.is_measured or (self.value is not None and math.isfinite(self.violation))


@dataclass(frozen=True)
class Evidence:
    """Observations, those of earlier studies first and then by trial number, and the report they were taken at."""

    observations: Sequence[Observation] = ()
    report: int | None = None

    @cached_property
    def measured(self) -> int:
        """How many of them have a finite value, or are known to break the outcomes and by how much."""
        return sum(one.is_telling for one in self.observations)

    def ranked(self, objectives: Sequence[Objective]) -> list[Configuration]:
        """Configurations that are not pending, best first, the earlier of equals first.

        Of several objectives by front and then by crowding. After those that keep the outcomes come those that do not, the
        nearest to it first, and bad ones last (Deb et al. 2002, section VI).
        """
        good = [one for one in self.observations if one.is_measured]
        bad = [one for one in self.observations if one.value is not None and not one.is_measured]
        ranked = [*_in_order(good, objectives), *sorted(bad, key=lambda one: one.violation)]
        return [one.parameters for one in ranked]

    @property
    def pending(self) -> list[Configuration]:
        """Configurations that are being tried."""
        return [one.parameters for one in self.observations if one.value is None]


def _in_order(measured: Sequence[Observation], objectives: Sequence[Objective]) -> list[Observation]:
    if len(objectives) == 1:
        return sorted(measured, key=lambda one: objectives[0].sort_key(one.value or 0.0))
    costs = [[objective.sort_key(value) for objective, value in zip(objectives, one.values, strict=True)] for one in measured]
    return [measured[place] for place in best_first(costs)]


def whole_evidence(study: Study, history: History) -> Evidence:
    """What is known of each trial at its end: its best value once completed, or once it was cut by a rule that compares."""
    at = {trial.number: _last_report(study, trial) for trial in history.trials.values()}
    return Evidence(tuple(_observed(study, history, at, None)))


def rung_evidence(study: Study, history: History, startup_trials: int) -> Evidence:
    """What is known of each trial at one rung: the highest that enough trials have reached for a model (BOHB's rule).

    Values at different rungs do not compare, and the lowest rung, which every trial reaches, tells least about the end. Trials
    that were cut below the chosen rung are left out: counting them as bad ended worse on two of three sets of real curves. Those
    that wait below it, as they do for ever in asynchronous brackets, are pending: without a place among the others they keep
    proposals away. As bad ones, or left out, they ended worse on real curves.
    """
    enough = max(len(study.definition.space) + 3, startup_trials)
    for report in all_rungs(study.definition):
        known = Evidence(tuple(_observed(study, history, dict.fromkeys(history.trials, report), report)), report)
        if known.measured >= enough:
            return known
    return Evidence()


def _last_report(study: Study, trial: Trial) -> int:
    return trial.reports if trial.reason is TrialReason.BELOW_MEDIAN else study.definition.reports_of(trial.parameters)


def _observed(study: Study, history: History, at: Mapping[int, int], report: int | None) -> Iterator[Observation]:
    """One observation of each trial that says something."""
    several = len(study.definition.objectives) > 1
    for before in () if several else history.prior:  # they know of one objective
        value = before.value_at(report, study.definition.objective)
        if math.isfinite(value):
            yield Observation(before.parameters, value)
    for number, trial in sorted(history.trials.items()):
        counts = counts_at(trial, at[number])
        value = value_by(history, trial, at[number], study.definition.objective) if counts else math.nan
        if trial.state is TrialState.INFEASIBLE:  # good or not, it cannot be trained to its end
            yield Observation(trial.parameters, math.nan, violation=_broken(history, trial, at[number]))
        elif counts and math.isfinite(value):
            yield Observation(trial.parameters, value, (history.point_of(trial) or ()) if several else ())
        elif counts and math.isfinite(broken := _broken(history, trial, at[number])):
            yield Observation(trial.parameters, math.nan, violation=broken)
        elif not trial.state.is_end:
            yield Observation(trial.parameters, None)
        elif counts or trial.reason in _OWN_FAULT:
            yield Observation(trial.parameters, math.nan)


def _broken(history: History, trial: Trial, report: int) -> float:
    """By how much the trial breaks the outcomes by a report; infinite where it does not, or where nothing is known."""
    violation = history.violation(trial.number, report)
    return violation if violation > 0 else math.inf
