"""When a parameter exists: `when` names other parameters, and the values that they must have."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

from search_spaces.parameters import Parameter
from search_spaces.ranges import contains, count, number_of, value_at
from search_spaces.values import Configuration, Fault, Value

Parameters = Mapping[str, Parameter]

_MOST_STEPS = 1000
"""Values that are tried for the parameters that others need: conditions can be made that contradict each other at length."""


def wanted_values(condition: Value) -> Sequence[Value]:
    """The values that a condition lets another parameter have: those of a list, or the one that it is."""
    return condition if isinstance(condition, list) else [condition]


def condition_faults(parameters: Parameters) -> Iterator[Fault]:
    """What is wrong with the conditions of these parameters, each with its place."""
    found = [*_single_faults(parameters), *_circles(parameters)]
    if found:
        yield from found
        return
    for name, parameter in parameters.items():
        if parameter.when and next(contexts(parameters, {name: value_at(parameter, 0)}), None) is None:
            yield (name, "when"), "never holds beside the conditions of the parameters that it names: take one of them out"


def parents_first(parameters: Parameters) -> tuple[str, ...]:
    """The names in their order, each behind those that its condition names. Raises ValueError for a circle."""
    placed: dict[str, None] = {}

    def place(name: str, above: tuple[str, ...]) -> None:
        if name in above:
            raise ValueError(f"the conditions of `{name}` go round in a circle")
        if name not in placed:
            for other in sorted(parameters[name].when or {}):
                place(other, (*above, name))
            placed[name] = None

    for name in sorted(parameters):
        place(name, ())
    return tuple(placed)


def contexts(parameters: Parameters, fixed: Configuration) -> Iterator[Configuration]:
    """The smallest configurations with these values in which all of them are active; none where they never are together."""
    steps = iter(range(_MOST_STEPS))

    def extended(assigned: dict[str, Value], waiting: Sequence[tuple[str, Value]]) -> Iterator[Configuration]:
        unknown = next((at for at, (other, _) in enumerate(waiting) if other not in assigned), len(waiting))
        if not all(_is_met(parameters[other], assigned[other], condition) for other, condition in waiting[:unknown]):
            return
        if unknown == len(waiting):
            yield assigned
            return
        (other, condition), *rest = waiting[unknown:]
        for value in wanted_values(condition):
            if next(steps, None) is None:
                return
            yield from extended({**assigned, other: value}, [*rest, *(parameters[other].when or {}).items()])

    yield from extended(dict(fixed), [one for name in fixed for one in (parameters[name].when or {}).items()])


def _single_faults(parameters: Parameters) -> Iterator[Fault]:
    for name, parameter in parameters.items():
        for other, condition in (parameter.when or {}).items():
            for at, detail in _faults_of(parameters, other, condition):
                yield (name, "when", other, *at), detail


def _circles(parameters: Parameters) -> Iterator[Fault]:
    circle = _circle(parameters)
    if circle:
        chain = ", ".join(f"`{name}` only where `{other}` does" for name, other in pairwise(circle))
        yield (circle[0], "when"), f"goes round in a circle ({chain}): take one of these conditions out"


def _is_met(parameter: Parameter, assigned: Value, condition: Value) -> bool:
    return any(number_of(parameter, assigned) == number_of(parameter, value) for value in wanted_values(condition))


def _faults_of(parameters: Parameters, other: str, condition: Value) -> Iterator[Fault]:
    if other not in parameters:
        listed = ", ".join(f"`{name}`" for name in parameters)
        yield (), f"the space has no parameter `{other}`: it has {listed}"
        return
    if count(parameters[other]) is None:
        yield (), f"`{other}` is a continuous range, which has no single value twice: give it a `step`, or use `choices`"
        return
    if condition == []:
        yield (), "lists no value: name those that the other parameter must have"
    for index, value in enumerate(wanted_values(condition)):
        if not contains(parameters[other], value):
            yield (index,) if isinstance(condition, list) else (), f"`{other}` is never {value!r}: name values that it takes"


def _circle(parameters: Parameters) -> tuple[str, ...]:
    """The names of a circle of conditions, the first one again at the end; empty without one."""
    done: set[str] = set()

    def walk(name: str, above: tuple[str, ...]) -> tuple[str, ...]:
        if name in above:
            return (*above[above.index(name) :], name)
        if name in done or name not in parameters:
            return ()
        done.add(name)
        found = (walk(other, (*above, name)) for other in parameters[name].when or {})
        return next((circle for circle in found if circle), ())

    return next((circle for circle in (walk(name, ()) for name in parameters) if circle), ())
