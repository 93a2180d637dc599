"""What a study can use: every model and every choice of rows that its trials can get, and where in the document each is set."""

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import product
from math import prod

from pydantic import ValidationError

from search_spaces import IntParameter, Parameter, Space, Value
from search_spaces.conditions import contexts
from service.domain.definition import StudyDefinition
from service.domain.errors import InvalidDefinition, Violation
from service.domain.pointers import Location, pointer
from service.domain.searched import extremes
from service.domain.space_rules import configured_among
from trainers.configs import Splits

MOST_VARIANTS = 1000


@dataclass(frozen=True)
class Setting:
    """A value that a key of the trainer's configuration can have, and the JSON pointer to where it is set."""

    value: Value
    pointer: str


@dataclass(frozen=True)
class Rows:
    """A choice of rows, and the JSON pointer to where each key of it is set."""

    data: Splits
    pointers: Mapping[str, str]


def values_of(definition: StudyDefinition, name: str) -> list[Setting]:
    """The values of a top-level key: of a range, the ends. None of a key that the trainer does not have."""
    searched = _values(name, definition.space[name]) if name in definition.space else []
    if name not in type(definition.trainer).model_fields or (searched and definition.space[name].when is None):
        return searched
    value = getattr(definition.trainer, name)
    return [*searched, Setting(value, pointer(["trainer", name]))]


def rows_of(definition: StudyDefinition) -> Iterator[Rows]:
    """Every choice of rows; none for a trainer without. Raises InvalidDefinition when there are too many of them."""
    if definition.trainer.data is None:
        return
    varying: dict[str, list[Setting | None]] = {
        name: [*_values(name, parameter), *([None] if parameter.when else [])]
        for name, parameter in definition.space.items()
        if name.startswith("data.")
    }
    count = prod(len(values) for values in varying.values())
    if count > MOST_VARIANTS:
        detail = f"`data` varies in {count} ways, more than {MOST_VARIANTS}: let less of it vary"
        raise InvalidDefinition([Violation("/space", detail)])
    for settings in product(*varying.values()):
        chosen = {name: one for name, one in zip(varying, settings, strict=True) if one is not None}
        if _can_be(definition.search_space, chosen, varying.keys() - chosen):
            yield _rows(definition, chosen)


def _can_be(space: Space, chosen: Mapping[str, Setting], absent: AbstractSet[str]) -> bool:
    """Whether the conditions let a trial have these values together, and lack the others."""
    values = {name: one.value for name, one in chosen.items()}
    may_be_together = next(contexts(space.parameters, values), None) is not None
    return may_be_together and not any(space.is_active(name, values) for name in absent)


def _rows(definition: StudyDefinition, chosen: Mapping[str, Setting]) -> Rows:
    values = {name: one.value for name, one in chosen.items()}
    try:
        data = configured_among(definition.trainer, definition.search_space, values).data
        assert data is not None  # noqa: S101 - `rows_of` has asked
    except ValidationError as error:
        detail = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        listed = ", ".join(f"`{name}` is {one.value!r}" for name, one in chosen.items())
        raise InvalidDefinition([Violation("/space", f"the trainer does not take its rows where {listed}: {detail}")]) from error
    written = {key: pointer(["trainer", "data", key]) for key in type(data).model_fields}
    searched = {name.removeprefix("data."): one.pointer for name, one in chosen.items()}
    return Rows(data, {**written, **searched})


def _values(name: str, parameter: Parameter) -> list[Setting]:
    listed: Sequence[tuple[Location, Value]]
    match parameter:
        case IntParameter():
            reached = parameter.high - (parameter.high - parameter.low) % parameter.step
            listed = [(("low",), parameter.low), (("high",), reached)]
        case _:
            listed = extremes(parameter)
    return [Setting(value, pointer(["space", name, *at])) for at, value in listed]
