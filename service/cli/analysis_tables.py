"""What a study has learned, as tables for people."""

from itertools import pairwise

from rich.console import Group, RenderableType

from service.api.analysis_schemas import HistoryPointView, ImportanceView, StudyAnalysisView
from service.cli.layout import Rows, pairs
from service.cli.words import duration, number


def analysis_table(analysis: StudyAnalysisView) -> RenderableType:
    """Which parameters matter, and the trials that were the best of their time."""
    left_out = ", ".join(f"{count} {state}" for state, count in analysis.excluded.items())
    head = pairs(
        [
            ("study", analysis.study_id),
            ("objective", f"{analysis.direction} {analysis.metric}"),
            ("trials", f"{analysis.scored} of {analysis.trials} have a value"),
            ("left out", left_out or None),
            ("importance", _rests_on(analysis.importance)),
        ]
    )
    matter = Rows("parameter", ">importance", "note", flow=("note",))
    for one in analysis.importance.parameters:
        share = "-" if one.importance is None else f"{one.importance:.1%}"
        matter.add_row(one.parameter, share, one.note or "")
    best = Rows(">trials", ">reports", ">after", ">best trial", f">{analysis.metric}")
    for point in _incumbents(analysis):
        spent = (str(point.ended), str(point.reports), duration(point.seconds))
        best.add_row(*spent, str(point.incumbent_trial), number(point.incumbent))
    return Group(head, "", matter, "", best)


def _rests_on(importance: ImportanceView) -> str:
    return importance.note or f"from {importance.trials} trials, compared at report {importance.report}"


def _incumbents(analysis: StudyAnalysisView) -> list[HistoryPointView]:
    """The trials at which the best changed."""
    changes = [after for before, after in pairwise(analysis.history) if after.incumbent_trial != before.incumbent_trial]
    return [*analysis.history[:1], *changes]
