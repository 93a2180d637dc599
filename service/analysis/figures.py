"""Pictures of an analysis, drawn in a process of their own: matplotlib takes a second to import, and no other process needs it.

python -m service.analysis.figures ANALYSIS.json FOLDER
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
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from service.analysis.style import BLUE, GREEN, GREY, INK, ORANGE, STYLE, cut, page, png, titled

Analysis = Mapping[str, Any]
Draw = Callable[[Analysis], Figure | None]

_LONGEST_SECONDS = 90
_SHOWN_CLASSES = 20
_FEW = 8
_DARK = 0.55
"""The share from which on the blue is too dark for black digits."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="service.analysis.figures")
    parser.add_argument("analysis", type=Path, help="JSON file that `trainers.analysis` made")
    parser.add_argument("folder", type=Path, help="folder for the pictures")
    given = parser.parse_args(arguments)
    for name, picture in draw(json.loads(given.analysis.read_text("utf-8"))).items():
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


def confusion(analysis: Analysis) -> Figure | None:
    """Shares of each label's rows; of many labels those that are most often taken for one another."""
    if not analysis.get("confusion"):
        return None
    counts, names = _counts(analysis)
    shown = _most_confused(counts)
    names = [names[number] for number in shown]
    rows = counts.sum(1)[shown]  # of all rows, those taken for a label that is not shown too
    counts = counts[np.ix_(shown, shown)]
    shares = counts / np.maximum(rows, 1)[:, None]
    side = max(3.2, 0.42 * len(shown))
    figure, axes = page(side + 2.6, side + 2.0)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.tick_params(length=0)
    for row, column in np.argwhere(counts).tolist():
        color = "white" if shares[row, column] > _DARK else INK
        number = _short(int(counts[row, column]))
        axes.text(column, row, number, ha="center", va="center", color=color, fontsize=8 if len(names) > _FEW else 10)
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03, label="share of the label's rows")
    left_out = len(analysis["labels"]) - len(shown)
    axes.set_title(f"Confusion of the {len(shown)} most confused of {len(shown) + left_out} labels" if left_out else "Confusion")
    return figure


def per_class(analysis: Analysis) -> Figure | None:
    """Precision, recall and F1; of many classes the ones with the lowest F1."""
    scores = [one for one in analysis.get("per_class", analysis.get("per_entity", ())) if one["support"] or one["precision"]]
    if not scores:
        return None
    worst = sorted(scores, key=lambda one: (one["f1"], one["label"]))[:_SHOWN_CLASSES]
    figure, axes = page(7.5, 1.9 + 0.34 * len(worst))
    places = np.arange(len(worst))
    axes.barh(places, [one["f1"] for one in worst], color=BLUE, height=0.62, label="F1", alpha=0.5)
    axes.plot([one["precision"] for one in worst], places, "o", color=ORANGE, label="precision", markersize=6)
    axes.plot([one["recall"] for one in worst], places, "D", color=GREEN, label="recall", markersize=5)
    axes.set_yticks(places, [f"{cut(one['label'])}  ({_short(one['support'])})" for one in worst])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.02)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("score  (in brackets: how often the label occurs)")
    few = len(worst) < len(scores)
    titled(axes, f"The {len(worst)} labels of {len(scores)} with the lowest F1" if few else "Scores by label, lowest first")
    return figure


def reliability(analysis: Analysis) -> Figure | None:
    """How often the model is right where it is so sure, and how many rows there are."""
    bins = analysis.get("calibration", {}).get("bins")
    if not bins:
        return None
    figure = Figure(figsize=(6.0, 6.2), layout="constrained")
    curve, rows = figure.subplots(2, 1, height_ratios=[3.4, 1], sharex=True)
    middles = [(one["low"] + one["high"]) / 2 for one in bins]
    width = 0.94 * (bins[0]["high"] - bins[0]["low"])
    confidences, accuracies = [one["confidence"] for one in bins], [one["accuracy"] for one in bins]
    curve.plot([0, 1], [0, 1], "--", color=GREY, label="perfectly calibrated")
    curve.bar(middles, accuracies, width, color=BLUE, alpha=0.3)
    curve.plot(confidences, accuracies, "o-", color=BLUE, label="this model", markersize=5)
    curve.set_xlim(0, 1)
    curve.set_ylim(0, 1.02)
    curve.set_ylabel("share that is right")
    titled(curve, f"Calibration: expected error {analysis['calibration']['ece']:.3f}")
    rows.bar(middles, [one["rows"] for one in bins], width, color=GREY)
    rows.set_ylabel("predictions")
    rows.set_xlabel("confidence")
    rows.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    return figure


