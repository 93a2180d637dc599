"""What the command of another tool's trials settles for all of them."""

import re
from collections.abc import Sequence
from typing import Any

from search_spaces.importers.names import key_of
from search_spaces.importers.pieces import Found, Note, Pieces, literal
from search_spaces.importers.ranges import constant

_FLAG = re.compile(r"(?:^|\s)--?([A-Za-z][\w.-]*)(?:=|\s+)(?!-?-[A-Za-z])(\S+)")


def flags(words: Sequence[Any], path: str) -> Pieces:
    """Settings that a trainer here has too, as in `--epochs=20`; not those that the tool fills in, nor any others."""
    line = " ".join(word for word in words if isinstance(word, str))
    for name, value in _FLAG.findall(line):
        if "$" not in value and key_of(name) is not None:
            yield Note(path, f"`--{name} {value}` is taken over")
            yield Found(path, name, constant(literal(value.strip("'\""))))
