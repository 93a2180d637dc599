"""Optuna's Gaussian process over the trials so far, rebuilt from them for every proposal: no state outlives a call.

Optuna and torch are imported here, and only when the model is asked: they take seconds.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, assert_never

from search_spaces import (
    CategoricalParameter,
    Configuration,
    ConstantParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Space,
    Value,
    contains,
    count,
    number_of,
    value_at,
)
from service.domain.definition import Objective, StudyDefinition
from service.search.draws import seed_of
from service.search.evidence import Observation

_REDRAWS = 2
"""It has one best point: asked again with another seed it mostly says the same, and it is slow."""

_MORE_REDRAWS = 6
"""Further ones where some may not meet the constraints."""

_MOST = 200
"""Observations that a Gaussian process is fitted to, as that takes cubic time: 0.5 s for 200, 13 s for 1,000."""


def gaussian_process_proposals(
    definition: StudyDefinition, observations: Sequence[Observation], number: int
) -> Iterator[Configuration]:
    """Proposals for trial `number`, the first one first; the next ones only for when an earlier one was tried already.

    `observations` are ordered by trial number and hold at least one value.
    """
    import optuna  # noqa: PLC0415 - a second to import: only studies that model their trials pay for it
    from optuna.samplers import GPSampler  # noqa: PLC0415 - as above

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = definition.search_space
    distributions = {name: _distribution(space.parameters[name]) for name in space.names if count(space.parameters[name]) != 1}
    told = _most_telling(_with_values(observations, definition.objective), definition.objective)
    study: Any = optuna.create_study(direction=definition.objective.direction)
    study.add_trials([_frozen(space, distributions, observation) for observation in told])

    def proposals() -> Iterator[Configuration]:
        for redraw in range(1 + _REDRAWS + (_MORE_REDRAWS if space.constraints else 0)):
            study.sampler = GPSampler(n_startup_trials=1, seed=seed_of(definition.seed, number, f"model {redraw}"))
            # What was asked before stays in the study as running, so that the next proposal keeps away from it.
            yield _proposed(study.ask(), space, distributions)

    yield from islice(filter(space.meets_constraints, proposals()), 1 + _REDRAWS)


def _proposed(trial: Any, space: Space, distributions: Mapping[str, Any]) -> Configuration:
    """What the model proposes for the parameters that are active, beside those that have but one value."""
    found: dict[str, Value] = {}
    for name in space.parents_first:
        parameter = space.parameters[name]
        if not space.is_active(name, found):
            continue
        found[name] = value_at(parameter, 0) if name not in distributions else _asked(trial, name, parameter, distributions[name])
    return space.active(found)


def _asked(trial: Any, name: str, parameter: Parameter, distribution: Any) -> Value:
    """The value that the model proposes for one parameter: by place, as the distribution has it."""
    match parameter:
        case FloatParameter(low=low, high=high, log=log, step=None):
            return min(high, max(low, float(trial.suggest_float(name, low, high, log=log))))
        case IntParameter():
            return int(trial.suggest_int(name, distribution.low, distribution.high, log=distribution.log, step=distribution.step))
        case CategoricalParameter(ordered=False):
            return value_at(parameter, int(trial.suggest_categorical(name, distribution.choices)))
        case FloatParameter() | CategoricalParameter() | ConstantParameter():
            return value_at(parameter, int(trial.suggest_int(name, distribution.low, distribution.high)))
        case _:
            assert_never(parameter)


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
    if len(valued) <= _MOST:
        return observations
    ranked = sorted(valued, key=lambda place: (objective.sort_key(observations[place].value or 0.0), place))
    best = set(ranked[: _MOST // 2])
    newest = set([place for place in valued if place not in best][-(_MOST - len(best)) :])
    return [item for place, item in enumerate(observations) if item.value is None or place in best or place in newest]


def _frozen(space: Space, distributions: Mapping[str, Any], observation: Observation) -> Any:
    from optuna.trial import TrialState, create_trial  # noqa: PLC0415 - as above

    known = {
        name: distribution
        for name, distribution in distributions.items()
        if name in observation.parameters and contains(space.parameters[name], observation.parameters[name])
    }
    return create_trial(
        state=TrialState.RUNNING if observation.value is None else TrialState.COMPLETE,
        value=observation.value,
        params={name: number_of(space.parameters[name], observation.parameters[name]) for name in known},
        distributions=known,
    )


def _distribution(parameter: Parameter) -> Any:
    """Optuna's distribution of a parameter: by place where its values are steps of a float, or choices.

    Optuna takes the choices 1 and True for the same one, and floats in steps for numbers that need rounding.
    """
    from optuna.distributions import (  # noqa: PLC0415 - as above
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    match parameter:
        case FloatParameter(low=low, high=high, log=log, step=None):
            return FloatDistribution(low, high, log=log)
        case IntParameter(low=low, high=high, log=log, step=step):
            # Optuna warns about a `high` that no step reaches.
            return IntDistribution(low, low + (high - low) // step * step, log=log, step=step)
        case CategoricalParameter(choices=choices, ordered=False):
            return CategoricalDistribution(tuple(range(len(choices))))
        case FloatParameter() | CategoricalParameter() | ConstantParameter():
            return IntDistribution(0, (count(parameter) or 1) - 1)
        case _:
            assert_never(parameter)