def by_length(analysis: Analysis) -> Figure | None:
    """The measure of each part of the rows, from short to long; of a language model also by place in the text."""
    parts = [
        (key, measured, title)
        for key, title in (("by_length", "By length"), ("by_position", "By position in the row"))
        if (measured := [one for one in analysis.get(key, ()) if _measure(one)[1] is not None])
    ]
    if not parts:
        return None
    figure = Figure(figsize=(6.4 * len(parts), 4.2), layout="constrained")
    for axes, (key, measured, title) in zip(np.ravel([figure.subplots(1, len(parts))]), parts, strict=True):
        values = [_measure(one)[1] for one in measured]
        bars = axes.bar(range(len(values)), values, color=BLUE, alpha=0.85, width=0.7)
        axes.bar_label(bars, [f"{value:.3g}" for value in values], padding=2)
        counted = "rows" if key == "by_length" else "tokens"
        axes.set_xticks(range(len(values)), [f"{_span(one)}\n{_short(one[counted])} {counted}" for one in measured])
        axes.set_xlabel(_UNITS.get(analysis["task"], "tokens in the text") if key == "by_length" else "tokens before it")
        axes.set_ylabel(_MEASURES[_measure(measured[0])[0]])
        axes.margins(y=0.12)
        axes.grid(visible=False, axis="x")
        axes.tick_params(axis="x", length=0)
        axes.set_title(title)
    return figure


def residuals(analysis: Analysis) -> Figure | None:
    """Predicted against wanted numbers, and how the errors are spread."""
    binned = analysis.get("binned")
    if not binned or not analysis["residuals"]["histogram"]:
        return None
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    predicted, wanted = [one["predicted"] for one in binned], [one["wanted"] for one in binned]
    ends = [min(predicted + wanted), max(predicted + wanted)]
    left.plot(ends, ends, "--", color=GREY, label="right on average")
    left.plot(predicted, wanted, "o-", color=BLUE, label="this model")
    left.set_xlabel("predicted (mean of each tenth of the rows)")
    left.set_ylabel("wanted (mean)")
    titled(left, "Predicted and wanted")
    bars = analysis["residuals"]["histogram"]
    edges = [*(one["low"] for one in bars), bars[-1]["high"]]
    right.stairs([one["rows"] for one in bars], edges, fill=True, color=BLUE, alpha=0.85)
    right.axvline(0, color=INK, linewidth=1)
    right.axvline(analysis["residuals"]["mean"], color=ORANGE, linewidth=2, label=f"mean {analysis['residuals']['mean']:.3g}")
    right.set_xlabel("predicted less wanted")
    right.set_ylabel("rows")
    titled(right, "Errors")
    return figure


def losses(analysis: Analysis) -> Figure | None:
    """The highest losses of a language model's rows, with their texts."""
    worst = [one for one in analysis.get("mistakes", ()) if one.get("loss") is not None][:_SHOWN_CLASSES]
    if not worst:
        return None
    figure, axes = page(9.5, 1.7 + 0.34 * len(worst))
    axes.barh(range(len(worst)), [one["loss"] for one in worst], color=BLUE, height=0.62, alpha=0.85)
    axes.axvline(analysis["metrics"]["loss"], color=ORANGE, linewidth=2, label="all rows")
    axes.set_yticks(range(len(worst)), [cut(one["text"], 60) for one in worst], fontsize=9)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("loss for each token, in nats")
    titled(axes, f"The {len(worst)} rows with the highest loss" if len(worst) > 1 else "The row with the highest loss")
    return figure


_PICTURES: Mapping[str, Draw] = {
    "confusion": confusion,
    "per_class": per_class,
    "calibration": reliability,
    "by_length": by_length,
    "residuals": residuals,
    "losses": losses,
}
_MEASURES = {
    "accuracy": "share that is right",
    "f1": "F1 of entities",
    "mae": "mean absolute error",
    "loss": "loss for each token",
}
_UNITS = {"token-classification": "words in the sentence"}


def _counts(analysis: Analysis) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """The confusion matrix with a row for each label, and the labels' names."""
    labels = analysis["labels"]
    counts = np.zeros((len(labels), len(labels)), np.int64)
    for wanted, predicted, count in analysis["confusion"]:
        counts[wanted, predicted] = count
    return counts, [cut(label) for label in labels]


def _most_confused(counts: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """All labels, or those of the pairs that are confused most often; pairs stand side by side."""
    if len(counts) <= _SHOWN_CLASSES:
        return list(range(len(counts)))
    between = counts + counts.T
    np.fill_diagonal(between, 0)
    first, second = np.triu_indices(len(counts), k=1)
    order = np.argsort(-between[first, second], kind="stable")
    shown: dict[int, None] = {}
    for pair in zip(first[order].tolist(), second[order].tolist(), strict=True):
        missing = [number for number in pair if number not in shown]
        if len(shown) + len(missing) > _SHOWN_CLASSES:
            break
        shown |= dict.fromkeys(missing)
    return list(shown)


def _measure(part: Mapping[str, Any]) -> tuple[str, float | None]:
    """What a part of the rows was measured by, and how much."""
    [name] = [name for name in _MEASURES if name in part]
    return name, part[name]


def _span(part: Mapping[str, Any]) -> str:
    return f"{part['from']}" if part["from"] == part["to"] else f"{part['from']}–{part['to']}"  # noqa: RUF001 - an en dash


def _short(count: int) -> str:
    """At most four characters up to a million."""
    if count < 10_000:  # noqa: PLR2004 - five digits are too many for a cell
        return str(count)
    return f"{count / 1000:.0f}k" if count < 1_000_000 else f"{count / 1e6:.3g}M"  # noqa: PLR2004


if __name__ == "__main__":
    signal.alarm(_LONGEST_SECONDS)  # whoever started this may be gone
    with contextlib.suppress(OSError):
        os.nice(10)  # training goes first
    sys.exit(main())
