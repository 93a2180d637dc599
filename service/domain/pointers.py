"""Where in a document something is wrong: what pydantic found, as JSON pointers (RFC 6901) into what was sent."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.domain.errors import Violation

Location = tuple[str | int, ...]
"""Keys and indices from a document's root to a value in it."""


def pointer(location: Sequence[str | int]) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)


def violations_of(document: Any, origins: Mapping[Location, Location], errors: Sequence[Any]) -> list[Violation]:
    """What pydantic found, said of the document as it was sent, and once for each place in it.

    `origins` says of values that were added to the document what in it they came from.
    """
    found: dict[str, list[str]] = {}
    for item in errors:
        at = _place_of(document, item)
        if item["type"] == "missing" and at[:-1] in origins:
            place, said = origins[at[:-1]], f"needs `{'.'.join(map(str, at[1:]))}` beside it: add that to `{at[0]}`"
        else:
            place, said = origins.get(at, at), _message(item)
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


def _message(item: Any) -> str:
    match item["type"]:
        case "extra_forbidden":
            return "is not a key here: check its spelling or remove it"
        case "missing" | "union_tag_not_found":
            return "is required: add it"
        case "union_tag_invalid":
            return f"is none of the kinds there are: name one of {item['ctx']['expected_tags'].replace(chr(39), '`')}"
        case _:
            return str(item["msg"]).removeprefix("Value error, ")


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
