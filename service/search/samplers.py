"""Which configuration next: drawn at random, taken from the grid, or proposed by a model of the trials so far."""

import math
from collections.abc import Iterator
from typing import assert_never

from service.domain.history import History
from service.domain.strategy import (
    BayesianSampler,
    BayesianStrategy,
    GridStrategy,
    HyperbandStrategy,
    RandomSampler,
    RandomStrategy,
    TpeSampler,
)
from service.domain.study import Study
from service.domain.trial import Trial, TrialReason, TrialState
from service.search.draws import Configuration, Key, draw_unseen, key_of, random_of
from service.search.grid import grid_configuration
from service.search.models import Observation, model_proposal
from service.search.rungs import all_rungs
from service.search.values import counts_at, value_by

_RANDOM_SHARE = 1 / 3
"""Share of hyperband's trials that are drawn at random although there is a model (Falkner et al. 2018, section 4.1)."""

_OWN_FAULT = frozenset({TrialReason.DIVERGED, TrialReason.TRAINER_ERROR})
"""Failures that the configuration may be to blame for: models count them as bad. A lost worker says nothing."""


def next_number(history: History) -> int:
    """The number of the next trial: they count from 0."""
    return max(history.trials, default=-1) + 1


def propose(study: Study, history: History, number: int) -> Configuration | None:
    """The configuration of a new trial, one that no trial has; None when the space holds no other."""
    definition = study.definition
    match definition.strategy:
        case GridStrategy():
            return grid_configuration(definition.space, definition.seed, number)
        case RandomStrategy():
            return _random(study, history, number)
        case BayesianStrategy(sampler=sampler):
            return _modelled(study, history, number, sampler, _whole_observations(study, history, sampler))
        case HyperbandStrategy(sampler=sampler):
            if isinstance(sampler, RandomSampler) or random_of(definition.seed, number, "share").random() < _RANDOM_SHARE:
                return _random(study, history, number)
            return _modelled(study, history, number, sampler, _rung_observations(study, history, sampler))
        case _:
            assert_never(definition.strategy)


def _random(study: Study, history: History, number: int) -> Configuration | None:
    return _drawn(study, number, _seen(study, history))


def _modelled(
    study: Study, history: History, number: int, sampler: BayesianSampler, observations: list[Observation]
) -> Configuration | None:
    """The model's proposal; a random draw, by trial number, before the model is trusted or when it only repeats itself."""
    definition = study.definition
    seen = _seen(study, history)
    drawn = _drawn(study, number, seen)
    if drawn is None or not observations:
        return drawn
    for proposal in model_proposal(definition, sampler, observations, number):
        if key_of(definition.space, proposal) not in seen:
            return proposal
    return drawn


def _seen(study: Study, history: History) -> set[Key]:
    return {key_of(study.definition.space, trial.parameters) for trial in history.trials.values()}


def _drawn(study: Study, number: int, seen: set[Key]) -> Configuration | None:
    return draw_unseen(study.definition.space, seen, random_of(study.definition.seed, number, "draw"))


def _whole_observations(study: Study, history: History, sampler: BayesianSampler) -> list[Observation]:
    """What is known of each trial: its best value once completed. Empty while there are too few of them for a model."""
    last = {trial.number: study.definition.reports_of(trial.parameters) for trial in history.trials.values()}
    known = list(_observed(study, history, last))
    return known if _measured(known) >= sampler.startup_trials else []


def _rung_observations(study: Study, history: History, sampler: TpeSampler) -> list[Observation]:
    """What is known of each trial at one rung: the highest that enough trials have reached for a model (BOHB's rule).

    Values at different rungs do not compare, and the lowest rung, which every trial reaches, tells least about the end. Trials
    that were cut below the chosen rung are left out: counting them as bad ended worse on two of three sets of real curves.
    """
    enough = len(study.definition.space) + 3
    rungs = all_rungs(study.definition)
    if sum(counts_at(trial, rungs[-1]) for trial in history.trials.values()) < sampler.startup_trials:
        return []
    for report in rungs:
        known = list(_observed(study, history, dict.fromkeys(history.trials, report)))
        if _measured(known) >= enough:
            return known
    return []


def _observed(study: Study, history: History, at: dict[int, int]) -> Iterator[Observation]:
    """One observation of each trial that says something, by number: its value at report `at`, pending, or bad."""
    for number, trial in sorted(history.trials.items()):
        value = value_by(history, trial, at[number], study.definition.objective)
        if trial.state is TrialState.INFEASIBLE:
            yield Observation(trial.parameters, math.nan)  # good or not, it cannot be trained to its end
        elif counts_at(trial, at[number]) and math.isfinite(value):
            yield Observation(trial.parameters, value)
        elif not trial.state.is_end:
            yield Observation(trial.parameters, None)
        elif _is_bad(trial, at[number]):
            yield Observation(trial.parameters, math.nan)


def _is_bad(trial: Trial, report: int) -> bool:
    return trial.reason in _OWN_FAULT or counts_at(trial, report)


def _measured(observations: list[Observation]) -> int:
    return sum(observation.value is not None and math.isfinite(observation.value) for observation in observations)
