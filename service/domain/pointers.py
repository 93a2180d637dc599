"""Where in a document something is wrong: what pydantic found, as JSON pointers (RFC 6901) into what was sent."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from service.domain.access import CALLER_PATTERN, PROJECT_PATTERN
from service.domain.errors import Violation
from trainers.configs import METRIC_PATTERN

Location = tuple[str | int, ...]
"""Keys and indices from a document's root to a value in it."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9 ._-]*$"
"""Of a study's name."""
_PATTERNS = {
    NAME_PATTERN: "has letters from a to z, digits, spaces, dots, dashes and underscores only, a letter or digit first",
    PROJECT_PATTERN: "has 1 to 40 small letters from a to z, digits and dashes, with no dash at either end",
    CALLER_PATTERN: "has 1 to 64 printable ASCII characters, with no space at either end",
    METRIC_PATTERN: "is `train/`, `validation/`, `test/` or `model/` with small letters, digits and underscores behind it",
}
"""What patterns ask for, in words."""
_WITH_KINDS = frozenset({"trainer", "strategy", "sampler"})
"""Keys whose values are objects of several kinds."""
_SHOWN = 60
_CLOSE = 0.75


def pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def closest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, if one is spelled almost alike."""
    known = {one.lower(): one for one in names}
    return next((known[one] for one in get_close_matches(name.lower(), known, n=1, cutoff=_CLOSE)), None)


def advice(name: str, names: Sequence[str]) -> str:
    """What to write in the place of a name that there is not: the one that was meant, or one of all."""
    meant = closest(name, names)
    return f"did you mean `{meant}`?" if meant else f"there are {', '.join(f'`{one}`' for one in names)}"


def violations_of(
    model: type[BaseModel], document: Any, origins: Mapping[Location, Location], errors: Sequence[Any]
) -> list[Violation]:
    """What pydantic found of a model's document, said of it as it was sent, and once for each place in it.

    `origins` says of values that were added to the document what in it they came from.
    """
    found: dict[str, list[str]] = {}
    for item in errors:
        at = _place_of(document, item)
        if item["type"] == "missing" and at[:-1] in origins:
            place, said = origins[at[:-1]], f"needs `{'.'.join(map(str, at[1:]))}` beside it: add that to `{at[0]}`"
        else:
            place, said = origins.get(at, at), _message(model, item)
        found.setdefault(pointer(place), []).append(said)
    emptied = {pointer(_place(document, item["loc"], is_missing=False)) for item in errors if item["type"] == "too_short"}
    # A list whose values are all refused is said to be too short as well.
    blamed = {place for place in emptied if any(other.startswith(place + "/") for other in found)}
    return [Violation(place, "; or: ".join(dict.fromkeys(said))) for place, said in found.items() if place not in blamed]


def _place_of(document: Any, item: Any) -> Location:
    match item["type"]:
        case "union_tag_invalid":
            return _place(document, (*item["loc"], "kind"), is_missing=False)
        case "union_tag_not_found":
            return _place(document, (*item["loc"], "kind"), is_missing=True)
        case kind:
            return _place(document, item["loc"], is_missing=kind == "missing")


def _message(model: type[BaseModel], item: Any) -> str:  # noqa: PLR0911 - one case a kind of mistake
    match item["type"]:
        case "extra_forbidden":
            meant = closest(str(item["loc"][-1]), _keys_beside(model, item["loc"]))
            return "is not a key here: " + (f"did you mean `{meant}`?" if meant else "check its spelling or remove it")
        case "missing" | "union_tag_not_found":
            return "is required: add it"
        case "union_tag_invalid":
            return f"is none of the kinds there are: name one of {item['ctx']['expected_tags'].replace(chr(39), '`')}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return _no_object(item["loc"], item["input"])
        case "string_pattern_mismatch" if item["ctx"]["pattern"] in _PATTERNS:
            return f"is {_shown(item['input'])}, but one {_PATTERNS[item['ctx']['pattern']]}"
        case "too_short" if item["ctx"]["actual_length"] == 0:
            return f"is empty: give at least {item['ctx']['min_length']}"
        case "too_short":
            return f"has {item['ctx']['actual_length']}: give at least {item['ctx']['min_length']}"
        case "too_long":
            return f"has {item['ctx']['actual_length']}: give at most {item['ctx']['max_length']}"
        case _:
            return str(item["msg"]).removeprefix("Value error, ")


def _no_object(location: Location, given: Any) -> str:
    """What to write where something else stands in an object's place."""
    if not location:
        return ("is empty, and " if given is None else "") + "has to be an object of keys and values"
    if given is None:
        return "has no value: give it one, or leave the key out"
    keys = [part for part in location if isinstance(part, str)]
    has_kinds = keys and (keys[-1] in _WITH_KINDS or keys[:-1] == ["space"])
    if has_kinds and isinstance(given, str):
        return f"is {_shown(given)}, and has to be an object: write `{{kind: {given[:_SHOWN]}}}`, and what belongs to it"
    return f"is {_shown(given)}, and has to be an object of keys and values"


def _shown(value: Any) -> str:
    """A value as it was sent, or what it is where it is long."""
    match value:
        case list():
            return "a list"
        case str() if len(value) > _SHOWN:
            return repr(value[:_SHOWN] + "...")
        case _:
            return repr(value)


def _keys_beside(model: type[BaseModel], location: Sequence[str | int]) -> Iterator[str]:
    """The keys that there are where a location of pydantic's is."""
    models = [model]
    for part in location[:-1]:
        inner = [one for found in models if part in found.model_fields for one in _models_in(found.model_fields[part].annotation)]
        of_kind = [found for found in models if part in get_args(getattr(found.model_fields.get("kind"), "annotation", None))]
        models = inner or of_kind or models  # of lists and of objects with any keys, those of their values
    for found in models:
        yield from found.model_fields


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a value of this type may be, or hold in a list or under any key."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for one in get_args(annotation):
        yield from _models_in(one)


def _place(document: Any, location: Sequence[str | int], *, is_missing: bool) -> Location:
    """Where in the document a location of pydantic's is: that has the tags of unions in it, which the document does not."""
    found: list[str | int] = []
    current, may_be_tag = document, True
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        if isinstance(current, Mapping) and part in current:
            # A key may be called as the tag before it.
            if may_be_tag and part == current.get("kind") and not is_last:
                may_be_tag = False
                continue
            current = current[part]
        elif isinstance(current, list) and isinstance(part, int) and part < len(current):
            current = current[part]
        elif not (is_missing and is_last):
            may_be_tag = False
            continue
        found.append(part)
        may_be_tag = True
    return tuple(found)
