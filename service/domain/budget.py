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


_TINY = 1e-9
_SECONDS = Field(gt=0, le=366 * 86400)
_TEXT = Field(pattern=f"^{_DURATION.pattern}$")
DurationSeconds = Annotated[
    float,
    BeforeValidator(_seconds, json_schema_input_type=Annotated[float, _SECONDS] | Annotated[str, _TEXT]),
    _SECONDS,
]


class Cost(BaseModel):
    """A limit on money: hours of GPU at their price, in whatever currency both are written."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    limit: float = Field(gt=0, description="The most that the study may cost.", examples=[25])
    per_gpu_hour: float = Field(gt=0, description="What an hour of one GPU costs.", examples=[2.5])


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
        description='Longest time since the study first ran, pauses aside: "90s", "30m", "2h" or seconds.',
        examples=["2h"],
    )
    gpu_hours: float | None = Field(default=None, gt=0, description="Most hours of GPU over all trials together.", examples=[8])
    cost: Cost | None = Field(
        default=None,
        description="Most money over all trials together, by the price of a GPU-hour.",
        examples=[{"limit": 25, "per_gpu_hour": 2.5}],
    )
    target: float | None = Field(
        default=None, description="The study ends as soon as a trial's objective is this good.", examples=[0.94]
    )
    no_improvement: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="The study ends when so many trials in a row were trained to their end and none was better than the best "
        "before. Trials that were pruned, failed or stopped do not count, and none of earlier studies does.",
        examples=[10],
    )

    @property
    def is_bounded(self) -> bool:
        """Whether some limit ends the study whatever its trials report."""
        return any(limit is not None for limit in (self.trials, self.epochs, self.wall_clock, self.gpu_seconds))

    @property
    def is_timed(self) -> bool:
        """Whether some limit is one of time."""
        return self.wall_clock is not None or self.gpu_seconds is not None

    @property
    def gpu_seconds(self) -> float | None:
        """The most seconds of GPU, by `gpu_hours` or by `cost`, whichever is less."""
        hours = [] if self.gpu_hours is None else [self.gpu_hours]
        if self.cost is not None:
            hours.append(self.cost.limit / self.cost.per_gpu_hour)
        return 3600 * min(hours) if hours else None

    def cost_of(self, gpu_seconds: float) -> float | None:
        """What so much GPU time costs; None where no price is known."""
        return None if self.cost is None else gpu_seconds / 3600 * self.cost.per_gpu_hour


@dataclass(frozen=True)
class Spending:
    """What a study has spent so far, or is committed to spend by the attempts that run now; `epochs` counts reports.

    `gpu_seconds` is what was used. On top of it `reserved_gpu_seconds` is what live attempts are expected to use to their ends,
    and `next_gpu_seconds` what the next reports of those that run may take. `report_seconds` is the mean time of a report,
    `report_gpu_seconds` that in seconds of GPU and `longest_gpu_seconds` the longest one. These are 0 before the first report,
    and where no limit asks for them.
    """

    trials: int
    epochs: float
    wall_clock_seconds: float
    gpu_seconds: float
    reserved_gpu_seconds: float = 0.0
    next_gpu_seconds: float = 0.0
    report_seconds: float = 0.0
    report_gpu_seconds: float = 0.0
    longest_gpu_seconds: float = 0.0


def time_is_up(budget: Budget, spent: Spending) -> bool:
    """Whether running trials must end too: wall-clock or GPU time is spent, or does not pay the next report of all of them."""
    if budget.wall_clock is not None and spent.wall_clock_seconds >= budget.wall_clock:
        return True
    most = budget.gpu_seconds
    return most is not None and (spent.gpu_seconds >= most or spent.gpu_seconds + spent.next_gpu_seconds > most + _TINY)


def may_begin(budget: Budget, spent: Spending) -> bool:
    """Whether an attempt may start at all: what is left of the time pays one report of it, beside those of all that run."""
    if time_is_up(budget, spent):
        return False
    if budget.wall_clock is not None and spent.wall_clock_seconds + spent.report_seconds > budget.wall_clock + _TINY:
        return False
    most = budget.gpu_seconds
    return most is None or spent.gpu_seconds + spent.next_gpu_seconds + spent.longest_gpu_seconds <= most + _TINY


def may_train(budget: Budget, spent: Spending, reports: float) -> bool:
    """Whether an attempt over so many more reports may start: all it will use is left beside what live attempts will use."""
    if not may_begin(budget, spent):
        return False
    most = budget.gpu_seconds
    if most is not None and spent.gpu_seconds + spent.reserved_gpu_seconds + reports * spent.report_gpu_seconds > most + _TINY:
        return False
    return budget.epochs is None or spent.epochs + reports <= budget.epochs + _TINY


def may_add_trial(budget: Budget, spent: Spending) -> bool:
    """Whether one more trial may be proposed."""
    return budget.trials is None or spent.trials < budget.trials
