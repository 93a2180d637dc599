"""What a file of rows may hold at most: a small file can unpack to a very large one, and a large one can be a single line."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

ROW_BYTES = 16 * 1024**2
"""The longest row of a CSV or JSONL file."""
WORD_BYTES = 1024**2
"""The longest line of a CoNLL file, which holds one word."""
SENTENCE_WORDS = 100_000
"""The longest sentence of a CoNLL file."""
COLUMNS = 10_000
COLUMN_CHARACTERS = 1000
"""The longest name of a column."""
UNPACKED_FACTOR = 100
"""How many times as large as it is a file may become, once that is more than `SMALL_BYTES`."""
SMALL_BYTES = 100 * 1024**2


class TooMuch(ValueError):
    """A file that holds more than it may; its message says what."""


def lines_of(file: BinaryIO, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Numbered lines with their ends, none of which is ever in memory if it is longer. Raises TooMuch."""
    number = 0
    while line := file.readline(most_bytes + 1):
        number += 1
        if len(line) > most_bytes:
            raise TooMuch(f"line {number} has more than {most_bytes:,} bytes: write shorter rows, and a newline after each")
        yield number, line


def check_columns(names: Collection[str], beside: int = 0) -> None:
    """Raises TooMuch for more columns, with those `beside` them, or a longer name, than any table has that was meant as one."""
    if len(names) + beside > COLUMNS:
        raise TooMuch(f"the file has more than {COLUMNS:,} columns: keep those that are used")
    longest = max(names, key=len, default="")
    if len(longest) > COLUMN_CHARACTERS:
        raise TooMuch(f"a column's name begins with {longest[:40]!r} and has {len(longest):,} characters: shorten it")


def check_csv_header(path: Path) -> None:
    """Before a parser makes something of each of its columns. Raises TooMuch, OSError."""
    commas = quotes = 0
    with path.open("rb") as file:
        for _, line in lines_of(file, ROW_BYTES):
            commas += line.count(b",")
            quotes += line.count(b'"')
            if commas >= COLUMNS:
                raise TooMuch(f"the file has more than {COLUMNS:,} columns: keep those that are used")
            if line.strip() and quotes % 2 == 0:
                return


def check_unpacked(unpacked: int, packed: int) -> None:
    """Raises TooMuch for what unpacks to far more than it is."""
    if unpacked > SMALL_BYTES and unpacked > UNPACKED_FACTOR * packed:
        raise TooMuch(f"the file unpacks to {unpacked:,} bytes, more than {UNPACKED_FACTOR} times its size: save it anew")
