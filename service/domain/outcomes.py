"""Constraints on outcomes: what a report must measure to count. They are known only once a trial has been trained."""

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from service.domain.objective import Objective
from trainers.configs import CONFIGS, MEASURES

MODEL_PREFIX = "model/"
"""Metrics that are measured once in a trial and do not change."""

OUTCOME_PATTERN = r"^\s*(\S+)\s*(<=|>=)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*$"


@dataclass(frozen=True)
class Outcome:
    """One limit on a metric."""

    metric: str
    relation: Literal["<=", ">="]
    limit: float

    def __str__(self) -> str:
        return f"{self.metric} {self.relation} {self.limit:.12g}"

    def excess(self, value: float) -> float:
        """By how much `value` breaks the limit, in the metric's unit: 0 where it keeps it, infinite where it is no number."""
        if not math.isfinite(value):
            return math.inf
        return max(0.0, value - self.limit if self.relation == "<=" else self.limit - value)

    def said(self, value: float) -> str:
        """That and by how much `value` breaks the limit."""
        if not math.isfinite(value):
            return f"`{self.metric}` is no finite number"
        asked = f"above the {self.limit:.6g} allowed" if self.relation == "<=" else f"below the {self.limit:.6g} asked for"
        return f"`{self.metric}` is {value:.6g}, {self.excess(value):.4g} {asked}"


def outcome_of(text: str) -> Outcome | None:
    """The limit that a text such as "model/megabytes <= 100" sets; None where it sets none."""
    match = re.match(OUTCOME_PATTERN, text)
    if match is None or not math.isfinite(float(match[3])):
        return None
    return Outcome(match[1], "<=" if match[2] == "<=" else ">=", float(match[3]))


@dataclass(frozen=True)
class Point:
    """What one report measured: the value of each objective, and of each outcome's metric.

    `violation` is by how much the outcomes are broken together, each in parts of its limit; 0 where the report counts.
    """

    objectives: tuple[float, ...]
    measured: tuple[float, ...] = ()
    violation: float = 0.0

    @staticmethod
    def unknown() -> "Point":
        """What is not known of a report: it does not count."""
        return Point((), (), math.inf)

    @property
    def counts(self) -> bool:
        """Whether it keeps all outcomes."""
        return self.violation == 0


def point_of(objectives: Sequence[Objective], outcomes: Sequence[Outcome], metrics: Mapping[str, float]) -> Point:
    """The point of a report with these metrics."""
    measured = tuple(metrics.get(outcome.metric, math.nan) for outcome in outcomes)
    return Point(
        objectives=tuple(metrics.get(objective.metric, math.nan) for objective in objectives),
        measured=measured,
        violation=sum(
            outcome.excess(value) / (abs(outcome.limit) or 1.0) for outcome, value in zip(outcomes, measured, strict=True)
        ),
    )


def add_measured(document: Any) -> None:
    """The trainer measures what an objective or an outcome names, whether `trainer.measure` says so or not."""
    trainer = document.get("trainer") if isinstance(document, dict) else None
    if not isinstance(trainer, dict) or "measure" not in _keys_of(trainer.get("kind")):
        return
    named = _metrics_named(document)
    measured = trainer.get("measure", [])
    missing = [one for one in MEASURES if f"{MODEL_PREFIX}{one}" in named and isinstance(measured, list) and one not in measured]
    if missing:
        trainer["measure"] = [*measured, *missing]


def _keys_of(kind: Any) -> Collection[str]:
    config = CONFIGS.get(str(kind))
    return () if config is None else config.model_fields


def _metrics_named(document: dict[str, Any]) -> set[str]:
    objectives, outcomes = document.get("objectives"), document.get("outcomes")
    goals = [document.get("objective"), *(objectives if isinstance(objectives, list) else [])]
    limits = [outcome_of(one) for one in outcomes if isinstance(one, str)] if isinstance(outcomes, list) else []
    return {str(goal.get("metric")) for goal in goals if isinstance(goal, dict)} | {limit.metric for limit in limits if limit}


def broken_said(outcomes: Sequence[Outcome], point: Point, prefix: str = "") -> str | None:
    """Which outcomes the point breaks and by how much, of those whose metric begins with `prefix`; None where it breaks none."""
    said = [
        outcome.said(value)
        for outcome, value in zip(outcomes, point.measured, strict=True)
        if outcome.metric.startswith(prefix) and outcome.excess(value)
    ]
    return "; ".join(said) or None


def contradiction(outcomes: Iterable[Outcome]) -> tuple[int, int] | None:
    """The places of two outcomes that nothing can keep together."""
    listed = list(enumerate(outcomes))
    for place, low in listed:
        for other, high in listed:
            if low.metric == high.metric and (low.relation, high.relation) == (">=", "<=") and low.limit > high.limit:
                return min(place, other), max(place, other)
    return None
