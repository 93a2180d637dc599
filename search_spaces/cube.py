"""The unit cube: one coordinate in [0, 1] for each parameter, for samplers that know nothing but numbers.

A range is measured as it is drawn: on a log scale where it says so. A value of finitely many has a cell as wide as it is likely,
and stands in the middle of it.
"""

import math
from typing import assert_never

from search_spaces.parameters import CategoricalParameter, ConstantParameter, FloatParameter, IntParameter, Parameter
from search_spaces.ranges import count, number_of, value_at
from search_spaces.values import Value


def coordinate_of(parameter: Parameter, value: Value) -> float:
    """Where a value of the parameter is in [0, 1]."""
    places = count(parameter)
    if places == 1:
        return 0.5
    number = number_of(parameter, value)
    if not isinstance(number, int | float):
        raise ValueError(f"{value!r} is no value of the parameter")  # noqa: TRY004 - its type may well be right
    match parameter:
        case FloatParameter(low=low, high=high, step=None):
            return _share(*map(math.log, (low, high, number))) if parameter.log else _share(low, high, number)
        case IntParameter(low=low, high=high, log=True):
            return _share(*map(math.log, (low - 0.5, high + 0.5, number)))
        case IntParameter(low=low, step=step):
            place = (int(number) - low) // step
        case FloatParameter() | CategoricalParameter() | ConstantParameter():
            place = int(number)
        case _:
            assert_never(parameter)
    return (place + 0.5) / (places or 1)


def value_in(parameter: Parameter, coordinate: float) -> Value:
    """The parameter's value at a coordinate; one outside of [0, 1] is taken for the nearest end."""
    share = min(1.0, max(0.0, coordinate))
    places = count(parameter)
    match parameter:
        case _ if places == 1:
            return value_at(parameter, 0)
        case FloatParameter(low=low, high=high, log=True):
            return min(high, max(low, math.exp(_between(math.log(low), math.log(high), share))))
        case FloatParameter(low=low, high=high, step=None):
            return min(high, max(low, _between(low, high, share)))
        case IntParameter(low=low, high=high, log=True):
            return min(high, max(low, round(math.exp(_between(math.log(low - 0.5), math.log(high + 0.5), share)))))
        case _:
            return value_at(parameter, min(int(share * (places or 1)), (places or 1) - 1))


def _share(low: float, high: float, number: float) -> float:
    # Halved, as the width of the widest range is more than a float can hold.
    return min(1.0, max(0.0, (number / 2 - low / 2) / (high / 2 - low / 2)))


def _between(low: float, high: float, share: float) -> float:
    return low * (1 - share) + high * share
