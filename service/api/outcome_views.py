"""What the API answers about outcomes that a trial breaks, as the server writes it and the Python client reads it."""

import math
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from service.domain.outcomes import Outcome, point_of
from service.domain.trial import Report


class BrokenOutcomeView(BaseModel):
    """An outcome that a trial breaks, at the report of it that comes nearest to keeping all."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    outcome: str = Field(description="The outcome.", examples=["model/megabytes <= 100"])
    report: int = Field(description="The number of that report.", examples=[1])
    value: float | None = Field(description="What it measured; null where that is not a finite number.", examples=[120.5])
    by: float | None = Field(description="By how much that breaks it, in the metric's unit.", examples=[20.5])


def broken_outcomes(outcomes: Sequence[Outcome], reports: Sequence[Report]) -> list[BrokenOutcomeView]:
    """What the nearest report breaks; nothing where a report keeps all outcomes, or before the first one."""
    points = [point_of((), outcomes, report.metrics) for report in reports]
    if not points:
        return []
    nearest = min(range(len(points)), key=lambda place: points[place].violation)
    return [
        BrokenOutcomeView(
            outcome=str(outcome), report=reports[nearest].number, value=value if math.isfinite(value) else None,
            by=outcome.excess(value) if math.isfinite(value) else None,
        )
        for outcome, value in zip(outcomes, points[nearest].measured, strict=True)
        if outcome.excess(value)
    ]  # fmt: skip
