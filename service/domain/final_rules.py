"""What a final asks of the definition it stands in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import Violation
from service.domain.strategy import PbtStrategy

if TYPE_CHECKING:
    from service.domain.definition import StudyDefinition


def final_violations(study: StudyDefinition) -> list[Violation]:
    """What is wrong with the final of a definition whose space is sound."""
    if study.final is None:
        return []
    found = []
    if "seed" in study.space:
        detail = "`final` trains the best again under seeds of its own: take `seed` out of the space, or `final` out of the study"
        found.append(Violation("/space/seed", detail))
    if len(study.objectives) > 1:
        found.append(Violation("/final", "finds one winner, which several objectives do not have: leave it out"))
    if isinstance(study.plan.strategy, PbtStrategy):
        found.append(Violation("/final", "trains one configuration again, and a population's change as they train: leave it out"))
    return found
