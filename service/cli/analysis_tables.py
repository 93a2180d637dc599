"""What a study has learned, as tables for people."""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Group, RenderableType
from rich.table import Table

from service.api.analysis_schemas import HistoryPointView, ImportanceView, StudyAnalysisView
from service.cli.words import duration, number


def analysis_table(analysis: StudyAnalysisView) -> RenderableType:
    """Which parameters matter, and the trials that were the best of their time."""
    left_out = ", ".join(f"{count} {state}" for state, count in analysis.excluded.items())
    head = _pairs(
        [
            ("study", analysis.study_id),
            ("objective", f"{analysis.direction} {analysis.metric}"),
            ("trials", f"{analysis.scored} of {analysis.trials} have a value"),
            ("left out", left_out or None),
            ("importance", _rests_on(analysis.importance)),
        ]
    )
    matter = _table("parameter", ">importance", "")
    for one in analysis.importance.parameters:
        share = "-" if one.importance is None else f"{one.importance:.1%}"
        matter.add_row(one.parameter, share, one.note or "")
    best = _table(">trials", ">reports", ">after", ">best trial", f">{analysis.metric}")
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


def _table(*headings: str) -> Table:
    """A table without lines; a heading that starts with > is aligned right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left", no_wrap=True)
    return table


def _pairs(rows: Sequence[tuple[str, str | None]]) -> Table:
    """Names and values; what has no value is left out."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, value)
    return table
