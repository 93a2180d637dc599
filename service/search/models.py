"""Optuna's models of the trials so far, rebuilt from them for every proposal: no state outlives a call.

Optuna and, for Gaussian processes, torch are imported here and only when a model is asked: they take seconds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

from search_spaces import CategoricalParameter, FloatParameter, IntParameter, Parameter, Scalar
from service.domain.definition import Objective, StudyDefinition
from service.domain.strategy import BayesianSampler, GpSampler, TpeSampler
from service.search.draws import Configuration, number_of, seed_of

_TPE_REDRAWS = 10
_GP_REDRAWS = 2
"""A Gaussian process has one best point: asked again with another seed it mostly says the same, and it is slow."""

_GP_MOST = 200
"""Observations that a Gaussian process is fitted to, as that takes cubic time: 0.5 s for 200, 13 s for 1,000."""


@dataclass(frozen=True)
class Observation:
    """What is known of a configuration: its value, None while it is pending, NaN when it failed or is infeasible."""

    parameters: Configuration
    value: float | None


def model_proposal(
    definition: StudyDefinition, sampler: BayesianSampler, observations: Sequence[Observation], number: int
) -> Iterator[Configuration]:
    """Proposals for trial `number`, the first one first; the next ones only for when an earlier one was tried already.

    `observations` are ordered by trial number and hold at least one value.
    """
    import optuna  # noqa: PLC0415 - a second to import: only studies that model their trials pay for it

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = {name: parameter for name, parameter in definition.space.items() if not _is_single(parameter)}
    distributions = {name: _distribution(parameter) for name, parameter in sorted(space.items())}
    told = _with_values(observations, definition.objective)
    study: Any = optuna.create_study(direction=definition.objective.direction)
    match sampler:
        case TpeSampler():
            redraws = _TPE_REDRAWS
        case GpSampler():
            redraws, told = _GP_REDRAWS, _most_telling(told, definition.objective)
        case _:
            assert_never(sampler)
    study.add_trials([_frozen(space, distributions, observation) for observation in told])
    for redraw in range(1 + redraws):
        study.sampler = _sampler(sampler, seed_of(definition.seed, number, f"model {redraw}"))
        # What was asked before stays in the study as running, so that the next proposal keeps away from it.
        proposed = study.ask(distributions).params
        yield {
            name: _value_of(parameter, proposed[name]) if name in proposed else _only_value(parameter)
            for name, parameter in definition.space.items()
        }


def _sampler(sampler: BayesianSampler, seed: int) -> Any:
    """Optuna's sampler, without a start-up phase: that is over when it is asked."""
    from optuna.samplers import GPSampler, TPESampler  # noqa: PLC0415 - as above

    if isinstance(sampler, TpeSampler):
        return TPESampler(multivariate=True, constant_liar=True, n_startup_trials=1, seed=seed)
    return GPSampler(n_startup_trials=1, seed=seed)


def _with_values(observations: Sequence[Observation], objective: Objective) -> list[Observation]:
    """The observations with the worst value seen in place of each failure."""
    values = [item.value for item in observations if item.value is not None and math.isfinite(item.value)]
    worst = max(values, key=objective.sort_key)
    return [
        Observation(item.parameters, worst) if item.value is not None and math.isnan(item.value) else item
        for item in observations
    ]


def _most_telling(observations: list[Observation], objective: Objective) -> list[Observation]:
    """What is pending, the better half of what a Gaussian process may hold, and the newest of the rest; in their order."""
    valued = [place for place, item in enumerate(observations) if item.value is not None]
    if len(valued) <= _GP_MOST:
        return observations
    ranked = sorted(valued, key=lambda place: (objective.sort_key(observations[place].value or 0.0), place))
    best = set(ranked[: _GP_MOST // 2])
    newest = set([place for place in valued if place not in best][-(_GP_MOST - len(best)) :])
    return [item for place, item in enumerate(observations) if item.value is None or place in best or place in newest]


def _frozen(space: Mapping[str, Parameter], distributions: Mapping[str, Any], observation: Observation) -> Any:
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415 - as above

    return create_trial(
        state=TrialState.RUNNING if observation.value is None else TrialState.COMPLETE,
        value=observation.value,
        params={name: _internal(space[name], observation.parameters[name]) for name in distributions},
        distributions=dict(distributions),
    )


def _distribution(parameter: Parameter) -> Any:
    from optuna.distributions import (  # noqa: PLC0415 - as above
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    match parameter:
        case FloatParameter():
            return FloatDistribution(parameter.low, parameter.high, log=parameter.log)
        case IntParameter(low=low, high=high, step=step):
            # Optuna warns about a `high` that no step reaches.
            return IntDistribution(low, low + (high - low) // step * step, log=parameter.log, step=step)
        case CategoricalParameter():
            # By place, as Optuna takes 1 and True for the same choice.
            return CategoricalDistribution(tuple(range(len(parameter.choices))))
        case _:
            assert_never(parameter)


def _is_single(parameter: Parameter) -> bool:
    if isinstance(parameter, CategoricalParameter):
        return len(parameter.choices) == 1
    return parameter.low == parameter.high or (
        isinstance(parameter, IntParameter) and parameter.high - parameter.low < parameter.step
    )


def _only_value(parameter: Parameter) -> Scalar:
    return parameter.choices[0] if isinstance(parameter, CategoricalParameter) else parameter.low


def _internal(parameter: Parameter, value: Scalar) -> float | int:
    """The value as the distribution has it."""
    number = number_of(parameter, value)
    return number if isinstance(parameter, FloatParameter) else int(number)


def _value_of(parameter: Parameter, proposed: Any) -> Scalar:
    """The value for what was drawn from the distribution."""
    match parameter:
        case FloatParameter(low=low, high=high):
            return min(high, max(low, float(proposed)))
        case IntParameter():
            return int(proposed)
        case CategoricalParameter():
            return parameter.choices[int(proposed)]
        case _:
            assert_never(parameter)
