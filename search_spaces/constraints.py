"""What the values of a trial must meet together."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from search_spaces.expressions import read_expression
from search_spaces.values import Configuration, Value


@dataclass(frozen=True)
class Constraint:
    """An expression that a configuration must make true. `constants` are the values of the names that are no parameters."""

    text: str
    constants: Mapping[str, Value] = field(default_factory=dict)

    def holds(self, configuration: Configuration) -> bool:
        """Whether it is true, or names a parameter that the configuration does not have. Without an answer it does not hold."""
        expression = read_expression(self.text)
        if any(name not in configuration and name not in self.constants for name in expression.names):
            return True
        try:
            return expression.evaluate({**self.constants, **configuration}) is True
        except (ArithmeticError, TypeError, ValueError):
            return False
