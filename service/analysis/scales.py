"""What pictures of studies share: which range of the objective to show, which parameters, and what to write at their values."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap

from service.analysis.style import cut

Analysis = Mapping[str, Any]
Axis = Mapping[str, Any]

_FAR, _NEAR = 4.0, 1.5
"""In spreads of the better three quarters: what is farther than the first squeezes them together, and is left out with all
that is farther than the second."""


def limits(values: Sequence[float], direction: str) -> tuple[float, float, str | None]:
    """Lowest and highest objective to show, and, where much worse ones are left out, a sentence that says so."""
    sign = -1.0 if direction == "maximize" else 1.0
    costs = sign * np.asarray(values, float)
    best, usual, worst = float(costs.min()), float(np.quantile(costs, 0.75)), float(costs.max())
    note = None
    if usual > best and worst > usual + _FAR * (usual - best):
        is_near = costs <= usual + _NEAR * (usual - best)
        worst, left_out = float(costs[is_near].max()), int((~is_near).sum())
        note = f"{left_out} much worse {'values lie' if left_out > 1 else 'value lies'} beyond the edge"
    ends = sorted((sign * best, sign * worst))
    return (ends[0], ends[1], note) if ends[0] < ends[1] else (ends[0] - 0.5, ends[1] + 0.5, note)


def zoom(axes: Axes, values: Sequence[float], direction: str) -> str | None:
    """Show the objectives that matter; answers what `limits` says of the others."""
    low, high, note = limits(values, direction)
    margin = 0.05 * (high - low)
    axes.set_ylim(low - margin, high + margin)
    return note


def dark_is_better(direction: str) -> Colormap:
    """Colours from the worse to the better, which the colour-blind, and a black and white print, tell apart."""
    return mpl.colormaps["cividis_r" if direction == "maximize" else "cividis"]


def varied_by_importance(analysis: Analysis) -> Sequence[Axis]:
    """The axes of the parameters that can vary, those of the most important first."""
    rank = {one["parameter"]: number for number, one in enumerate(analysis["importance"]["parameters"])}
    varied = [
        axis for axis in analysis["parallel_coordinates"]["axes"] if axis["low"] != axis["high"] or len(axis["choices"]) > 1
    ]
    return sorted(varied, key=lambda axis: rank[axis["parameter"]])


def choice_text(label: str, characters: int = 16) -> str:
    """A choice to read: a text without its quotes, and of a path the end."""
    value = json.loads(label)
    text = value if isinstance(value, str) else label
    return cut(text.rstrip("/").rsplit("/", 1)[-1] or text, characters)


def height(axis: Axis, value: float | str) -> float:
    """Where a value is on its axis, from 0 to 1."""
    if axis["choices"]:
        return (list(axis["choices"]).index(str(value)) + 0.5) / len(axis["choices"])
    low, high, at = (math.log(one) if axis["log"] else one for one in (axis["low"], axis["high"], float(value)))
    return min(1.0, max(0.0, (at - low) / (high - low))) if high > low else 0.5


def ticks(axis: Axis, most: int = 6) -> Sequence[tuple[float, str]]:
    """Heights on an axis, and what to write there."""
    if axis["choices"]:
        every = -(-len(axis["choices"]) // (2 * most))
        return [(height(axis, label), choice_text(label)) for label in axis["choices"][::every]]
    low, high = axis["low"], axis["high"]
    if axis["log"] and high / low >= 100:  # noqa: PLR2004 - two decades have three powers of ten at most
        powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        values = [10.0**power for power in powers[:: -(-len(powers) // most)]]
    else:
        values = [low * (high / low) ** (step / 4) if axis["log"] else low + (high - low) * step / 4 for step in range(5)]
    if axis["kind"] == "int":
        is_short = high - low < 2 * most and not axis["log"]
        values = (
            [low + step for step in range(round(high - low) + 1)] if is_short else sorted({float(round(one)) for one in values})
        )
    return [(height(axis, value), f"{value:.3g}") for value in values]
