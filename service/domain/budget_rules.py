"""What a budget asks of the definition it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import Violation

if TYPE_CHECKING:
    from service.domain.definition import StudyDefinition


def budget_violations(study: StudyDefinition) -> list[Violation]:
    """What is wrong with limits that can mean nothing in this study."""
    found = []
    if study.budget.cost is not None and not study.resources.gpus:
        detail = "counts hours of GPU, and no trial holds one: set `resources.gpus_per_trial`, or limit `wall_clock` or `epochs`"
        found.append(Violation("/budget/cost", detail))
    if study.budget.no_improvement is not None and len(study.objectives) > 1:
        detail = "asks for one best trial, and of several objectives there is none: leave it out"
        found.append(Violation("/budget/no_improvement", detail))
    return found
