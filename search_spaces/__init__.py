"""What varies in a study: parameter kinds and the space they span."""

from search_spaces.conditions import condition_faults
from search_spaces.constraints import Constraint
from search_spaces.expressions import ExpressionError, read_expression
from search_spaces.parameters import (
    CategoricalParameter,
    ConstantParameter,
    FloatParameter,
    IntParameter,
    Parameter,
)
from search_spaces.ranges import contains, count, grid_values, number_of, value_at
from search_spaces.space import Key, NoConfiguration, Space
from search_spaces.values import Configuration, Fault, Value, identity

__all__ = [
    "CategoricalParameter",
    "Configuration",
    "ConstantParameter",
    "Constraint",
    "ExpressionError",
    "Fault",
    "FloatParameter",
    "IntParameter",
    "Key",
    "NoConfiguration",
    "Parameter",
    "Space",
    "Value",
    "condition_faults",
    "contains",
    "count",
    "grid_values",
    "identity",
    "number_of",
    "read_expression",
    "value_at",
]
