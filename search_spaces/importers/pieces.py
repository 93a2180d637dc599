"""What a reader of another tool's file finds in it, piece by piece, and how it reads values that may be anything."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


class NotImportable(ValueError):
    """The file cannot be imported; `path` is a JSON pointer (RFC 6901) into it, `detail` says what to do."""

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"{path or '/'}: {detail}")
        self.path, self.detail = path, detail


@dataclass(frozen=True)
class Note:
    """Something that does not carry over, or was changed; `path` is a JSON pointer into the file."""

    path: str
    detail: str

    def __str__(self) -> str:
        return f"{self.path or '/'}: {self.detail}"


@dataclass(frozen=True)
class Found:
    """A parameter under the name that the other tool has for it, and what it is in a search space."""

    path: str
    name: str
    parameter: Mapping[str, Any]


@dataclass(frozen=True)
class Goal:
    """The metric that the search optimises, under the other tool's name."""

    path: str
    metric: str
    direction: Literal["maximize", "minimize"]


@dataclass(frozen=True)
class Part:
    """A value of a study's document that needs no more work; objects of one key are merged."""

    key: str
    value: Any


Piece = Note | Found | Goal | Part
Pieces = Iterator[Piece]

LEFT_OUT = "has no counterpart here: left out"
_MOST = 1e300
"""What counts as infinite."""
_INT = re.compile(r"[-+]?\d{1,300}")
_FLOAT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?")
_WORDS: Mapping[str, Any] = {"true": True, "false": False, "none": None, "null": None}


def inside(path: str, *parts: str | int) -> str:
    """The JSON pointer to what is there in the value at `path`."""
    return path + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def literal(text: str) -> Any:
    """The number, boolean or nothing that a text spells, else the text."""
    stripped = text.strip()
    if _INT.fullmatch(stripped):
        return int(stripped)
    if _FLOAT.fullmatch(stripped) and abs(float(stripped)) < _MOST:
        return float(stripped)
    return _WORDS.get(stripped.lower(), text)


def mapping(value: Any, path: str) -> Mapping[str, Any]:
    """An object; nothing counts as an empty one."""
    if value is not None and not isinstance(value, Mapping):
        raise NotImportable(path, f"must be an object, not {_shown(value)}: mend it")
    return value or {}


def sequence(value: Any, path: str) -> Sequence[Any]:
    """A list; nothing counts as an empty one."""
    if value is not None and not isinstance(value, list):
        raise NotImportable(path, f"must be a list, not {_shown(value)}: mend it")
    return value or []


def text(value: Any, path: str) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise NotImportable(path, f"must be a text, not {_shown(value)}: mend it")
    return value.strip()


def number(value: Any, path: str) -> int | float:
    """A number, or a text that spells one."""
    read = literal(value) if isinstance(value, str) else value
    if isinstance(read, bool) or not isinstance(read, int | float) or not -_MOST < read < _MOST:
        raise NotImportable(path, f"must be a number, not {_shown(value)}: mend it")
    return read


def whole(value: Any, path: str, least: int = 0) -> int:
    """A whole number that is not below `least`."""
    read = number(value, path)
    if read != int(read) or read < least:
        raise NotImportable(path, f"must be a whole number from {least} on, not {_shown(value)}: mend it")
    return int(read)


def between(value: float, least: int, most: int, path: str, said: str) -> Iterator[Note]:
    """A note where a value is none that `said` may have here. The caller takes the nearest one."""
    if value != min(max(int(value), least), most):
        yield Note(path, f"`{said}` is a whole number from {least} to {most} here: changed to {nearest(value, least, most)}")


def nearest(value: float, least: int, most: int) -> int:
    """The whole number in [least, most] that is nearest to the value."""
    return min(max(round(value), least), most)


def unknown(value: Mapping[str, Any], known: Collection[str], path: str, what: str = LEFT_OUT) -> Iterator[Note]:
    """A note for each key that nobody reads."""
    for key in value:
        if key not in known:
            yield Note(inside(path, key), what)


def _shown(value: Any) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."  # noqa: PLR2004 - a line of a message
