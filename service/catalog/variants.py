"""What a study can use: every model and every choice of rows that its trials can get, and where in the document each is set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from pydantic import ValidationError

from search_spaces import FloatParameter, IntParameter, Parameter, Scalar
from service.domain.definition import StudyDefinition
from service.domain.errors import InvalidDefinition, Violation
from service.domain.pointers import pointer
from service.domain.searched import extremes
from trainers.configs import Splits

MOST_VARIANTS = 1000


@dataclass(frozen=True)
class Value:
    """A value that a key of the trainer's configuration can have, and the JSON pointer to where it is set."""

    value: Scalar
    pointer: str


@dataclass(frozen=True)
class Rows:
    """A choice of rows, and the JSON pointer to where each key of it is set."""

    data: Splits
    pointers: Mapping[str, str]


def values_of(definition: StudyDefinition, name: str) -> list[Value]:
    """The values of a top-level key: of a range, the ends. None of a key that the trainer does not have."""
    if name in definition.space:
        return _values(name, definition.space[name])
    if name not in type(definition.trainer).model_fields:
        return []
    value = getattr(definition.trainer, name)
    return [Value(value, pointer(["trainer", name]))]


def rows_of(definition: StudyDefinition) -> Iterator[Rows]:
    """Every choice of rows. Raises InvalidDefinition when there are too many of them."""
    varying = {name: _values(name, parameter) for name, parameter in definition.space.items() if name.startswith("data.")}
    count = prod(len(values) for values in varying.values())
    if count > MOST_VARIANTS:
        detail = f"`data` varies in {count} ways, more than {MOST_VARIANTS}: let less of it vary"
        raise InvalidDefinition([Violation("/space", detail)])
    for chosen in product(*varying.values()):
        yield _rows(definition, dict(zip(varying, chosen, strict=True)))


def _rows(definition: StudyDefinition, chosen: Mapping[str, Value]) -> Rows:
    others = {name: extremes(parameter)[0][1] for name, parameter in definition.space.items() if name not in chosen}
    try:
        data = definition.configured({**others, **{name: one.value for name, one in chosen.items()}}).data
    except ValidationError as error:
        detail = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        listed = ", ".join(f"`{name}` is {one.value!r}" for name, one in chosen.items())
        raise InvalidDefinition([Violation("/space", f"the trainer does not take its rows where {listed}: {detail}")]) from error
    written = {key: pointer(["trainer", "data", key]) for key in type(data).model_fields}
    searched = {name.removeprefix("data."): one.pointer for name, one in chosen.items()}
    return Rows(data, {**written, **searched})


def _values(name: str, parameter: Parameter) -> list[Value]:
    listed: Sequence[tuple[list[str | int], Scalar]]
    match parameter:
        case IntParameter():
            reached = parameter.high - (parameter.high - parameter.low) % parameter.step
            listed = [(["low"], parameter.low), (["high"], reached)]
        case FloatParameter():
            listed = [(["low"], parameter.low), (["high"], parameter.high)]
        case _:
            listed = [(["choices", index], choice) for index, choice in enumerate(parameter.choices)]
    return [Value(value, pointer(["space", name, *at])) for at, value in listed]
