"""What a study's search has learned, as a value: all of it bounded in size, however many trials there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Figure = Literal["importance", "history", "learning_curves", "parallel_coordinates", "slices"]
"""The pictures there can be of an analysis."""

Place = float | str
"""A parameter's value as it is drawn: a number, or of a parameter with choices the JSON text of one."""


@dataclass(frozen=True)
class ParameterImportance:
    """How much of the objective's variance one parameter explains alone; None when there is too little to tell."""

    parameter: str
    importance: float | None
    note: str | None = None


@dataclass(frozen=True)
class Importance:
    """Shares of all parameters, the largest first, from `trials` trials, all compared at report `report`."""

    parameters: Sequence[ParameterImportance]
    trials: int
    report: int | None
    note: str | None = None


@dataclass(frozen=True)
class HistoryPoint:
    """A trial that ended with a value that counts, and the best one so far. `reports` and `seconds` were spent until then."""

    trial: int
    objective: float
    incumbent: float
    incumbent_trial: int
    ended: int
    """How many trials had ended with a value that counts, one of a report that keeps the outcomes; this one included."""
    reports: int
    """Those of all trials that had ended."""
    seconds: float


@dataclass(frozen=True)
class Curve:
    """The objective of a trial at some of its reports, the first and the last among them; None where it is no finite number."""

    trial: int
    state: str
    reports: Sequence[int]
    objectives: Sequence[float | None]


@dataclass(frozen=True)
class LearningCurves:
    """Curves of some of `total` trials, the best first."""

    total: int
    curves: Sequence[Curve]


@dataclass(frozen=True)
class Axis:
    """What a parameter may be: numbers from `low` to `high`, or `choices`, each as JSON text."""

    parameter: str
    kind: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    choices: Sequence[str] = ()


@dataclass(frozen=True)
class Line:
    """A trial across all axes; a parameter that it does not have is left out."""

    trial: int
    objective: float
    values: Mapping[str, Place]


@dataclass(frozen=True)
class ParallelCoordinates:
    """Some of `total` trials across all parameters, the best first."""

    total: int
    axes: Sequence[Axis]
    lines: Sequence[Line]


@dataclass(frozen=True)
class SlicePoint:
    """A trial that has the parameter: its value there, and the best objective of its `reports` reports."""

    trial: int
    value: Place
    objective: float
    reports: int


@dataclass(frozen=True)
class Slice:
    """One parameter against the objective."""

    parameter: str
    points: Sequence[SlicePoint]


@dataclass(frozen=True)
class StudyAnalysis:
    """What the trials so far tell.

    Of `trials` trials `scored` have a value; `excluded` counts, by state, those that ended without one. Lists of trials hold the
    best ones and an even spread, by rank, of the others.
    """

    study_id: str
    metric: str
    direction: Literal["maximize", "minimize"]
    trials: int
    scored: int
    excluded: Mapping[str, int]
    importance: Importance
    history: Sequence[HistoryPoint]
    learning_curves: LearningCurves
    parallel_coordinates: ParallelCoordinates
    slices: Sequence[Slice]


class StudyAnalyst(Protocol):
    """Analyses studies in a child process, one at a time, and remembers what it made."""

    def analysis(self, study_id: str) -> StudyAnalysis:
        """Of the study as it is now. Raises StudyNotFound, NotReady, AnalysisFailed, AnalysisTimedOut."""
        ...

    def figure(self, study_id: str, figure: Figure) -> bytes:
        """A PNG. Raises NotFound while there is nothing to draw, and what `analysis` raises."""
        ...
