"""What a search space and its trainer must say of each other, and what constraints must say of both."""

from collections.abc import Iterator, Sequence
from itertools import combinations, islice, product
from math import isqrt
from random import Random

from pydantic import ValidationError

from search_spaces import (
    Configuration,
    Constraint,
    ExpressionError,
    NoConfiguration,
    Space,
    Value,
    condition_faults,
    read_expression,
)
from service.domain.errors import Violation
from service.domain.pointers import Location, advice, pointer
from service.domain.searched import configured, extremes, keys_of, setting
from trainers.configs import TrainerConfig, metrics_of

_MOST_PAIRS = 20_000
"""Pairs of values that are looked at: a second's work."""
_MOST_OCCURRENCES = 5
_MOST_DOUBTS = 100
"""Pairs that the trainer refuses and of which it is found out whether a trial can have them; the rest fail as trials."""
_ALIKE = "all trials of a study report alike: set it in `trainer` alone"
_FIXED = {
    "kind": "the kind of trainer cannot vary: make one study of each kind",
    "report_every": _ALIKE,
    "max_steps": _ALIKE,
    "measure": _ALIKE,
}
"""Keys of the trainer that no space may name, and why."""


def bound(trainer: TrainerConfig, space: Space, text: str) -> Constraint:
    """The constraint, with the trainer's own values for the names that are not searched. Raises ExpressionError, KeyError."""
    names = read_expression(text).names
    return Constraint(text, {name: setting(trainer, name) for name in names if name not in space.parameters})


def condition_violations(space: Space) -> list[Violation]:
    """Whether every `when` can be met. Without that, nothing more can be asked of the space."""
    return [Violation(pointer(["space", *place]), detail) for place, detail in condition_faults(space.parameters)]


def space_violations(trainer: TrainerConfig, space: Space, metrics: Sequence[str]) -> list[Violation]:
    """Whether the trainer has each parameter, takes every value it can get and takes them together, and reports the metrics."""
    found = []
    for name in space.parameters:
        key = name.partition(".")[0]
        if key in _FIXED:
            found.append(Violation(pointer(["space", name]), _FIXED[key]))
        elif name == "epochs" and trainer.max_steps is not None:
            found.append(Violation("/space/epochs", "says nothing beside the trainer's `max_steps`: take it out of the space"))
        else:
            found += _value_violations(trainer, space, name, metrics)
    return found or _pair_violations(trainer, space)


def constraint_violations(trainer: TrainerConfig, space: Space, texts: Sequence[str]) -> list[Violation]:
    """Whether each constraint can be read and names what there is. `space` has no constraints yet, and valid conditions."""
    found = []
    constraints = []
    for index, text in enumerate(texts):
        try:
            detail = _misnamed(trainer, space, read_expression(text).names)
        except ExpressionError as error:
            detail = str(error)
        if detail is None:
            constraints.append(bound(trainer, space, text))
        else:
            found.append(Violation(pointer(["constraints", index]), detail))
    constrained = Space(space.parameters, tuple(constraints))
    if not found and constraints:
        try:
            constrained.draw(_random())
        except NoConfiguration as error:
            if not constrained.size():  # draws may miss what counting finds
                found.append(Violation("/constraints", f"{error}; loosen it, or let the space reach where it holds"))
    return found


def _misnamed(trainer: TrainerConfig, space: Space, names: Sequence[str]) -> str | None:
    """What is wrong with the names in a constraint."""
    keys = keys_of(trainer)
    for name in names:
        if name in space.parameters:
            continue
        if name not in keys:
            known = [*space.parameters, *(key for key in keys if key not in space.parameters)]
            return f"names `{name}`, which is neither in the space nor a key of trainer `{trainer.kind}`: " + advice(name, known)
        try:
            setting(trainer, name)
        except KeyError:
            return f"names `{name}`, which has no value: set it in `trainer`, or search it"
    if not any(name in space.parameters for name in names):
        return "names no parameter of the space, so it says nothing of any trial: name one, or take it out"
    return None


