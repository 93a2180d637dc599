"""Parameters near those of a trial, for its copy (Jaderberg et al. 2017, section 4.1.1: perturb and resample)."""

from collections.abc import Set as AbstractSet
from random import Random
from typing import assert_never

from search_spaces import (
    CategoricalParameter,
    Configuration,
    ConstantParameter,
    FloatParameter,
    IntParameter,
    Key,
    Parameter,
    Space,
    Value,
    count,
    number_of,
    value_at,
)
from search_spaces.ranges import draw_value
from service.domain.strategy import PbtStrategy
from service.search.draws import draw_unseen

_TRIES = 100
"""Changed parameters that are drawn, until some are new and meet the constraints."""


def perturbed(
    space: Space, parameters: Configuration, strategy: PbtStrategy, seen: AbstractSet[Key], random: Random
) -> Configuration:
    """Parameters near these that no trial has: at random where all near ones are taken, known ones where there are no others."""
    near = [one for one in (_moved(space, parameters, strategy, random) for _ in range(_TRIES)) if space.meets_constraints(one)]
    unseen = next((one for one in near if space.key(one) not in seen), None) or draw_unseen(space, seen, random)
    return unseen or next(iter(near), parameters)


def _moved(space: Space, parameters: Configuration, strategy: PbtStrategy, random: Random) -> Configuration:
    """Each parameter a step further or drawn anew; one that only exists beside the new values of others is drawn."""
    found: dict[str, Value] = {}
    for name in space.parents_first:
        parameter = space.parameters[name]
        if not space.is_active(name, found):
            continue
        if name not in parameters or random.random() < strategy.resample_probability:
            found[name] = draw_value(parameter, random)
        else:
            found[name] = _step(parameter, parameters[name], random.choice(strategy.factors), random)
    return space.active(found)


def _step(parameter: Parameter, value: Value, factor: float, random: Random) -> Value:
    """The value times the factor, or the neighbour on that side; drawn anew where no factor moves it, as 0."""
    match parameter:
        case FloatParameter(low=low, high=high) if parameter.step is None:
            assert isinstance(value, float | int)  # noqa: S101 - of this parameter
            return min(high, max(low, value * factor)) if value else draw_value(parameter, random)
        case FloatParameter(low=low) | IntParameter(low=low):
            assert isinstance(value, float | int)  # noqa: S101 - the same
            step = parameter.step or 1
            return _at(parameter, round((value - low) / step), round((value * factor - low) / step), factor)
        case CategoricalParameter(ordered=True):
            place = number_of(parameter, value)
            assert isinstance(place, int)  # noqa: S101 - the same
            return _at(parameter, place, place, factor)
        case CategoricalParameter() | ConstantParameter():
            return value
        case _:
            assert_never(parameter)


def _at(parameter: Parameter, place: int, wanted: int, factor: float) -> Value:
    """The value at the place wanted, or at the next one where that is the same; at an end it stays, and by a factor of 1."""
    moved = wanted if wanted != place else place + (factor > 1) - (factor < 1)
    return value_at(parameter, min(max(moved, 0), (count(parameter) or 1) - 1))
