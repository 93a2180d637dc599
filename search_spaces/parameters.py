"""Parameter kinds. A search space is a mapping of names to parameters; a name is a key of the trainer's configuration."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from search_spaces.values import Value, identity

_MOST_STEPS = 2**52
_LARGEST = 10**300
"""Whole numbers beyond it have no logarithm, and no place in the unit cube, that a float can hold."""


class _Parameter(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


When = Annotated[
    Annotated[dict[str, Value], Field(min_length=1, max_length=20)] | None,
    Field(
        description="The parameter exists only where every parameter named here does and has the value, or one of the list of "
        "values. Otherwise a trial has what `trainer` says.",
        examples=[{"optimizer": "adamw"}, {"batch_size": [16, 32]}],
    ),
]


class FloatParameter(_Parameter):
    """A real number in [low, high], uniform, or uniform in its logarithm; with `step`, low, low + step, ... up to high."""

    kind: Literal["float"] = Field(description="A real number.", examples=["float"])
    low: float = Field(description="Smallest value, inclusive.", examples=[1e-6])
    high: float = Field(description="Largest value, inclusive.", examples=[1e-3])
    log: bool = Field(default=False, description="Draw uniformly from the logarithm of the range.", examples=[True])
    step: float | None = Field(
        default=None, gt=0, description="Distance between neighbouring values; any value when left out.", examples=[0.05]
    )
    grid: tuple[float, ...] | None = Field(
        default=None, min_length=1, description="The values a grid strategy tries; with `step`, all of them when left out.",
        examples=[[1e-5, 1e-4, 1e-3]],
    )  # fmt: skip
    when: When = None

    @model_validator(mode="after")
    def _range_is_possible(self) -> Self:
        _check_range(self.low, self.high, log=self.log)
        if self.step is not None:
            _check_step(self.low, self.high, self.step, log=self.log)
        _check_grid(self.grid, self.low, self.high)
        if self.step is not None:
            between = [value for value in self.grid or () if not is_on_step(self.low, self.step, value)]
            if between:
                raise ValueError(f"`grid` holds {between[0]}, which is no whole number of `step` ({self.step}) above `low`")
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
    when: When = None

    @model_validator(mode="after")
    def _range_is_possible(self) -> Self:
        if max(abs(self.low), abs(self.high)) > _LARGEST:
            raise ValueError("a whole number of more than 300 digits is too large: make the range smaller")
        _check_range(self.low, self.high, log=self.log)
        if self.log and self.step != 1:
            raise ValueError("`step` and `log` do not go together: leave one of them out")
        _check_grid(self.grid, self.low, self.high)
        between = [value for value in self.grid or () if (value - self.low) % self.step]
        if between:
            raise ValueError(f"`grid` holds {between[0]}, which is no whole number of `step` ({self.step}) above `low`")
        return self


class CategoricalParameter(_Parameter):
    """One of a list of values."""

    kind: Literal["categorical"] = Field(description="One of a list of values.", examples=["categorical"])
    choices: tuple[Value, ...] = Field(
        min_length=1, max_length=1000, description="The values to choose from: any JSON.", examples=[[16, 32, 64]]
    )
    ordered: bool = Field(
        default=False, description="The choices stand in an order, so that neighbours are alike.", examples=[True]
    )
    when: When = None

    @model_validator(mode="after")
    def _choices_differ(self) -> Self:
        if len(self.places) != len(self.choices):
            raise ValueError("`choices` holds a value twice: list each once")
        return self

    @cached_property
    def places(self) -> Mapping[str, int]:
        """The place of each choice in the list, by the choice's identity."""
        return {identity(choice): place for place, choice in enumerate(self.choices)}


class ConstantParameter(_Parameter):
    """One value, the same in all trials that have it."""

    kind: Literal["constant"] = Field(description="One value.", examples=["constant"])
    value: Value = Field(description="The value: any JSON.", examples=["adamw"])
    when: When = None


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter | ConstantParameter,
    Field(discriminator="kind"),
]
"""The closed union of parameter kinds, told apart by `kind`."""


def is_on_step(low: float, step: float, value: float) -> bool:
    """Whether a value is a whole number of steps above `low`, up to what floats round off."""
    steps = (value - low) / step
    return math.isfinite(steps) and abs(steps - round(steps)) <= 1e-6  # noqa: PLR2004 - far above rounding, far below a step


def _check_range(low: float, high: float, *, log: bool) -> None:
    if low > high:
        raise ValueError(f"`low` ({low}) is above `high` ({high}): swap them")
    if log and low <= 0:
        raise ValueError(f"`low` ({low}) must be above 0 when `log` is true")


def _check_step(low: float, high: float, step: float, *, log: bool) -> None:
    if log:
        raise ValueError("`step` and `log` do not go together: leave one of them out")
    # A step that the largest value is too coarse to show would give the same value again and again.
    if (high - low) / step > _MOST_STEPS or step < 1e-9 * max(abs(low), abs(high)):
        raise ValueError(f"`step` ({step}) is too small for [{low}, {high}]: make it larger, or leave it out")


def _check_grid(grid: tuple[float, ...] | None, low: float, high: float) -> None:
    if grid is None:
        return
    outside = [value for value in grid if not low <= value <= high]
    if outside:
        raise ValueError(f"`grid` holds {outside[0]}, which is outside [{low}, {high}]")
    if len(set(grid)) != len(grid):
        raise ValueError("`grid` holds a value twice: list each once")
