"""Study definitions as they come in: JSON, or YAML 1.2's core schema, without the surprises of either.

YAML 1.1 reads `1e-6` as a string, `no` as false, `2030-01-02` as a date and `010` as eight; here they are what they look like.
"""

import json
import re
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import yaml

from service.domain.errors import MalformedDocument, UnsupportedMediaType

MAX_BYTES = 1024 * 1024
"""Largest body of a study definition."""
_MAX_DEPTH = 64
_MAX_VALUES = 100_000
_MAX_ANCHORS = 1000
_DIRECTIVE = re.compile(r"^%(?!YAML )", re.MULTILINE)
_MAX_DIGITS = 400
JSON_TYPE = "application/json"
YAML_TYPES = ("application/yaml", "application/x-yaml", "text/yaml")


def decode(body: bytes, content_type: str | None) -> Any:
    """The document in a request's body. Without a content type it is read as YAML, which JSON is a part of.

    Raises `UnsupportedMediaType`, `MalformedDocument`.
    """
    media_type = (content_type or YAML_TYPES[0]).partition(";")[0].strip().lower()
    if media_type != JSON_TYPE and media_type not in YAML_TYPES:
        detail = (
            f"Send the definition as `Content-Type: application/yaml` or `application/json`, not {media_type!r} "
            "(with curl: `-H 'Content-Type: application/yaml' --data-binary @FILE`)."
        )
        raise UnsupportedMediaType(detail)
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MalformedDocument(f"The body is not UTF-8 (byte {error.start}): save it as UTF-8 and send it again.") from error
    try:
        document = _from_json(text) if media_type == JSON_TYPE else _from_yaml(text)
    except RecursionError as error:
        raise MalformedDocument(_TOO_DEEP) from error
    _check_values(document)
    return document


def _from_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant, parse_int=_int)
    except json.JSONDecodeError as error:
        place = f"Line {error.lineno}, column {error.colno}"
        raise MalformedDocument(f"{place}: {error.msg}. Mend it and send it again.") from error
    except ValueError as error:
        raise MalformedDocument(f"The body cannot be read: {error}.") from error


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(_twice(key))
        found[key] = value
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")


def _int(text: str) -> int:
    return int(_bounded(text))


def _bounded(digits: str) -> str:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return digits


def _from_yaml(text: str) -> Any:
    if _DIRECTIVE.search(text):  # each tag's prefix is compared with all the others
        raise MalformedDocument("Directives (lines that begin with `%`) are not read here: take them out.")
    try:
        _check_structure(yaml.parse(text, Loader=_CoreLoader))
        return yaml.load(text, Loader=_CoreLoader)  # noqa: S506 - a loader with the six core tags and no others
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"Line {mark.line + 1}, column {mark.column + 1}" if mark else "The body"
        raise MalformedDocument(f"{place}: {error.problem or error.context}. Mend it and send it again.") from error
    except yaml.YAMLError as error:
        said = str(error).splitlines()[0]
        raise MalformedDocument(f"The body cannot be read as YAML: {said}. Mend it and send it again.") from error
    except ValueError as error:
        raise MalformedDocument(f"The body cannot be read: {error}.") from error


def _check_structure(events: Iterator[Any]) -> None:
    """Refuse aliases, which a few lines can make billions of values with, and nesting that no definition has."""
    depth = anchors = 0
    for number, event in enumerate(events):
        anchors += getattr(event, "anchor", None) is not None
        if number > _MAX_VALUES or anchors > _MAX_ANCHORS:
            raise MalformedDocument(_TOO_MANY)
        match event:
            case yaml.AliasEvent():
                place = f"Line {event.start_mark.line + 1}: " if event.start_mark else ""
                raise MalformedDocument(f"{place}aliases (`*{event.anchor}`) are not read here: write the value out.")
            case yaml.CollectionStartEvent():
                depth += 1
            case yaml.CollectionEndEvent():
                depth -= 1
            case _:
                pass
        if depth > _MAX_DEPTH:
            raise MalformedDocument(_TOO_DEEP)


_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml where PyYAML was built with it: thirty times as fast, and a body of a megabyte is not read for half a minute."""


class _CoreLoader(_Loader):  # type: ignore[misc]  # whichever it is
    """YAML 1.2's core schema: strings, integers, floats, booleans, null, lists and objects with strings for keys."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - PyYAML's signature
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                problem = f"a key must be a string, not {key!r}: put it into quotes"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
            if key in found:
                raise yaml.constructor.ConstructorError(None, None, _twice(key), key_node.start_mark)
            found[key] = self.construct_object(value_node, deep=deep)
        return found


def _scalar(read: Any) -> Any:
    def construct(loader: _CoreLoader, node: Any) -> Any:
        text = loader.construct_scalar(node)
        try:
            return read(text)
        except (ValueError, KeyError) as error:
            problem = f"{text!r} is not {node.tag.removeprefix('tag:yaml.org,2002:')}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    return construct


def _read_int(text: str) -> int:
    base = {"0o": 8, "0x": 16}.get(text[:2])
    return int(_bounded(text)[2:], base) if base else _int(text)


def _read_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _read_bool(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


def _install_core_schema() -> None:
    _CoreLoader.yaml_implicit_resolvers = {}
    _CoreLoader.yaml_constructors = {}
    tag = "tag:yaml.org,2002:"
    for name, pattern, first in (
        ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
        (
            "float",
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            "-+.0123456789",
        ),
    ):
        _CoreLoader.add_implicit_resolver(tag + name, re.compile(rf"^(?:{pattern})$"), list(first))
    readers = {"int": _read_int, "float": _read_float, "bool": _read_bool, "null": lambda _: None, "str": str}
    for name, read in readers.items():
        _CoreLoader.add_constructor(tag + name, _scalar(read))
    _CoreLoader.yaml_constructors |= {
        tag + "seq": yaml.SafeLoader.construct_yaml_seq,
        tag + "map": yaml.SafeLoader.construct_yaml_map,
        None: yaml.SafeLoader.construct_undefined,  # every other tag
    }


def _check_values(document: Any) -> None:
    """Refuse what could not be stored or answered: deep nesting, half characters, NUL."""
    pending = [(document, 1)]
    seen = 0
    while pending:
        seen += 1
        if seen > _MAX_VALUES:
            raise MalformedDocument(_TOO_MANY)
        value, depth = pending.pop()
        if depth > _MAX_DEPTH:
            raise MalformedDocument(_TOO_DEEP)
        match value:
            case dict():
                pending += [(item, depth + 1) for pair in value.items() for item in pair]
            case list():
                pending += [(item, depth + 1) for item in value]
            case str() if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
                raise MalformedDocument("A string holds a character that is no text (NUL or half a surrogate pair): remove it.")
            case _:
                pass


def _twice(key: str) -> str:
    return f"the key {key!r} stands twice in one object: keep one of them"


_TOO_MANY = f"The body has more than {_MAX_VALUES:,} values: no definition has."
_TOO_DEEP = f"The body is nested deeper than {_MAX_DEPTH} levels: no definition is."

_install_core_schema()
