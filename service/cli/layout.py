"""How tables are laid out: ids, addresses and numbers are never cut, and what there is no room for is named below."""

from collections.abc import Collection, Iterable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from service.cli.output import PLAIN_COLUMNS

_GAP = 2
_FLOWING_WIDTH = 24
"""Least width of a column whose texts go on below, before another column makes room for it."""
_UNBOUNDED = 1 << 20

Cell = str | Text


class Rows:
    """A table without lines that fits the terminal.

    Where it is too wide, headings in `short` become those, with what they stand for below; then the columns in `drop` go, the
    first of them first; at last all goes on below. Texts of the columns in `flow` do that as soon as it helps.
    Off a terminal nothing goes. A heading that starts with > is aligned right.
    """

    def __init__(
        self,
        *headings: str,
        flow: Collection[str] = (),
        drop: Sequence[str] = (),
        short: Mapping[str, str] | None = None,
    ) -> None:
        self._headings = [heading.removeprefix(">") for heading in headings]
        self._right = [heading.startswith(">") for heading in headings]
        self._flow, self._drop, self._short = flow, drop, short or {}
        self._rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: Cell) -> None:
        """A cell for each heading."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        content = [self._width(console, options, at) for at in range(len(self._headings))]
        titles, shown = self._headings, list(range(len(self._headings)))
        room = options.max_width
        if not console.is_terminal:
            room = max(PLAIN_COLUMNS, self._least(titles, content, shown))
        if self._least(titles, content, shown) > room:
            titles = [self._short.get(heading, heading) for heading in titles]
        for heading in self._drop:
            if self._least(titles, content, shown) <= room:
                break
            shown = [at for at in shown if self._headings[at] != heading]
        widths = self._widths(titles, content, shown, room)
        table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="dim")
        for at, width in zip(shown, widths, strict=True):
            table.add_column(titles[at], justify="right" if self._right[at] else "left", width=width, overflow="fold")
        for row in self._rows:
            table.add_row(*(row[at] for at in shown))
        yield from console.render(table, options.update(width=sum(widths) + _GAP * len(widths)))
        below = [f"{titles[at]}={self._headings[at]}" for at in shown if titles[at] != self._headings[at]]
        if below:
            yield Text("   ".join(below), style="dim", overflow="fold")
        dropped = [heading for at, heading in enumerate(self._headings) if at not in shown]
        if dropped:
            yield Text(f"no room for: {', '.join(dropped)} (-o json has them)", style="dim", overflow="fold")

    def _width(self, console: Console, options: ConsoleOptions, at: int) -> int:
        """Of the widest cell below this heading."""
        unbounded = options.update(width=_UNBOUNDED)
        return max((Measurement.get(console, unbounded, row[at]).maximum for row in self._rows), default=0)

    def _least(self, titles: Sequence[str], content: Sequence[int], shown: Iterable[int]) -> int:
        """The width that these columns need, the last one's gap left out."""
        return sum(min(self._natural(titles, content, at), self._most(at)) + _GAP for at in shown) - _GAP

    def _natural(self, titles: Sequence[str], content: Sequence[int], at: int) -> int:
        return max(Text(titles[at]).cell_len, content[at], 1)

    def _most(self, at: int) -> int:
        return _FLOWING_WIDTH if self._headings[at] in self._flow else _UNBOUNDED

    def _widths(self, titles: Sequence[str], content: Sequence[int], shown: Sequence[int], room: int) -> list[int]:
        """Of each column: as wide as its texts, but for those that have to share what the others leave."""
        natural = {at: self._natural(titles, content, at) for at in shown}
        sharing = [at for at in shown if self._headings[at] in self._flow]
        left = room - _GAP * (len(shown) - 1) - sum(natural[at] for at in shown if at not in sharing)
        if left < len(sharing) or (left < 0 and not sharing):
            sharing, left = list(shown), room - _GAP * (len(shown) - 1)
        widths = dict(natural)
        for taken, at in enumerate(sorted(sharing, key=lambda at: natural[at])):
            widths[at] = max(1, min(natural[at], left // (len(sharing) - taken)))
            left -= widths[at]
        return [widths[at] for at in shown]


def pairs(rows: Sequence[tuple[str, str | Text | None]]) -> Table:
    """Names and values; what has no value is left out."""
    table = Table.grid(padding=(0, _GAP, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, value)
    return table
