"""The grid: every combination of the space's values once, in an order drawn from the study's seed."""

from collections.abc import Mapping
from functools import lru_cache

from search_spaces import Parameter, grid_size, grid_values
from service.search.draws import Configuration, configuration_at, random_of


def grid_configuration(space: Mapping[str, Parameter], seed: int, number: int) -> Configuration | None:
    """The configuration of trial `number`; None behind the last one."""
    size = grid_size(space)
    if number >= size:
        return None
    values = {name: grid_values(parameter) or () for name, parameter in space.items()}
    configuration = configuration_at(values, _order(size, seed)[number])
    return {name: configuration[name] for name in space}


@lru_cache(maxsize=4)
def _order(size: int, seed: int) -> tuple[int, ...]:
    """A permutation of range(size). Kept, as the largest grid takes 50 ms; a pure function, so nothing can change it."""
    places = list(range(size))
    random_of(seed, 0, "grid").shuffle(places)
    return tuple(places)
