"""Where a trial lies on a parameter's axis: to draw it, and in the unit cube to compare it."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from search_spaces import CategoricalParameter, ConstantParameter, FloatParameter, IntParameter, Parameter
from service.domain.study_analysis import Axis, Place


def axes_of(space: Mapping[str, Parameter]) -> Sequence[Axis]:
    """An axis for each parameter, in the order of the space."""
    return [_axis(name, parameter) for name, parameter in space.items()]


def place(axis: Axis, configuration: Mapping[str, Any]) -> Place | None:
    """What to draw of a trial's value; None when it has none, or one that this axis cannot show."""
    if axis.parameter not in configuration:
        return None
    value = configuration[axis.parameter]
    if axis.choices:
        label = label_of(value)
        return label if label in axis.choices else None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number and not (axis.log and value <= 0) else None


def unit(axis: Axis, configuration: Mapping[str, Any]) -> float | None:
    """The value in [0, 1] as a sampler draws it, log scale respected; of choices, and whole numbers, the middle of their cell."""
    shown = place(axis, configuration)
    if shown is None or axis.low is None or axis.high is None:
        return None if shown is None else (axis.choices.index(str(shown)) + 0.5) / len(axis.choices)
    half = 0.5 if axis.kind == "int" else 0.0
    low, high, at = (math.log(one) if axis.log else one for one in (axis.low - half, axis.high + half, float(shown)))
    return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5


def label_of(value: Any) -> str:
    """A choice as JSON text: two that differ never read alike."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _axis(name: str, parameter: Parameter) -> Axis:
    match parameter:
        case FloatParameter() | IntParameter():
            return Axis(name, parameter.kind, float(parameter.low), float(parameter.high), parameter.log)
        case CategoricalParameter():
            return Axis(name, parameter.kind, choices=[label_of(choice) for choice in parameter.choices])
        case ConstantParameter():
            return Axis(name, parameter.kind, choices=[label_of(parameter.value)])
        case _:
            assert_never(parameter)
