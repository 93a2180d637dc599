"""What a study has learned, as tables for people."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from service.api.analysis_schemas import HistoryPointView, ImportanceView, StudyAnalysisView
from service.api.schemas import AnalysisView
from service.cli.layout import Rows, pairs
from service.cli.words import duration, number, some

_SHOWN = 10
"""Of a trial's mistakes, classes and the like."""


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


def mistakes_table(found: AnalysisView) -> RenderableType:
    """What a trainer found of its model: numbers as pairs, and the first of each list of things."""
    numbers: list[tuple[str, str]] = [("trial", f"{found.trial} of {found.study_id}"), ("report", str(found.report))]
    parts: list[RenderableType] = []
    for name, value in found.analysis.items():
        match value:
            case Mapping():
                numbers += [(f"{name}.{key}", _brief(item)) for key, item in value.items()]
            case [Mapping(), *_]:
                parts += ["", _things(name, value)]
            case _:
                numbers += [(name, _brief(value))]
    return Group(pairs(numbers), *parts)


def _things(name: str, things: Sequence[Mapping[str, Any]]) -> RenderableType:
    keys = list(dict.fromkeys(key for one in things for key in one))
    rows = Rows(*keys, flow=keys, drop=[*reversed(keys[1:])])
    for one in things[:_SHOWN]:
        rows.add_row(*(_brief(one[key]) if key in one else "" for key in keys))
    more = f", the first {_SHOWN}" if len(things) > _SHOWN else ""
    return Group(Text(f"{name}: {len(things)}{more}"), rows)


def _brief(value: Any) -> str:
    match value:
        case None:
            return "-"
        case float():
            return number(value)
        case [] | [Mapping() | [*_], *_]:
            return f"{len(value)} entries"
        case [*_]:
            return some([str(one) for one in value])
        case Mapping():
            return ", ".join(f"{key} {_brief(item)}" for key, item in value.items())
        case _:
            return str(value)


def _rests_on(importance: ImportanceView) -> str:
    return importance.note or f"from {importance.trials} trials, compared at report {importance.report}"


def _incumbents(analysis: StudyAnalysisView) -> list[HistoryPointView]:
    """The trials at which the best changed."""
    changes = [after for before, after in pairwise(analysis.history) if after.incumbent_trial != before.incumbent_trial]
    return [*analysis.history[:1], *changes]
