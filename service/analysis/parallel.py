"""The picture of all trials across all parameters: parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from service.analysis.scales import Analysis, Axis, dark_is_better, height, limits, ticks, varied_by_importance
from service.analysis.style import INK, ORANGE, cut, page, titled

_AXES = 12
_ABSENT = -0.13
"""Where a line runs whose trial does not have the parameter."""
_STIR = 0.35
"""Of the room that a choice has: without it, hundreds of lines would meet in one point."""


def parallel_coordinates(analysis: Analysis) -> Figure | None:
    """A line for each trial across the most important parameters, to its objective at the right."""
    lines, shown = analysis["parallel_coordinates"]["lines"], varied_by_importance(analysis)[:_AXES]
    if not lines or not shown:
        return None
    objectives = [line["objective"] for line in lines]
    low, high, note = limits(objectives, analysis["direction"])
    ends = np.clip((np.array(objectives) - low) / (high - low), 0, 1)
    heights = np.array([[_height(axis, line) for axis in shown] for line in lines])
    heights = np.column_stack([heights, ends])
    figure, axes = page(2.6 + 1.75 * len(shown), 5.6)
    _draw(axes, heights, objectives, analysis, Normalize(low, high))
    for place, axis in enumerate(shown):
        _ruler(axes, place, ticks(axis), cut(axis["parameter"], 18), is_absent=bool((heights[:, place] == _ABSENT).any()))
    objective: Axis = {"choices": (), "log": False, "kind": "float", "low": low, "high": high}
    _ruler(axes, len(shown), ticks(objective), cut(analysis["metric"], 24), is_absent=False)
    axes.plot(range(len(shown) + 1), heights[0], color=ORANGE, linewidth=2.6, label=f"best: trial {lines[0]['trial']}", zorder=3)
    axes.set_xlim(-0.1, len(shown) + 0.55)
    axes.set_ylim(_ABSENT - 0.05, 1.13)
    axes.set_axis_off()
    titled(axes, _title(analysis["parallel_coordinates"], len(shown)))
    if note:
        axes.text(0, _ABSENT - 0.06, note, fontsize=9, va="top")
    return figure


def _draw(axes: Axes, heights: Any, objectives: Sequence[float], analysis: Analysis, colors: Normalize) -> None:
    """All lines, the better ones above the others."""
    steps = np.broadcast_to(np.arange(heights.shape[1]), heights.shape)
    paths = list(np.stack([steps, heights], axis=-1)[::-1])
    alpha = 0.75 if len(paths) <= 100 else 0.45  # noqa: PLR2004 - hundreds of lines make a solid area
    lines = LineCollection(paths, cmap=dark_is_better(analysis["direction"]), norm=colors, linewidths=1.1, alpha=alpha)
    lines.set_array(np.array(objectives[::-1]))
    axes.add_collection(lines)


def _height(axis: Axis, line: Mapping[str, Any]) -> float:
    if axis["parameter"] not in line["values"]:
        return _ABSENT
    stirred = ((line["trial"] * 0.618034) % 1 - 0.5) * _STIR / len(axis["choices"]) if axis["choices"] else 0.0
    return height(axis, line["values"][axis["parameter"]]) + stirred


def _ruler(axes: Axes, place: int, marks: Sequence[tuple[float, str]], name: str, *, is_absent: bool) -> None:
    axes.plot([place, place], [0, 1], color=INK, linewidth=1.2, zorder=4)
    for at, text in [*marks, *([(_ABSENT, "not set")] if is_absent else [])]:
        axes.plot([place, place + 0.03], [at, at], color=INK, linewidth=1.2, zorder=4)
        box = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.8}
        axes.text(place + 0.05, at, text, fontsize=8.5, va="center", bbox=box, zorder=5)
    axes.text(place, 1.05, name, fontsize=9.5, va="bottom", weight="bold", color=INK)


def _title(drawn: Mapping[str, Any], shown: int) -> str:
    lines, total, left_out = len(drawn["lines"]), drawn["total"], len(drawn["axes"]) - shown
    trials = f"{lines} trials" if lines == total else f"{lines} of {total} trials"
    rest = f", {left_out} parameter{'s' if left_out > 1 else ''} left out" if left_out else ""
    return f"Trials across the parameters ({trials}{rest})"
