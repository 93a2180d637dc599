"""Pictures of what a study's search has learned, drawn in a process of their own.

python -m service.analysis.study_figures FOLDER < ANALYSIS.json
"""

import argparse
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from service.analysis.parallel import parallel_coordinates
from service.analysis.scales import Analysis, Axis, dark_is_better, height, ticks, varied_by_importance, zoom
from service.analysis.style import BLUE, GREY, INK, ORANGE, STYLE, cut, page, png, titled

Draw = Callable[[Analysis], Figure | None]

_LONGEST_SECONDS = 90
_BARS = 25
_SLICES = 12
_ACROSS = 4
_ROOM = 24
"""Characters of choices that fit side by side."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="service.analysis.study_figures")
    parser.add_argument("folder", type=Path, help="folder for the pictures")
    given = parser.parse_args(arguments)
    for name, picture in draw(json.load(sys.stdin)).items():
        (given.folder / name).write_bytes(picture)
    return 0


def draw(analysis: Analysis) -> Mapping[str, bytes]:
    """A PNG under its file name for each part of the analysis that can be drawn."""
    drawn = {}
    with mpl.rc_context(STYLE):
        for name, picture in _PICTURES.items():
            figure = picture(analysis)
            if figure is not None:
                drawn[f"{name}.png"] = png(figure)
    return drawn


def importance(analysis: Analysis) -> Figure | None:
    """A bar for each parameter."""
    measured = analysis["importance"]
    shown = [one for one in measured["parameters"] if one["importance"] is not None][:_BARS]
    if not shown:
        return None
    figure, axes = page(8.0, 1.5 + 0.36 * len(shown))
    bars = axes.barh(range(len(shown)), [one["importance"] for one in shown], color=BLUE, height=0.62)
    axes.bar_label(bars, [f"{one['importance']:.1%}" for one in shown], padding=4)
    axes.set_yticks(range(len(shown)), [cut(one["parameter"], 32) for one in shown])
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, max(0.05, 1.12 * shown[0]["importance"]))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"share of the variance of {cut(analysis['metric'], 40)} that it explains alone (fANOVA)")
    axes.set_title(f"Importance of the parameters ({measured['trials']} trials at report {measured['report']})")
    return figure


def history(analysis: Analysis) -> Figure | None:
    """Each trial's objective and the best so far, by what was spent."""
    points = analysis["history"]
    if not points:
        return None
    time, seconds = _time_unit(points[-1]["seconds"])
    figure = Figure(figsize=(12.5, 4.4), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    scales = [
        ("ended", "trials that ended with a value that counts", 1.0),
        ("reports", "reports of all that ended", 1.0),
        ("seconds", time, seconds),
    ]
    values = [one["objective"] for one in points]
    for axes, (key, label, divisor) in zip(panels, scales, strict=True):
        spent = [one[key] / divisor for one in points]
        axes.plot(spent, values, "o", color=GREY, markersize=4, alpha=0.7, markeredgewidth=0, label="a trial")
        axes.step(spent, [one["incumbent"] for one in points], where="post", color=ORANGE, linewidth=2.2, label="best so far")
        axes.set_xlabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=key != "seconds"))
    note = zoom(panels[0], values, analysis["direction"])
    panels[0].set_ylabel(cut(analysis["metric"], 40))
    titled(panels[0], f"Best so far: {points[-1]['incumbent']:.4g} (trial {points[-1]['incumbent_trial']})")
    if note:
        panels[1].set_title(note, fontweight="normal", fontsize=9)
    return figure


def learning_curves(analysis: Analysis) -> Figure | None:
    """The objective report by report; the best trial stands out."""
    curves, total = analysis["learning_curves"]["curves"], analysis["learning_curves"]["total"]
    if not curves:
        return None
    figure, axes = page(8.5, 5.0)
    ranks = Normalize(1, max(2, len(curves)))
    palette = dark_is_better("minimize")  # of ranks
    for rank, curve in reversed(list(enumerate(curves, start=1))):
        look: dict[str, Any] = {"color": palette(0.92 * ranks(rank)), "linewidth": 1.1, "alpha": 0.6}
        if rank == 1:
            look = {"color": ORANGE, "linewidth": 2.6, "zorder": 5, "label": f"best: trial {curve['trial']}"}
        is_short = len(curve["reports"]) <= 20  # noqa: PLR2004 - more dots hide the line
        objectives = [float("nan") if one is None else one for one in curve["objectives"]]
        axes.plot(curve["reports"], objectives, marker="o" if is_short else "", markersize=3.5, **look)
    note = zoom(axes, [one for curve in curves for one in curve["objectives"] if one is not None], analysis["direction"])
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel(f"report   ({note})" if note else "report")
    axes.set_ylabel(cut(analysis["metric"], 40))
    titled(axes, "Learning curves" if len(curves) == total else f"Learning curves of {len(curves)} of {total} trials")
    if len(curves) > 1:
        bar = figure.colorbar(ScalarMappable(ranks, palette), ax=axes, label="rank of the trial among those shown", pad=0.02)
        bar.ax.invert_yaxis()
    return figure


