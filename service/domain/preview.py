"""What a study would do, foreseen without training anything."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces import Configuration
from service.domain.definition import StudyDefinition
from service.domain.history import PriorTrial


@dataclass(frozen=True)
class PlannedBracket:
    """A ladder of rungs: so many trials are trained to each of these reports."""

    index: int
    rungs: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class PlannedTrial:
    """One of the first configurations, and why it was proposed, as a sentence."""

    parameters: Configuration
    why: str


@dataclass(frozen=True)
class Preview:
    """What the search itself would do.

    `configurations` are the first that start while no trial has reported. `trials`, `reports` and `final_runs` are how many it
    comes to, `seconds` how long that takes with `max_concurrent_trials` side by side; None where that cannot be said, of which
    `notes` tell. `grid_size` and `space_size` are None where there is no end of configurations.
    """

    strategy: Mapping[str, Any]
    reason: str | None
    brackets: Sequence[PlannedBracket]
    configurations: Sequence[PlannedTrial]
    grid_size: int | None
    space_size: int | None
    trials: int | None
    reports: int | None
    final_runs: int | None
    seconds: float | None
    notes: Sequence[str] = ()


Previewer = Callable[[StudyDefinition, Sequence[PriorTrial], float | None], Preview]
"""Foresees a study, given the trials that it starts from and the seconds of a report, where they are known.

Raises NotReady, AnalysisFailed, AnalysisTimedOut.
"""
