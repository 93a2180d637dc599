"""What varies in a study: parameter kinds and the space they span."""

from search_spaces.space import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Scalar,
    contains,
    grid_size,
    grid_values,
    is_finite,
)

__all__ = [
    "CategoricalParameter",
    "FloatParameter",
    "IntParameter",
    "Parameter",
    "Scalar",
    "contains",
    "grid_size",
    "grid_values",
    "is_finite",
]