def slices(analysis: Analysis) -> Figure | None:
    """The objective against each parameter; the best trial is marked."""
    by_name = {one["parameter"]: one["points"] for one in analysis["slices"] if one["points"]}
    shown = [axis for axis in varied_by_importance(analysis) if axis["parameter"] in by_name][:_SLICES]
    if not shown:
        return None
    down = -(-len(shown) // _ACROSS)
    across = -(-len(shown) // down)
    figure = Figure(figsize=(1.6 + 3.1 * across, 0.9 + 2.9 * down), layout="constrained")
    panels = figure.subplots(down, across, sharey=True, squeeze=False)
    points = [one for axis in shown for one in by_name[axis["parameter"]]]
    reports = Normalize(min(one["reports"] for one in points), max(one["reports"] for one in points))
    for axes, axis in zip(panels.flat, shown, strict=False):
        _slice(axes, axis, by_name[axis["parameter"]], reports)
    for axes in panels.flat[len(shown) :]:
        axes.set_visible(False)
    note = zoom(panels[0, 0], [one["objective"] for one in points], analysis["direction"])
    for axes in panels[:, 0]:
        axes.set_ylabel(cut(analysis["metric"], 30))
    if reports.vmin != reports.vmax:
        figure.colorbar(ScalarMappable(reports, "cividis_r"), ax=panels, label="reports of the trial", aspect=30, pad=0.015)
    title = "The objective by parameter; the star is the best trial" + (f"   ({note})" if note else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, weight="bold")
    return figure


_PICTURES: Mapping[str, Draw] = {
    "importance": importance,
    "history": history,
    "learning_curves": learning_curves,
    "parallel_coordinates": parallel_coordinates,
    "slices": slices,
}


def _slice(axes: Axes, axis: Axis, points: Sequence[Mapping[str, Any]], reports: Normalize) -> None:
    """The points of one parameter, the worst below the others; its first is the best."""
    worst_first = points[::-1]
    values = [_across(axis, one) for one in worst_first]
    objectives = [one["objective"] for one in worst_first]
    if reports.vmin == reports.vmax:
        axes.scatter(values, objectives, s=16, alpha=0.6, linewidths=0, color=BLUE)
    else:
        shades = [one["reports"] for one in worst_first]
        axes.scatter(values, objectives, s=16, alpha=0.75, linewidths=0, c=shades, cmap="cividis_r", norm=reports)
    axes.scatter(values[-1:], objectives[-1:], s=130, marker="*", color=ORANGE, edgecolors=INK, linewidths=0.6, zorder=4)
    axes.set_xlabel(cut(axis["parameter"], 26))
    if axis["choices"]:
        heights, labels = zip(*ticks(axis), strict=True)
        axes.set_xlim(0, 1)
        axes.set_xticks(heights, labels)
        if sum(map(len, labels)) > _ROOM:
            axes.set_xticks(heights, labels, rotation=30, ha="right", rotation_mode="anchor")
        axes.grid(visible=False, axis="x")
    elif axis["log"]:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(numticks=6))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}" if value < 1e-3 else f"{value:g}")  # noqa: PLR2004
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=axis["kind"] == "int", steps=[1, 2, 2.5, 5, 10]))


def _across(axis: Axis, point: Mapping[str, Any]) -> float:
    """The value, or of a choice its place, stirred so that equal ones lie side by side."""
    if not axis["choices"]:
        return float(point["value"])
    stirred: float = ((point["trial"] * 0.618034) % 1 - 0.5) * 0.5 / len(axis["choices"])
    return height(axis, point["value"]) + stirred


def _time_unit(seconds: float) -> tuple[str, float]:
    """What to call the unit that fits, and its seconds."""
    if seconds < 180:  # noqa: PLR2004 - three minutes
        return "seconds since the study began", 1.0
    return ("minutes since the study began", 60.0) if seconds < 10_800 else ("hours since the study began", 3600.0)  # noqa: PLR2004


if __name__ == "__main__":
    signal.alarm(_LONGEST_SECONDS)  # whoever started this may be gone
    with contextlib.suppress(OSError):
        os.nice(10)  # training goes first
    sys.exit(main())
