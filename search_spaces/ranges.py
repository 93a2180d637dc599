"""The values of one parameter: how many there are, which one is where, and whether a value is among them."""

import math
from collections.abc import Iterable
from decimal import Decimal
from random import Random
from typing import TypeGuard, assert_never

from search_spaces.parameters import (
    CategoricalParameter,
    ConstantParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    is_on_step,
)
from search_spaces.values import Value, identity

Number = float | int | str | None
"""What tells a value of one parameter from its others. None is for a parameter without a value."""


def count(parameter: Parameter) -> int | None:
    """How many values the parameter has, None for a continuous range."""
    match parameter:
        case FloatParameter(low=low, high=high, step=step):
            if low == high:
                return 1
            return None if step is None else math.floor((high - low) / step + 1e-6) + 1
        case IntParameter(low=low, high=high, step=step):
            return (high - low) // step + 1
        case CategoricalParameter(choices=choices):
            return len(choices)
        case ConstantParameter():
            return 1
        case _:
            assert_never(parameter)


def value_at(parameter: Parameter, place: int) -> Value:
    """The value at a place below `count`; a continuous range has none but its low end."""
    match parameter:
        case FloatParameter(low=low, high=high, step=step):
            # In decimals, so that 0.1 and two steps of 0.1 are 0.3.
            return low if step is None else min(high, float(Decimal(repr(low)) + place * Decimal(repr(step))))
        case IntParameter(low=low, step=step):
            return low + place * step
        case CategoricalParameter(choices=choices):
            return choices[place]
        case ConstantParameter(value=value):
            return value
        case _:
            assert_never(parameter)


def values(parameter: Parameter) -> Iterable[Value]:
    """All values of a parameter that has finitely many, one after the other."""
    return (value_at(parameter, place) for place in range(_counted(parameter)))


def contains(parameter: Parameter, value: Value) -> bool:
    """Whether `value` is one that `parameter` may take."""
    match parameter:
        case FloatParameter(low=low, high=high, step=step):
            if not _is_number(value) or not low <= value <= high:
                return False
            return step is None or is_on_step(low, step, value)
        case IntParameter(low=low, high=high, step=step):
            return _is_number(value) and isinstance(value, int) and low <= value <= high and (value - low) % step == 0
        case CategoricalParameter(places=places):
            return identity(value) in places
        case ConstantParameter(value=only):
            return identity(value) == identity(only)
        case _:
            assert_never(parameter)


def number_of(parameter: Parameter, value: Value) -> Number:
    """A number for a value of the parameter: itself, or its place among the steps or choices, which may hold both 1 and True.

    What the parameter does not hold has a number too, or its text, so that values that were searched once can be compared.
    """
    match parameter:
        case FloatParameter(low=low, high=high, step=step) if _is_number(value) and low <= value <= high:
            return float(value) if step is None else round((value - low) / step)
        case IntParameter() if _is_number(value):
            return value
        case CategoricalParameter(choices=choices, places=places):
            exact = places.get(identity(value))
            # A store may have made 100000 of 1e5.
            return next((at for at, choice in enumerate(choices) if choice == value), identity(value)) if exact is None else exact
        case _:
            return identity(value)


def draw_value(parameter: Parameter, random: Random) -> Value:
    """A value, uniform, or uniform in its logarithm."""
    if count(parameter) == 1:
        return value_at(parameter, 0)
    match parameter:
        case FloatParameter(low=low, high=high, log=True):
            return min(high, max(low, math.exp(random.uniform(math.log(low), math.log(high)))))
        case FloatParameter(low=low, high=high, step=None):
            return min(high, max(low, random.uniform(low, high)))
        case IntParameter(low=low, high=high, log=True):
            # Half a step beyond both ends, so that the ends are as likely as their neighbours (as Optuna does).
            return min(high, max(low, round(math.exp(random.uniform(math.log(low - 0.5), math.log(high + 0.5))))))
        case _:
            return value_at(parameter, random.randrange(_counted(parameter)))


def grid_values(parameter: Parameter) -> Iterable[Value] | None:
    """The values a grid tries for one parameter, or None where a continuous range gives none. They are not written out."""
    match parameter:
        case FloatParameter(grid=tuple(grid)) | IntParameter(grid=tuple(grid)):
            return grid
        case _:
            return None if count(parameter) is None else values(parameter)


def grid_count(parameter: Parameter) -> int | None:
    """How many values a grid tries for one parameter, None where a continuous range gives none."""
    match parameter:
        case FloatParameter(grid=tuple(grid)) | IntParameter(grid=tuple(grid)):
            return len(grid)
        case _:
            return count(parameter)


def _counted(parameter: Parameter) -> int:
    found = count(parameter)
    if found is None:
        raise ValueError("a continuous range has no places")
    return found


def _is_number(value: Value) -> TypeGuard[float]:
    return isinstance(value, float | int) and not isinstance(value, bool)
