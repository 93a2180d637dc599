"""What a configuration that a user asks for must be like: one that the study's space holds and its trainer takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from pydantic import ValidationError

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
    identity,
)
from search_spaces.conditions import wanted_values
from search_spaces.ranges import contains
from service.domain.errors import Violation
from service.domain.pointers import Location, pointer
from service.domain.space_rules import reason_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.domain.definition import StudyDefinition

_MOST_LISTED = 20


def initial_violations(study: StudyDefinition) -> list[Violation]:
    """What is wrong with the configurations to try first, in a definition whose space is sound."""
    found: list[Violation] = []
    places: dict[Key, int] = {}
    for index, configuration in enumerate(study.initial):
        place = ("initial", index)
        wrong = configuration_violations(study, configuration, place)
        first = index if wrong else places.setdefault(study.search_space.key(configuration), index)
        if first != index:
            wrong = [Violation(pointer(place), f"is the same as {pointer(('initial', first))}: keep one of them")]
        found += wrong
    return found


def configuration_violations(study: StudyDefinition, configuration: Configuration, place: Location) -> list[Violation]:
    """What keeps a configuration, which stands at this place in what was sent, from being tried."""
    space = study.search_space
    found = _value_violations(space, configuration, place)
    if found:
        return found
    unmet = [constraint.text for constraint in space.constraints if not constraint.holds(configuration)]
    if unmet:
        return [Violation(pointer(place), f"does not meet the constraint `{text}`: change a value in it") for text in unmet]
    try:
        study.configured(configuration)
    except ValidationError as error:
        return [Violation(pointer(place), f"the trainer does not take these values together: {reason_of(error)}")]
    return []


def _value_violations(space: Space, configuration: Configuration, place: Location) -> list[Violation]:
    """What is missing, superfluous or out of its range."""
    found = []
    for name, value in configuration.items():
        detail = _unfit(space, name, configuration)
        if detail is None and not contains(space.parameters[name], value):
            detail = f"cannot be {identity(value)}: give it {_range(space.parameters[name])}"
        if detail is not None:
            found.append(Violation(pointer((*place, name)), detail))
    missing = [name for name in space.parameters if name not in configuration and space.is_active(name, configuration)]
    lacking = [f"lacks `{name}`: give it {_range(space.parameters[name])}" for name in missing]
    return [*found, *(Violation(pointer(place), detail) for detail in lacking)]


def _unfit(space: Space, name: str, configuration: Configuration) -> str | None:
    """Why a configuration has no such value."""
    if name not in space.parameters:
        return f"is no parameter of the space, which has {', '.join(f'`{known}`' for known in space.parameters)}: take it out"
    if space.is_active(name, configuration):
        return None
    condition = " and ".join(
        f"`{other}` is {_listed(wanted_values(wanted))}" for other, wanted in (space.parameters[name].when or {}).items()
    )
    return f"exists only where {condition}: take it out, or change that"


def _range(parameter: Parameter) -> str:
    match parameter:
        case FloatParameter(low=low, high=high, step=step):
            return f"a number from {low} to {high}" + ("" if step is None else f" in steps of {step}")
        case IntParameter(low=low, high=high, step=step):
            return f"a whole number from {low} to {high}" + ("" if step == 1 else f" in steps of {step}")
        case CategoricalParameter(choices=choices):
            return _listed(choices)
        case ConstantParameter(value=value):
            return identity(value)
        case _:
            assert_never(parameter)


def _listed(values: Iterable[Value]) -> str:
    texts = [identity(value) for value in values]
    return " or ".join(texts if len(texts) <= _MOST_LISTED else [*texts[:_MOST_LISTED], "another of its choices"])
