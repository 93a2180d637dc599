"""What makes one trial better than another."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_OBJECTIVES = 4
"""Of more, nearly every trial is on the front."""


class Objective(BaseModel):
    """What makes one trial better than another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    metric: str = Field(description="One of the metrics the trainer reports.", examples=["validation/accuracy"])
    direction: Literal["maximize", "minimize"] = Field(description="Whether more or less of it is better.", examples=["maximize"])

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is strictly better than `other`."""
        return one > other if self.direction == "maximize" else one < other

    def sort_key(self, value: float) -> float:
        """A number that is smaller for better values; of such a number, the value."""
        return -value if self.direction == "maximize" else value

    def reaches(self, value: float, target: float) -> bool:
        """Whether `value` is at least as good as `target`."""
        return value >= target if self.direction == "maximize" else value <= target


def complete_objective(document: Any) -> bool:
    """Of several `objectives` the first is `objective` too, and added as such; whether they stand in its place."""
    if not isinstance(document, dict) or "objectives" not in document or "objective" in document:
        return False
    objectives = document["objectives"]
    if isinstance(objectives, list) and objectives:
        document["objective"] = objectives[0]
    return True
