"""Random draws from a search space, each a pure function of a seed. Parameters are drawn in the order of their names."""

import hashlib
import math
from collections.abc import Collection, Mapping
from random import Random
from typing import assert_never

from search_spaces import CategoricalParameter, FloatParameter, IntParameter, Parameter, Scalar, is_finite

Configuration = Mapping[str, Scalar]

Key = tuple[float, ...]
"""A configuration as numbers, in the order of the parameters' names: equal for equal configurations, and only for them."""

_REDRAWS = 100


def seed_of(study_seed: int, number: int, purpose: str) -> int:
    """A seed below 2**32 for one purpose of one trial; the same on every machine, unlike `hash`."""
    digest = hashlib.blake2b(f"{study_seed}/{number}/{purpose}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big")


def random_of(study_seed: int, number: int, purpose: str) -> Random:
    """A source of randomness for one purpose of one trial."""
    return Random(seed_of(study_seed, number, purpose))  # noqa: S311 - a search, not a secret


def draw_unseen(space: Mapping[str, Parameter], seen: Collection[Key], random: Random) -> Configuration | None:
    """An independent draw that is not in `seen`; None when a finite space has no other configuration left."""
    for _ in range(_REDRAWS):
        drawn = {name: _draw(space[name], random) for name in sorted(space)}
        if key_of(space, drawn) not in seen:
            return _in_order(space, drawn)
    size = size_of(space)
    return None if size is None else _next_unseen(space, size, seen, random.randrange(size))


def size_of(space: Mapping[str, Parameter]) -> int | None:
    """Number of configurations in the space, None when it is not finite."""
    return math.prod(len(_values(parameter)) for parameter in space.values()) if is_finite(space) else None


def key_of(space: Mapping[str, Parameter], configuration: Configuration) -> Key:
    """The configuration as numbers."""
    return tuple(number_of(space[name], configuration[name]) for name in sorted(space))


def number_of(parameter: Parameter, value: Scalar) -> float:
    """A number for the value: itself, or its place among the choices, which may hold None, or both 1 and True."""
    if not isinstance(parameter, CategoricalParameter):
        return float(value or 0)
    exact = [place for place, choice in enumerate(parameter.choices) if type(choice) is type(value) and choice == value]
    return float(exact[0] if exact else parameter.choices.index(value))


def _draw(parameter: Parameter, random: Random) -> Scalar:
    match parameter:
        case FloatParameter(low=low, high=high, log=True):
            return min(high, max(low, math.exp(random.uniform(math.log(low), math.log(high)))))
        case FloatParameter(low=low, high=high):
            return min(high, max(low, random.uniform(low, high)))
        case IntParameter(low=low, high=high, log=True):
            # Half a step beyond both ends, so that the ends are as likely as their neighbours (as Optuna does).
            return min(high, max(low, round(math.exp(random.uniform(math.log(low - 0.5), math.log(high + 0.5))))))
        case IntParameter() | CategoricalParameter():
            return random.choice(_values(parameter))
        case _:
            assert_never(parameter)


def _values(parameter: Parameter) -> "range | tuple[Scalar, ...]":
    """All values of a parameter that has finitely many."""
    match parameter:
        case FloatParameter():
            return (parameter.low,)
        case IntParameter():
            return range(parameter.low, parameter.high + 1, parameter.step)
        case CategoricalParameter():
            return parameter.choices
        case _:
            assert_never(parameter)


def _next_unseen(space: Mapping[str, Parameter], size: int, seen: Collection[Key], first: int) -> Configuration | None:
    """The first configuration from place `first` on that is not in `seen`: at most one step more than `seen` is long."""
    values = {name: _values(space[name]) for name in sorted(space)}
    for step in range(min(size, len(seen) + 1)):
        configuration = configuration_at(values, (first + step) % size)
        if key_of(space, configuration) not in seen:
            return _in_order(space, configuration)
    return None


def configuration_at(values: "Mapping[str, range | tuple[Scalar, ...]]", place: int) -> Configuration:
    """The configuration at a place in the product of all values, the last name varying fastest."""
    configuration: dict[str, Scalar] = {}
    for name in sorted(values, reverse=True):
        place, digit = divmod(place, len(values[name]))
        configuration[name] = values[name][digit]
    return configuration


def _in_order(space: Mapping[str, Parameter], configuration: Configuration) -> Configuration:
    return {name: configuration[name] for name in space}
