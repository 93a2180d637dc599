"""Groups of parameters in a document: `lora: {rank: {...}}` is the parameter `lora.rank`.

A group's `when` is said of everything in it. What is written out here has the same meaning without groups, and knows where in
the document it stood.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from search_spaces.conditions import wanted_values
from search_spaces.values import Fault, Location, identity

_DEEPEST = 10


@dataclass(frozen=True)
class Flattened:
    """A space without groups. `places` says where in the document those parts of it stand that stand elsewhere there."""

    space: dict[str, Any] = field(default_factory=dict)
    places: dict[Location, Location] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


@dataclass(frozen=True)
class _Condition:
    """What another parameter must be, and where that stands."""

    wanted: Any
    place: Location


_Conditions = Mapping[str, _Condition]


def flattened(space: Mapping[str, Any]) -> Flattened:
    """A space as it was sent, whatever it holds, with its groups written out."""
    found = Flattened()
    for name, whole in space.items():
        for place, parameter, conditions in _leaves(found, (name,), whole, {}):
            _add(found, place, parameter, conditions)
    return found


def _leaves(found: Flattened, place: Location, whole: Any, above: _Conditions) -> Iterator[tuple[Location, Any, _Conditions]]:
    """All that is no group, each with its place and with the conditions of the groups that it is in."""
    if not _is_group(whole) or len(place) > _DEEPEST:
        yield place, whole, above
        return
    conditions = _joined(found, above, whole.get("when"), (*place, "when"))
    for name, inner in whole.items():
        if name != "when":
            yield from _leaves(found, (*place, name), inner, conditions)


def _add(found: Flattened, place: Location, parameter: Any, above: _Conditions) -> None:
    name = ".".join(map(str, place))
    if name in found.space:
        found.faults.append((place, f"is the parameter `{name}`, which stands here twice: keep one of them"))
        return
    if len(place) > 1:
        found.places[name,] = place
    if isinstance(parameter, dict) and above:
        conditions = _joined(found, above, parameter.get("when"), (*place, "when"))
        found.places.update({(name, "when", other): condition.place for other, condition in conditions.items()})
        parameter = {**parameter, "when": {other: condition.wanted for other, condition in conditions.items()}}
    found.space[name] = parameter


def _is_group(whole: Any) -> bool:
    """Whether a mapping holds parameters. One without a `kind` that holds no other mapping is a parameter that lacks it."""
    if not isinstance(whole, dict) or isinstance(whole.get("kind"), str):
        return False
    inner = [value for name, value in whole.items() if name != "when"]
    return bool(inner) and (any(isinstance(value, dict) for value in inner) or all(value is None for value in inner))


def _joined(found: Flattened, above: _Conditions, own: Any, place: Location) -> _Conditions:
    """The conditions of the groups above with one's own: both must be met."""
    if own is None:
        return above
    if not isinstance(own, dict):
        found.faults.append((place, "is no mapping of parameters to values: write `when: {optimizer: adamw}`"))
        return above
    joined = dict(above)
    for other, wanted in own.items():
        condition = _Condition(wanted, (*place, other))
        if other in above:
            allowed = {identity(value) for value in wanted_values(above[other].wanted)}
            both = [value for value in wanted_values(wanted) if identity(value) in allowed]
            if not both:
                found.faults.append((condition.place, f"leaves no value of `{other}` beside what the group above asks for"))
            condition = _Condition(both, condition.place)
        joined[other] = condition
    return joined
