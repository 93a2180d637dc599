"""How our pictures look: colours that colour-blind people tell apart, and pages of a size."""

import io
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_NAME_CHARACTERS = 24
BLUE, ORANGE, GREEN, GREY, INK = "#2f6db3", "#e07b39", "#4c9f70", "#9aa3ad", "#26323d"
STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.12,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.size": 10,
    "grid.color": "#e6e9ed",
    "legend.frameon": False,
    "text.color": INK,
    "text.parse_math": False,  # a label may hold dollar signs
    "xtick.color": INK,
    "ytick.color": INK,
}


def cut(text: str, characters: int = _NAME_CHARACTERS) -> str:
    """In one line, and cut."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    line = " ".join(line.split())
    return line if len(line) <= characters else line[: characters - 1].rstrip() + "…"


def page(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def titled(axes: Axes, title: str) -> None:
    """With the legend in a line of its own below."""
    axes.set_title(title, pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, borderaxespad=0.2, borderpad=0.2, fontsize=9)


def png(figure: Figure) -> bytes:
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)  # type: ignore[no-untyped-call]  # matplotlib has no type for it
    return content.getvalue()
