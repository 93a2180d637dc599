"""What a parameter of a trial may be: any JSON value, told apart by its text, where 1, 1.0 and true are three values."""

import json
from collections.abc import Mapping
from typing import TypeAlias

from pydantic import JsonValue

Value: TypeAlias = JsonValue
"""What one parameter of one trial may be."""

Configuration: TypeAlias = Mapping[str, Value]
"""The values of a trial's active parameters, by name."""

Location: TypeAlias = tuple[str | int, ...]
"""Keys and indices from a search space to a place in it."""

Fault: TypeAlias = tuple[Location, str]
"""Where in a search space something is wrong, and what."""


def identity(value: Value) -> str:
    """Canonical JSON: the same text for the same value, whatever the order of keys, and only for it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
