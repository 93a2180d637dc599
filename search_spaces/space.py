"""Parameter kinds. A search space is a mapping of names to parameters; a name is a key of the trainer's configuration."""

import math
from collections.abc import Mapping
from typing import Annotated, Literal, Self, assert_never

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = str | int | float | bool | None
"""What one parameter of one trial may be."""


class _Parameter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class FloatParameter(_Parameter):
    """A real number in [low, high], uniform, or uniform in its logarithm."""

    kind: Literal["float"] = Field(description="A real number.", examples=["float"])
    low: float = Field(description="Smallest value, inclusive.", examples=[1e-6])
    high: float = Field(description="Largest value, inclusive.", examples=[1e-3])
    log: bool = Field(default=False, description="Draw uniformly from the logarithm of the range.", examples=[True])
    grid: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="The values a grid strategy tries.", examples=[[1e-5, 1e-4, 1e-3]]
    )

    @model_validator(mode="after")
    def _range_is_possible(self) -> Self:
        _check_range(self.low, self.high, log=self.log)
        _check_grid(self.grid, self.low, self.high)
        return self


class IntParameter(_Parameter):
    """A whole number low, low + step, ... up to high."""

    kind: Literal["int"] = Field(description="A whole number.", examples=["int"])
    low: int = Field(description="Smallest value, inclusive.", examples=[0])
    high: int = Field(description="Largest value, inclusive.", examples=[6])
    log: bool = Field(default=False, description="Draw uniformly from the logarithm of the range.", examples=[False])
    step: int = Field(default=1, ge=1, description="Distance between neighbouring values.", examples=[1])
    grid: tuple[int, ...] | None = Field(
        default=None, min_length=1, description="The values a grid strategy tries; all of them when left out.",
        examples=[[0, 3, 6]],
    )  # fmt: skip

    @model_validator(mode="after")
    def _range_is_possible(self) -> Self:
        _check_range(self.low, self.high, log=self.log)
        if self.log and self.step != 1:
            raise ValueError("`step` and `log` do not go together: leave one of them out")
        _check_grid(self.grid, self.low, self.high)
        between = [value for value in self.grid or () if (value - self.low) % self.step]
        if between:
            raise ValueError(f"`grid` holds {between[0]}, which is no whole number of `step` ({self.step}) above `low`")
        return self


class CategoricalParameter(_Parameter):
    """One of a list of values without an order."""

    kind: Literal["categorical"] = Field(description="One of a list of values.", examples=["categorical"])
    choices: tuple[Scalar, ...] = Field(
        min_length=1, max_length=1000, description="The values to choose from.", examples=[[16, 32, 64]]
    )

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        if len({(type(choice), choice) for choice in self.choices}) != len(self.choices):
            raise ValueError("`choices` holds a value twice: list each once")
        return self


Parameter = Annotated[FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="kind")]
"""The closed union of parameter kinds, told apart by `kind`."""


def grid_values(parameter: Parameter) -> range | tuple[Scalar, ...] | None:
    """The values a grid tries for one parameter, or None where a continuous range gives none. A range is not written out."""
    match parameter:
        case FloatParameter():
            return (parameter.low,) if parameter.low == parameter.high else parameter.grid
        case IntParameter():
            return parameter.grid or range(parameter.low, parameter.high + 1, parameter.step)
        case CategoricalParameter():
            return parameter.choices
        case _:
            assert_never(parameter)


def grid_size(space: Mapping[str, Parameter]) -> int:
    """Number of configurations in the grid over `space`; continuous parameters without `grid` raise ValueError."""
    sizes = []
    for name, parameter in space.items():
        values = grid_values(parameter)
        if values is None:
            raise ValueError(f"`{name}` has no `grid` values")
        # `len` gives up on ranges beyond 2^63.
        sizes.append((values[-1] - values[0]) // values.step + 1 if isinstance(values, range) else len(values))
    return math.prod(sizes)


def is_finite(space: Mapping[str, Parameter]) -> bool:
    """Whether a random draw from `space` can only give finitely many configurations."""
    return all(not isinstance(parameter, FloatParameter) or parameter.low == parameter.high for parameter in space.values())


def contains(parameter: Parameter, value: Scalar) -> bool:
    """Whether `value` is one that `parameter` may take."""
    match parameter:
        case FloatParameter():
            return isinstance(value, float | int) and not isinstance(value, bool) and parameter.low <= value <= parameter.high
        case IntParameter():
            on_range = isinstance(value, int) and not isinstance(value, bool) and parameter.low <= value <= parameter.high
            return on_range and (int(value or 0) - parameter.low) % parameter.step == 0
        case CategoricalParameter():
            return any(type(choice) is type(value) and choice == value for choice in parameter.choices)
        case _:
            assert_never(parameter)


def _check_range(low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise ValueError(f"`low` ({low}) is above `high` ({high}): swap them")
    if log and low <= 0:
        raise ValueError(f"`low` ({low}) must be above 0 when `log` is true")


def _check_grid(grid: tuple[float, ...] | None, low: float, high: float) -> None:
    if grid is None:
        return
    outside = [value for value in grid if not low <= value <= high]
    if outside:
        raise ValueError(f"`grid` holds {outside[0]}, which is outside [{low}, {high}]")
    if len(set(grid)) != len(grid):
        raise ValueError("`grid` holds a value twice: list each once")
