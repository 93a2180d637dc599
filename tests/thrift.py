"""Thrift's compact protocol, to write footers and headers of Parquet files that no library would write."""

import struct
from collections.abc import Sequence

Field = tuple[int, int, bytes]


def varint(number: int) -> bytes:
    written = bytearray()
    while number > 127:
        written.append(number & 127 | 128)
        number >>= 7
    return bytes([*written, number])


def whole(number: int) -> bytes:
    return varint(number << 1)


def structure(*fields: Field) -> bytes:
    """Of fields in the order of their numbers, which are less than 16 apart."""
    written, last = b"", 0
    for number, kind, value in fields:
        written += bytes([(number - last) << 4 | kind]) + value
        last = number
    return written + b"\0"


def i32(number: int, value: int) -> Field:
    return number, 5, whole(value)


def text(number: int, value: bytes) -> Field:
    return number, 8, varint(len(value)) + value


def structures(number: int, items: Sequence[bytes]) -> Field:
    return number, 9, b"\xfc" + varint(len(items)) + b"".join(items)


def parquet_file(schema: Sequence[bytes], groups: Sequence[bytes] = (), rows: int = 0) -> bytes:
    """A file without any pages."""
    footer = structure(i32(1, 2), structures(2, schema), (3, 6, whole(rows)), structures(4, groups))
    return b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"


def told(content: bytes, number: int, instead: int) -> bytes:
    """A Parquet file whose footer says a smaller number wherever it said this one, in as many bytes."""
    length = int.from_bytes(content[-8:-4], "little")
    old, new = whole(number), whole(instead)
    padded = new[:-1] + bytes([new[-1] | 128]) + b"\x80" * (len(old) - len(new) - 1) + b"\0" if len(new) < len(old) else new
    head, footer = content[: -8 - length], content[-8 - length :]
    assert old in footer
    return head + footer.replace(old, padded)


DEEP = parquet_file([structure(text(4, b"s"), i32(5, 1)), *[structure(i32(3, 0), text(4, b"a"), i32(5, 1))] * 50_000])
"""A column in a column in a column: a reader that goes down to its last one needs more stack than a process has."""
