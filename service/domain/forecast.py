"""How a study is expected to end, and how well that was foretold once it has."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median, median_low
from typing import Any

_ROUNDED = 1e-3
SHARE = 0.8
"""Of the simulated courses, how many lie within a band."""


@dataclass(frozen=True)
class Band:
    """What is expected, and the band that it lies in with a probability of 80 %, if things go on as in the simulated courses."""

    low: float
    expected: float
    high: float

    @staticmethod
    def of(values: Sequence[float]) -> "Band":
        """The band of these values, at least one."""
        ordered = sorted(values)
        return Band(_quantile(ordered, (1 - SHARE) / 2), median(ordered), _quantile(ordered, (1 + SHARE) / 2))

    @staticmethod
    def of_counts(values: Sequence[int]) -> "Band":
        """The band of these counts, at least one, in whole numbers."""
        band = Band.of(values)
        return Band(math.floor(band.low), median_low(values), math.ceil(band.high))

    def holds(self, value: float) -> bool:
        """Whether the value, which is not negative, lies within, but for a thousandth."""
        return self.low <= value * (1 + _ROUNDED) and value * (1 - _ROUNDED) <= self.high

    def not_before(self, value: float) -> "Band":
        """The band, as far as it does not lie below."""
        return Band(max(value, self.low), max(value, self.expected), max(value, self.high))

    def times(self, factor: float) -> "Band":
        """The band of so many times what this one is of."""
        return Band(self.low * factor, self.expected * factor, self.high * factor)


@dataclass(frozen=True)
class Course:
    """One simulated course of a study, or what really happened: all of it, what was there before too.

    `seconds` is the time since it first ran, pauses aside. `kept` is how many exported models are left at its end.
    """

    seconds: float
    gpu_seconds: float
    trials: int
    reports: int
    kept: int


@dataclass(frozen=True)
class Forecast:
    """A study's end as foretold at a moment, when it had run for `elapsed_seconds` and so many of its trials had `ended`.

    All bands are of the whole study. `bytes` is what the exported models that are kept will take; None while none was seen.
    `slots` is how many trials run side by side, `courses` how many courses were simulated.
    """

    at: datetime
    elapsed_seconds: float
    ended: int
    slots: int
    courses: int
    seconds: Band
    gpu_seconds: Band
    trials: Band
    reports: Band
    bytes: Band | None
    notes: tuple[str, ...] = ()

    @staticmethod
    def of(  # noqa: PLR0913 - where the study stands, and what comes of it
        courses: Sequence[Course],
        *,
        at: datetime,
        elapsed_seconds: float,
        ended: int,
        slots: int,
        export_bytes: float | None,
        notes: Sequence[str] = (),
    ) -> "Forecast":
        """The forecast that these courses make."""
        kept = Band.of_counts([course.kept for course in courses])
        return Forecast(
            at=at, elapsed_seconds=elapsed_seconds, ended=ended, slots=slots, courses=len(courses),
            seconds=Band.of([course.seconds for course in courses]),
            gpu_seconds=Band.of([course.gpu_seconds for course in courses]),
            trials=Band.of_counts([course.trials for course in courses]),
            reports=Band.of_counts([course.reports for course in courses]),
            bytes=None if export_bytes is None else kept.times(export_bytes),
            notes=tuple(notes),
        )  # fmt: skip

    def later(self, at: datetime, elapsed_seconds: float) -> "Forecast":
        """The same forecast at a later moment, when what it took for possible may be over."""
        return replace(self, at=at, elapsed_seconds=elapsed_seconds, seconds=self.seconds.not_before(elapsed_seconds))

    def ends_at(self, seconds: float) -> datetime:
        """When the study ends that has run for so many seconds by then, if it is never paused."""
        return self.at + timedelta(seconds=max(0.0, seconds - self.elapsed_seconds))

    @staticmethod
    def from_json(stored: Mapping[str, Any]) -> "Forecast":
        """What was stored of one."""
        bands = {name: stored[name] and Band(**stored[name]) for name in ("seconds", "gpu_seconds", "trials", "reports", "bytes")}
        return Forecast(**{**stored, **bands, "at": datetime.fromisoformat(stored["at"]), "notes": tuple(stored["notes"])})


@dataclass(frozen=True)
class Score:
    """How one number was foretold: `error` is by how much too high, as a share of what came; None where that is 0."""

    expected: float
    happened: float
    error: float | None
    is_inside: bool


def scored(forecast: Forecast, happened: Course, happened_bytes: float | None) -> Mapping[str, Score]:
    """How well each number was foretold."""
    pairs: list[tuple[str, Band | None, float | None]] = [
        ("seconds", forecast.seconds, happened.seconds),
        ("gpu_seconds", forecast.gpu_seconds, happened.gpu_seconds),
        ("trials", forecast.trials, happened.trials),
        ("reports", forecast.reports, happened.reports),
        ("bytes", forecast.bytes, happened_bytes),
    ]
    return {name: _score(band, value) for name, band, value in pairs if band is not None and value is not None}


def is_due(ended: int, known: Sequence[int]) -> bool:
    """Whether to foretell now: at the 1st, 2nd, 4th, 8th ... trial that ends. `known` are those it was done after."""
    return ended > 0 and 2 ** int(math.log2(ended)) > max(known, default=0)


def _score(band: Band, value: float) -> Score:
    error = (band.expected - value) / value if value else None
    return Score(band.expected, value, error, band.holds(value))


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Where another one like these stays below with this probability (Weibull 1939): of few, further out than theirs alone."""
    place = min(len(ordered) - 1, max(0.0, share * (len(ordered) + 1) - 1))
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


Forecaster = Callable[[str], Forecast]
"""Foretells the end of a study that has not ended. Raises StudyNotFound, TooFewTrials, NotReady, AnalysisFailed,
AnalysisTimedOut.
"""
