"""Thrift's compact protocol, in which Parquet files say what they hold: walked through before anybody believes it."""

from collections.abc import Callable
from typing import Any

from trainers.bounds import TooMuch

_LEVELS = 16
"""Structures and lists in each other; Parquet's own are eight deep."""
_STRUCT, _LIST, _I32 = 12, 9, 5

Visit = Callable[["Walk", int, int], None]
"""What to do with a field of this number and kind: go through its value."""


class BrokenThrift(OSError):
    """Bytes that are no structure."""


class Walk:
    """Goes through a structure from its start. Raises BrokenThrift, and TooMuch for more than `most` fields and items."""

    def __init__(self, raw: bytes, most: int) -> None:
        self.at = 0
        self._raw = raw
        self._left = most
        self._levels = _LEVELS

    def struct(self, visit: Visit) -> None:
        """Each field of a structure in turn, by its number, as they are written: of two of a number others may read the other."""
        self._enter()
        last = 0
        while head := self._byte():
            self._count(1)
            number = last + (head >> 4) if head >> 4 else self.number()
            if number <= last:
                raise BrokenThrift("its description of itself says something twice")
            visit(self, number, head & 15)
            last = number
        self._levels += 1

    def items(self, kind: int, each: Callable[["Walk", int], None]) -> None:
        """Each item of a list in turn, which are all of one kind."""
        if kind not in {_LIST, _LIST + 1}:
            raise BrokenThrift("its description of itself has something else where a list should be")
        head = self._byte()
        count = head >> 4 if head >> 4 != 15 else self._varint()  # noqa: PLR2004 - says that the number follows
        self._count(count)
        self._enter()
        for _ in range(count):
            each(self, head & 15)
        self._levels += 1

    def fields(self) -> dict[int, Any]:
        """A structure with those of its fields that are numbers of 32 bits, as all are that are used, or structures."""
        found: dict[int, Any] = {}

        def keep(walk: "Walk", number: int, kind: int) -> None:
            value = walk.fields() if kind == _STRUCT else walk.skip(kind)
            if kind in {_STRUCT, _I32}:
                found[number] = value

        self.struct(keep)
        return found

    def skip(self, kind: int) -> int | None:
        """Go behind a value; answers it where it is a whole number."""
        match kind:
            case 1 | 2:
                return None
            case 3:
                return self._byte()
            case 4 | 5 | 6:
                return self.number()
            case 7:
                self.at += 8
            case 8:
                length = self._varint()
                self.at += length
            case 9 | 10:
                self.items(kind, _skip_item)
            case 12:
                self.struct(_skip_field)
            case _:
                raise BrokenThrift("its description of itself cannot be read")
        return None

    def number(self) -> int:
        """A whole number of 16, 32 or 64 bits."""
        found = self._varint()
        return (found >> 1) ^ -(found & 1)

    def _enter(self) -> None:
        self._levels -= 1
        if self._levels < 0:
            raise BrokenThrift("its description of itself is too deep")

    def _varint(self) -> int:
        found = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            found |= (byte & 127) << shift
            if byte < 128:  # noqa: PLR2004 - the last one
                return found
        raise BrokenThrift("its description of itself has a number that is too long")

    def _byte(self) -> int:
        try:
            self.at += 1
            return self._raw[self.at - 1]
        except IndexError:
            raise BrokenThrift("its description of itself is cut off") from None

    def _count(self, more: int) -> None:
        self._left -= more
        if self._left < 0:
            raise TooMuch(
                "its description of itself has too many parts: save it anew with fewer columns, or more rows in a group"
            )


def _skip_field(walk: Walk, _: int, kind: int) -> None:
    walk.skip(kind)


def _skip_item(walk: Walk, kind: int) -> None:
    # What is true or false has a byte of its own in a list, which a field has not.
    walk.skip(3 if kind in {1, 2} else kind)
