"""What may stand in the fields of a request to MLflow that name nothing of a project's, and refusals as MLflow words them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from service.api.gateway_fields import Field

_WORD = re.compile(r"[A-Z_]{1,40}|[0-9]")
_NUMBER = re.compile(r"-?[0-9]{1,16}", re.ASCII)


class Refusal(Exception):
    """What is answered instead of asking MLflow, in the form in which MLflow would, as its UI and its client read that."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.document = {"error_code": code, "message": message}


def no_such(message: str) -> Refusal:
    """What MLflow answers where something is not there."""
    return Refusal(404, "RESOURCE_DOES_NOT_EXIST", message)


def invalid(message: str) -> Refusal:
    """What MLflow answers where a request makes no sense."""
    return Refusal(400, "INVALID_PARAMETER_VALUE", message)


def value_of(name: str, field: Field, value: Any) -> Any:
    """The value to send for a field that holds no id. Raises Refusal."""
    return _READERS[field](name, value)


def text(name: str, value: Any) -> str:
    """Text that every database can be asked for. Raises Refusal."""
    if not isinstance(value, str) or "\x00" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise _wrong(name, "it is text")
    return value


def texts(name: str, value: Any) -> list[str]:
    """Texts, or one that stands for a list of it. Raises Refusal."""
    return [text(name, one) for one in (value if isinstance(value, list) else [value])]


def file(name: str, value: Any) -> str:
    """A relative path that can be read in one way only. MLflow refuses those that climb out too. Raises Refusal."""
    path = text(name, value)
    is_plain = not re.search(r"[\x00-\x1f\x7f-\x9f\\%#]", path) and not path.lower().startswith("file:")
    if not is_plain or any(part in {"", ".", ".."} for part in path.split("/")):
        raise invalid("Invalid path")
    return path


def _number(name: str, value: Any) -> int:
    return _whole(name, value, 31)


def _long(name: str, value: Any) -> int:
    return _whole(name, value, 53)


def _whole(name: str, value: Any, bits: int) -> int:
    is_number = isinstance(value, int) and not isinstance(value, bool)
    is_text = isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    if (is_number or is_text) and abs(int(value)) < 2**bits:
        return int(value)
    raise _wrong(name, f"it is a whole number of at most {bits} bits")


def _word(name: str, value: Any) -> str:
    if isinstance(value, bool) or not _WORD.fullmatch(str(value)):
        raise _wrong(name, "it is one of MLflow's own words")
    return str(value)


def _objects(name: str, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _wrong(name, "it is a list of objects")
    kept = [{text(name, key): held for key, held in one.items() if held is not None} for one in value]
    for held in (held for one in kept for held in one.values()):
        if not isinstance(held, bool | int | float):
            text(name, held)
    return kept


def _wrong(name: str, what: str) -> Refusal:
    return invalid(f"Invalid value for parameter '{name}' supplied: {what}.")


_READERS: Mapping[Field, Callable[[str, Any], Any]] = {
    Field.TEXT: text,
    Field.TEXTS: texts,
    Field.FILE: file,
    Field.NUMBER: _number,
    Field.LONG: _long,
    Field.WORD: _word,
    Field.OBJECTS: _objects,
}
