"""Previews of studies, made by the code that leads them: in a process of its own, as that code loads models."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from service.analysis.children import Turn, run_module
from service.domain.definition import StudyDefinition
from service.domain.history import PriorTrial
from service.domain.preview import PlannedBracket, PlannedTrial, Preview, Previewer

_SECONDS = 40.0


def preview(definition: StudyDefinition, prior: Sequence[PriorTrial], seconds_per_report: float | None) -> Preview:
    """What a study would do, by a child process. Raises AnalysisFailed, AnalysisTimedOut."""
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


class Previews:
    """The port `Previewer`: one child at a time, for all who ask."""

    def __init__(self, foresee: Previewer = preview, turn: Turn | None = None) -> None:
        self._foresee = foresee
        self._turn = turn or Turn("previewed")

    def __call__(self, definition: StudyDefinition, prior: Sequence[PriorTrial], seconds_per_report: float | None) -> Preview:
        with self._turn.soon():
            return self._foresee(definition, prior, seconds_per_report)
