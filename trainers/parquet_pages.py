"""The pages of a Parquet file, by their own headers. Readers go by these, whatever the footer says of values and sizes."""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO

from trainers.bounds import TooMuch
from trainers.thrift import BrokenThrift, Walk

PAGES = 500_000
"""In all of a file. Writers make them of about a megabyte."""
_HEADER_BYTES = 64 * 1024
"""The longest header: it holds the least and the greatest value, which writers cut short."""
_HEADER_PARTS = 100
_MOST = 2**31
_FRONT_CODED = 7
"""DELTA_BYTE_ARRAY: a value is what it shares with the one before it and a rest, so that few bytes may stand for any number."""
_DICTIONARY = 2
_KINDS = {0: (5, 2), 3: (8, 4), _DICTIONARY: (7, 2)}
"""Of each kind of page (data, data of the second version, and what data refers to), the field that holds what only pages of that
kind say, and where in it the encoding is. Readers pass over pages of other kinds, which nobody writes."""
_OF_KINDS = {5, 6, 7, 8}
_WIDTHS = {"INT64": 8, "DOUBLE": 8, "INT96": 12}
"""Bytes of a value; what is not here takes four, as the numbers of texts that stand once in the file do."""


@dataclass(frozen=True)
class Page:
    """What one says of itself. `values` counts missing ones too, and is 0 where others only refer to what it holds.

    `bytes` is what it takes in memory: what it unpacks to or, where few bytes say one value very often, its values written out.
    """

    values: int
    bytes: int


class Chunk:
    """The pages of one column in one group of rows, of which the footer says how many. A row `is_repeated` has several values."""

    def __init__(self, column: str, pages: list[Page], rows: int, *, is_repeated: bool) -> None:
        self.column = column
        self.is_repeated = is_repeated
        self._rows = max(1, min(rows, sum(page.values for page in pages)))
        self.bytes = sum(page.bytes for page in pages)
        self._kept = sum(page.bytes for page in pages if not page.values)
        self._pages = [page for page in pages if page.values]
        self._rows_before = [0, *accumulate(page.values for page in self._pages)]
        self._bytes_before = [0, *accumulate(page.bytes for page in self._pages)]

    def is_of(self, column: str) -> bool:
        """Whether it is that column, or within it."""
        return f"{self.column}.".startswith(f"{column}.")

    @property
    def largest(self) -> int:
        """Bytes that reading a single row may take. Where a row has several values, nothing says where it ends."""
        return self.bytes if self.is_repeated else self._kept + max((page.bytes for page in self._pages), default=0)

    def at_once(self, rows: int) -> int:
        """About the most bytes of as many rows that follow each other; of lists, as if all were of one length."""
        if self.is_repeated:
            return self.bytes * rows // self._rows
        starts = range(len(self._pages))
        return self._kept + max((self._up_to(self._rows_before[at] + rows) - self._bytes_before[at] for at in starts), default=0)

    def _up_to(self, row: int) -> int:
        """Bytes of the rows before this one; those of a page are taken to be alike."""
        at = bisect_right(self._rows_before, row) - 1
        if at == len(self._pages):
            return self._bytes_before[-1]
        return self._bytes_before[at] + self._pages[at].bytes * (row - self._rows_before[at]) // self._pages[at].values


def groups_of(file: Any, path: Path) -> list[list[Chunk]]:
    """The columns of each group of rows of an opened file. Raises TooMuch, OSError."""
    groups, left = [], PAGES
    with path.open("rb") as raw:
        for at in range(file.metadata.num_row_groups):
            told = file.metadata.row_group(at)
            group = []
            for column in range(told.num_columns):
                schema, pages = file.schema.column(column), []
                for page in _pages(raw, told.column(column), schema):
                    left -= 1
                    if left < 0:
                        raise TooMuch(f"the file has more than {PAGES:,} pages: save it anew with larger ones")
                    pages.append(page)
                group.append(Chunk(schema.path, pages, told.num_rows, is_repeated=schema.max_repetition_level > 0))
            groups.append(group)
    return groups


def _pages(raw: BinaryIO, told: Any, schema: Any) -> Iterator[Page]:
    """Those that a reader comes by: up to as many values as the footer tells, or to the end that it tells."""
    width = max(4, schema.length) if schema.physical_type == "FIXED_LEN_BYTE_ARRAY" else _WIDTHS.get(schema.physical_type, 4)
    places = [told.data_page_offset, told.dictionary_page_offset if told.has_dictionary_page else None]
    at = min(place for place in places if place)
    end, seen = at + told.total_compressed_size, 0
    while at < end and seen < told.num_values:
        raw.seek(at)
        header = _Header(raw.read(_HEADER_BYTES))
        if header.encoding == _FRONT_CODED:
            detail = f"column {schema.path!r} is encoded as DELTA_BYTE_ARRAY, which may unpack to any size"
            raise TooMuch(f"{detail}: save it anew in another encoding")
        yield Page(header.values, max(header.unpacked, header.packed, header.values * width))
        seen += header.values
        at += header.length + header.packed


class _Header:
    """What a page says of itself. Raises OSError for bytes that are no header."""

    def __init__(self, raw: bytes) -> None:
        walk = Walk(raw, _HEADER_PARTS)
        fields = walk.fields()
        try:
            self.unpacked, self.packed = _whole(fields[2]), _whole(fields[3])
            of_kind, encoding = _KINDS[fields[1]]
            said = fields[of_kind]
            self.values = 0 if fields[1] == _DICTIONARY else _whole(said[1])
            self.encoding = said[encoding]
        except (KeyError, TypeError) as error:
            raise BrokenThrift("a page has no header that can be read") from error
        if fields.keys() & _OF_KINDS != {of_kind}:
            raise BrokenThrift("a page says that it is of several kinds")
        self.length = walk.at


def _whole(number: int) -> int:
    """A number that counts something, as one of 32 bits."""
    if not 0 <= number < _MOST:
        raise BrokenThrift(f"a page says that it has {number:,} bytes or values")
    return number
