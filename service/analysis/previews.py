"""Previews of studies, made by the code that leads them: in a process of its own, as that code loads models."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from service.analysis.children import run_module
from service.domain.definition import StudyDefinition
from service.domain.history import PriorTrial
from service.domain.preview import PlannedBracket, PlannedTrial, Preview

_SECONDS = 40.0


def preview(definition: StudyDefinition, prior: Sequence[PriorTrial], seconds_per_report: float | None) -> Preview:
    """The port `Previewer`. Raises AnalysisFailed, AnalysisTimedOut."""
    request = {
        "definition": definition.model_dump(mode="json"),
        "prior": [asdict(one) for one in prior],
        "seconds_per_report": seconds_per_report,
    }
    answer = run_module(
        "service.search.preview", [], given=json.dumps(request).encode(), seconds=_SECONDS, doing="Previewing the study"
    )
    found = json.loads(answer)
    return Preview(
        **{
            **found,
            "brackets": [PlannedBracket(one["index"], tuple(one["rungs"]), tuple(one["sizes"])) for one in found["brackets"]],
            "configurations": [PlannedTrial(**one) for one in found["configurations"]],
        }
    )