def _value_violations(trainer: TrainerConfig, space: Space, name: str, metrics: Sequence[str]) -> Iterator[Violation]:
    needed = [metric for metric in metrics if metric in metrics_of(trainer)]
    for at, value in extremes(space.parameters[name]):
        try:
            reported = metrics_of(_taken(trainer, space, {name: value}))
        except KeyError:
            known = [key for key in keys_of(trainer) if key not in _FIXED]
            yield Violation(
                pointer(["space", name]), f"trainer `{trainer.kind}` has no parameter `{name}`: {advice(name, known)}"
            )
            return
        except ValidationError as error:
            yield Violation(pointer(["space", name, *at]), f"`{name}` cannot be {value!r}: {reason_of(error)}")
        else:
            for metric in (one for one in needed if one not in reported):
                named = "the objective" if metric == metrics[0] else "which the study names"
                detail = f"`{name}` cannot be {value!r}: the trainer then does not report `{metric}`, {named}"
                yield Violation(pointer(["space", name, *at]), detail)


def _pair_violations(trainer: TrainerConfig, space: Space) -> list[Violation]:
    """Values that the trainer takes alone, but not together with another parameter's: the first such pair of two parameters.

    What a configuration asks of its keys together, it asks of two at a time. Of very many values a spread is looked at. Pairs
    that no trial can have, by the conditions or the constraints, are left out.
    """
    values = {name: extremes(parameter) for name, parameter in space.parameters.items()}
    pairs = list(combinations(values, 2))
    if sum(len(values[one]) * len(values[other]) for one, other in pairs) > _MOST_PAIRS:
        most = max(2, isqrt(_MOST_PAIRS // len(pairs)))
        values = {name: _spread(found, most) for name, found in values.items()}
    violations = []
    doubts = iter(range(_MOST_DOUBTS))
    for one, other in pairs:
        for (_, before), (at, value) in product(values[one], values[other]):
            error = _refusal(trainer, space, {one: before, other: value}, doubts)
            if error is not None:
                detail = f"`{other}` cannot be {value!r} where `{one}` is {before!r}: {reason_of(error)}"
                violations.append(Violation(pointer(["space", other, *at]), detail))
                break
    return violations


def _refusal(trainer: TrainerConfig, space: Space, values: Configuration, doubts: Iterator[int]) -> ValidationError | None:
    """Why the trainer does not take these values together; None where it does, or where no trial has them together."""
    try:
        configured_among(trainer, space, values)
    except ValidationError:
        most = 0 if next(doubts, None) is None else _MOST_OCCURRENCES
        for occurrence in islice(space.occurrences(values, _random()), most):
            try:
                configured_among(trainer, space, occurrence)
            except ValidationError as error:
                return error
    return None


def _taken(trainer: TrainerConfig, space: Space, values: Configuration) -> TrainerConfig:
    """The configuration with these values, by themselves or in some trial that can have them. Raises as `configured` does."""
    try:
        return configured_among(trainer, space, values)
    except ValidationError as error:
        for occurrence in islice(Space(space.parameters).occurrences(values, _random()), _MOST_OCCURRENCES):
            try:
                return configured_among(trainer, space, occurrence)
            except ValidationError:
                continue
        raise error from None


def configured_among(trainer: TrainerConfig, space: Space, values: Configuration) -> TrainerConfig:
    """The configuration with these values, among the trainer's own or, where it does not take them there, among searched ones.

    What the trainer itself says of a searched key, no trial ever has. Raises as `configured` does.
    """
    try:
        return configured(trainer, values)
    except ValidationError as error:
        firsts = {name: extremes(parameter)[0][1] for name, parameter in space.parameters.items()}
        try:
            return configured(trainer, {**space.active({**firsts, **values}), **values})
        except (KeyError, ValidationError):
            raise error from None


def _spread(values: list[tuple[Location, Value]], most: int) -> list[tuple[Location, Value]]:
    """So many of the values at most, the first and the last among them."""
    if len(values) <= most:
        return values
    return [values[at * (len(values) - 1) // (most - 1)] for at in range(most)]


def reason_of(error: ValidationError) -> str:
    """The first thing that is wrong, as a sentence."""
    return str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")


def _random() -> Random:
    # The same for every study: what is refused once is refused always.
    return Random(0)  # noqa: S311 - a search, not a secret
