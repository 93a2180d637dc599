"""What a study may spend, and what it has spent."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")


def _seconds(value: Any) -> Any:
    """Seconds from "90s", "30m", "2h", "1h30m" or a number."""
    if not isinstance(value, str):
        return value
    if not _DURATION.fullmatch(value):
        raise ValueError('write a duration as "90s", "30m", "2h" or "1h30m", or as a number of seconds')
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in re.findall(r"(\d+(?:\.\d+)?)([smhd])", value))


_SECONDS = Field(gt=0, le=366 * 86400)
_TEXT = Field(pattern=f"^{_DURATION.pattern}$")
DurationSeconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=Annotated[float, _SECONDS] | Annotated[str, _TEXT]),
    _SECONDS,
]


class Budget(BaseModel):
    """Limits on what a study spends; the first one reached ends it. What is left out is not limited."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    trials: int | None = Field(default=None, ge=1, le=100_000, description="Most trials the study starts.", examples=[30])
    epochs: float | None = Field(
        default=None,
        gt=0,
        description="Most reports over all trials together: an epoch each, unless the trainer's `report_every` says otherwise.",
        examples=[90],
    )
    wall_clock: DurationSeconds | None = Field(
        default=None,
        description='Longest time since the study first ran: "90s", "30m", "2h" or seconds.',
        examples=["2h"],
    )
    gpu_hours: float | None = Field(default=None, gt=0, description="Most hours of GPU over all trials together.", examples=[8])
    target: float | None = Field(
        default=None, description="The study ends as soon as a trial's objective is this good.", examples=[0.94]
    )

    @property
    def is_bounded(self) -> bool:
        """Whether some limit ends the study whatever its trials report."""
        return any(limit is not None for limit in (self.trials, self.epochs, self.wall_clock, self.gpu_hours))


@dataclass(frozen=True)
class Spending:
    """What a study has spent so far, or is committed to spend by the attempts that run now; `epochs` counts reports."""

    trials: int
    epochs: float
    wall_clock_seconds: float
    gpu_seconds: float


def time_is_up(budget: Budget, spent: Spending) -> bool:
    """Whether running trials must end too, because wall-clock or GPU time is spent."""
    if budget.wall_clock is not None and spent.wall_clock_seconds >= budget.wall_clock:
        return True
    return budget.gpu_hours is not None and spent.gpu_seconds >= budget.gpu_hours * 3600


def may_train(budget: Budget, spent: Spending, reports: float) -> bool:
    """Whether an attempt over so many more reports may start; `spent.epochs` includes what running attempts will use."""
    if time_is_up(budget, spent):
        return False
    return budget.epochs is None or spent.epochs + reports <= budget.epochs + 1e-9


def may_add_trial(budget: Budget, spent: Spending) -> bool:
    """Whether one more trial may be proposed."""
    return budget.trials is None or spent.trials < budget.trials
