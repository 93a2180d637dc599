"""The footer of a Parquet file, gone through before a reader builds anything of it: it may ask for more than the file holds."""

import struct
from pathlib import Path

from trainers.bounds import COLUMNS, TooMuch
from trainers.thrift import Walk

_FOOTER_BYTES = 16 * 1024**2
_FOOTER_PARTS = 4_000_000
_TAIL = struct.Struct("<I4s")
"""Where every Parquet file ends: the length of its footer, and four letters."""
_COLUMNS = 5 * COLUMNS
"""With those that others hold: a column of lists is three."""
_LEVELS = 100
"""Columns in columns; a reader goes down them by calling itself, and ends with its process where there are very many."""
_SCHEMA, _GROUPS, _GROUP_COLUMNS, _CHILDREN = 2, 4, 1, 5
"""Fields that say which columns there are, which groups of rows, the columns of a group, and how many a column holds."""
_CHUNKS = 200_000
"""Columns of all groups of rows together."""


def check_footer(path: Path) -> None:
    """Raises TooMuch for one that a reader makes far more of than it is, OSError for one that is broken."""
    size = path.stat().st_size
    if size < _TAIL.size:
        return  # pyarrow says what is wrong with it
    with path.open("rb") as file:
        file.seek(size - _TAIL.size)
        length, letters = _TAIL.unpack(file.read(_TAIL.size))
        if letters != b"PAR1" or length > size - _TAIL.size:
            return  # the same
        if length > _FOOTER_BYTES:
            raise TooMuch(f"the file's footer has {length:,} bytes, more than {_FOOTER_BYTES:,}: save it anew")
        file.seek(size - _TAIL.size - length)
        Walk(file.read(length), _FOOTER_PARTS).struct(_Footer().field)


class _Footer:
    """Looks at the parts of a footer as they come by."""

    def __init__(self) -> None:
        self._columns = 0
        self._chunks = 0
        self._open: list[int] = []
        """Of each column that holds others and is not yet complete, how many it lacks."""

    def field(self, walk: Walk, number: int, kind: int) -> None:
        if number == _SCHEMA:
            walk.items(kind, self._column)
        elif number == _GROUPS:
            walk.items(kind, lambda within, _: within.struct(self._group))
        else:
            walk.skip(kind)

    def _column(self, walk: Walk, _: int) -> None:
        children = walk.fields().get(_CHILDREN) or 0
        self._columns += 1
        if self._columns > _COLUMNS:
            raise TooMuch(f"the file has more than {_COLUMNS:,} columns, with those inside of others: keep those that are used")
        if self._open:
            self._open[-1] -= 1
        self._open.append(children)
        while self._open and self._open[-1] <= 0:
            self._open.pop()
        if len(self._open) > _LEVELS:
            raise TooMuch(f"the file has columns in columns, {_LEVELS} deep: save it anew with flat ones")

    def _group(self, walk: Walk, number: int, kind: int) -> None:
        if number == _GROUP_COLUMNS:
            walk.items(kind, self._chunk)
        else:
            walk.skip(kind)

    def _chunk(self, walk: Walk, kind: int) -> None:
        self._chunks += 1
        if self._chunks > _CHUNKS:
            raise TooMuch(f"the file has more than {_CHUNKS:,} pieces of columns: save it anew with more rows in a group")
        walk.skip(kind)
