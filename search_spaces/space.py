"""The space that a study's trials are drawn from: its parameters, when each exists, and what they must meet together."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from random import Random

from search_spaces.conditions import contexts, parents_first, wanted_values
from search_spaces.constraints import Constraint
from search_spaces.cube import coordinate_of, value_in
from search_spaces.parameters import Parameter
from search_spaces.ranges import (
    Number,
    contains,
    count,
    draw_value,
    grid_count,
    grid_values,
    number_of,
    value_at,
    values,
)
from search_spaces.values import Configuration, Value

Key = tuple[Number, ...]
"""A configuration as numbers, in the order of the parameters' names: equal for equal configurations, and only for them."""

MOST_COUNTED = 100_000
"""Configurations that are counted one by one, which takes a second; without conditions and constraints nothing need be."""

MOST_DRAWS = 10_000
_FEWER_DRAWS = 50
_MOST_TRIES = 500
_COMPARED_DRAWS = 100
_MOST_CHARACTERS = 5_000_000
"""Of constraints, each counted as often as it is evaluated: some two seconds' work, however long they are."""


class NoConfiguration(ValueError):
    """So many draws gave no configuration that meets the constraints."""


@dataclass(frozen=True)
class Space:
    """What varies in a study. A configuration has the values of the active parameters alone, in the order of the space.

    Draws, grids and coordinates do not depend on that order, as a store may give a space back in another one.
    """

    parameters: Mapping[str, Parameter]
    constraints: tuple[Constraint, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether its configurations are all the combinations of its parameters' values."""
        return not self.constraints and not self.has_conditions

    @cached_property
    def has_conditions(self) -> bool:
        """Whether some parameter exists only sometimes."""
        return any(parameter.when for parameter in self.parameters.values())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The parameters' names in the alphabet's order: that of keys and coordinates."""
        return tuple(sorted(self.parameters))

    @cached_property
    def parents_first(self) -> tuple[str, ...]:
        """The parameters' names, each behind those that its condition names."""
        return parents_first(self.parameters)

    def is_active(self, name: str, configuration: Configuration) -> bool:
        """Whether a parameter exists beside these values of active parameters."""
        return all(
            other in configuration and number_of(self.parameters[other], configuration[other]) in wanted
            for other, wanted in self._conditions[name]
        )

    def active(self, values: Mapping[str, Value]) -> Configuration:
        """The values without those that are not active."""
        if not self.has_conditions:
            return {name: values[name] for name in self.parameters if name in values}
        present: dict[str, Value] = {}
        for name in self.parents_first:
            if name in values and self.is_active(name, present):
                present[name] = values[name]
        return self._in_order(present)

    def meets_constraints(self, configuration: Configuration) -> bool:
        """Whether every constraint holds."""
        return all(constraint.holds(configuration) for constraint in self._strictest_first)

    def contains(self, configuration: Configuration) -> bool:
        """Whether it has just the active parameters, each in its range, and meets the constraints."""
        is_whole = all(name in self.parameters for name in configuration) and all(
            (name in configuration) == self.is_active(name, configuration) for name in self.parents_first
        )
        in_range = is_whole and all(contains(self.parameters[name], value) for name, value in configuration.items())
        return in_range and self.meets_constraints(configuration)

    def key(self, configuration: Configuration) -> Key:
        """The configuration as numbers, None for what is not active."""
        return tuple(
            number_of(self.parameters[name], configuration[name]) if name in configuration else None for name in self.names
        )

    @property
    def most_counted(self) -> int:
        """How many configurations are counted, at most, before the constraints take some out."""
        return self._most(MOST_COUNTED)

    def size(self) -> int | None:
        """Number of configurations; None where a continuous range makes them endless, or conditions too many to count."""
        return self._size

    def at(self, place: int) -> Configuration:
        """The configuration at a place below `size`, which must not be None: the last name varies fastest."""
        if not self.is_plain:
            return (self._counted or ())[place]
        found: dict[str, Value] = {}
        for name in reversed(self.names):
            parameter = self.parameters[name]
            place, digit = divmod(place, count(parameter) or 1)
            found[name] = value_at(parameter, digit)
        return self._in_order(found)

    def draw(self, random: Random) -> Configuration:
        """A configuration drawn uniformly, each parameter by itself. Raises NoConfiguration where none meets the constraints."""
        most = self._most(MOST_DRAWS)
        for _ in range(most):
            drawn = self._drawn(random)
            if self.meets_constraints(drawn):
                return drawn
        fails = f"`{self._strictest_first[0].text}` fails most often"
        raise NoConfiguration(f"no configuration meets the constraints: none of {most} draws does, and {fails}")

    def occurrences(self, fixed: Configuration, random: Random) -> Iterator[Configuration]:
        """The smallest configurations with these values that a trial can have, with what must be so for them to be active.

        Where constraints speak of other parameters too, random values are tried for those: some that are possible are missed.
        """
        left = iter(range(_MOST_TRIES))
        for context in contexts(self.parameters, fixed):
            tries = (self.active({**self._drawn_all(random), **context}) for _ in islice(left, _FEWER_DRAWS))
            if not self.constraints or any(self.meets_constraints(one) for one in tries):
                yield context

    def to_unit(self, configuration: Configuration) -> tuple[float | None, ...]:
        """The configuration in the unit cube, one coordinate for each of `names`; None for what is not active."""
        return tuple(
            coordinate_of(self.parameters[name], configuration[name]) if name in configuration else None for name in self.names
        )

    def from_unit(self, point: Sequence[float | None]) -> Configuration:
        """The configuration at a point of the unit cube; it may not meet the constraints. None is taken for the middle."""
        coordinates = zip(self.names, point, strict=True)
        return self.active(
            {name: value_in(self.parameters[name], 0.5 if share is None else share) for name, share in coordinates}
        )

    def grid_size(self) -> int | None:
        """Number of configurations in the grid; None where conditions or constraints make them too many to count.

        Raises ValueError for a continuous parameter without `grid`.
        """
        if not self.is_plain:
            self._check_grid()
            found = self._grid
            return None if found is None else len(found)
        return math.prod(self._check_grid())

    def grid(self) -> Sequence[Configuration]:
        """Every combination of the grid's values once, an inactive parameter left out, in the alphabet's order.

        Raises ValueError for a continuous parameter without `grid`, and for a grid that is too large to be counted.
        """
        self._check_grid()
        if self._grid is None:
            raise ValueError(f"the grid has more than {self.most_counted} configurations")
        return self._grid

    @cached_property
    def _conditions(self) -> Mapping[str, Sequence[tuple[str, frozenset[Number]]]]:
        """For each parameter, the others that its condition names, with the numbers of the values that they must have."""
        return {
            name: [
                (other, frozenset(number_of(self.parameters[other], value) for value in wanted_values(condition)))
                for other, condition in (parameter.when or {}).items()
            ]
            for name, parameter in self.parameters.items()
        }

    @cached_property
    def _strictest_first(self) -> Sequence[Constraint]:
        """The constraints, by how often they fail: the sooner one does, the fewer are evaluated."""
        if len(self.constraints) < 2:  # noqa: PLR2004 - nothing to put in order
            return self.constraints
        random = Random(0)  # noqa: S311 - only the order depends on it
        drawn = [self._drawn(random) for _ in range(_COMPARED_DRAWS)]
        return sorted(self.constraints, key=lambda constraint: sum(map(constraint.holds, drawn)))

    @cached_property
    def _size(self) -> int | None:
        counts = [count(parameter) for parameter in self.parameters.values()]
        if any(found is None for found in counts):
            return None
        if self.is_plain:
            return math.prod(found or 0 for found in counts)
        return None if self._counted is None else len(self._counted)

    @cached_property
    def _counted(self) -> Sequence[Configuration] | None:
        """All configurations of a finite space, None where they are too many."""
        return self._listed(values)

    @cached_property
    def _grid(self) -> Sequence[Configuration] | None:
        return self._listed(lambda parameter: grid_values(parameter) or ())

    def _check_grid(self) -> Sequence[int]:
        counts = {name: grid_count(parameter) for name, parameter in self.parameters.items()}
        endless = [name for name, found in counts.items() if found is None]
        if endless:
            raise ValueError(f"`{endless[0]}` has no `grid` values")
        return [found or 0 for found in counts.values()]

    def _listed(self, values_of: Callable[[Parameter], Iterable[Value]]) -> Sequence[Configuration] | None:
        """All combinations that meet the constraints, None where there are too many combinations."""
        found = list(islice(self._combinations(values_of, {}, self.parents_first), self.most_counted + 1))
        return None if len(found) > self.most_counted else [one for one in found if self.meets_constraints(one)]

    def _most(self, configurations: int) -> int:
        """So many configurations are held against the constraints at most: fewer where those are long."""
        characters = sum(len(constraint.text) for constraint in self.constraints)
        return configurations if not characters else min(configurations, _MOST_CHARACTERS // characters)

    def _combinations(
        self, values_of: Callable[[Parameter], Iterable[Value]], chosen: dict[str, Value], names: Sequence[str]
    ) -> Iterator[Configuration]:
        """The combinations of the values of these parameters, beside those that are chosen already."""
        waiting = iter(names)
        name = next((name for name in waiting if self.is_active(name, chosen)), None)
        if name is None:
            yield self._in_order(chosen)
            return
        rest = tuple(waiting)
        for value in values_of(self.parameters[name]):
            yield from self._combinations(values_of, {**chosen, name: value}, rest)

    def _drawn(self, random: Random) -> Configuration:
        return self.active(self._drawn_all(random))

    def _drawn_all(self, random: Random) -> dict[str, Value]:
        return {name: draw_value(self.parameters[name], random) for name in self.names}

    def _in_order(self, configuration: Configuration) -> Configuration:
        return {name: configuration[name] for name in self.parameters if name in configuration}
