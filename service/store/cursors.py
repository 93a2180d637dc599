"""Pages that stay right while rows come and go: a cursor holds the key of the last row seen, and the order it belongs to."""

import base64
import binascii
import json
import math
from collections.abc import Sequence
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Integer, and_, literal, or_

from service.domain.errors import InvalidQuery
from service.store.tables import storable


def encode(order: str, key: Sequence[Any]) -> str:
    """A cursor for the rows after the one with this key."""
    text = json.dumps([order, *key], ensure_ascii=False, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode(cursor: str, order: str, kinds: Sequence[type | tuple[type, ...]]) -> list[Any]:
    """The key in a cursor; raises InvalidQuery unless we made it for this order."""
    try:
        text = base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)).decode()
        found = json.loads(text)
    except (ValueError, binascii.Error, RecursionError):
        found = None
    if not isinstance(found, list) or len(found) != 1 + len(kinds) or found[0] != order:
        raise InvalidQuery("The cursor is not one that this list gave for this order: leave `cursor` out to begin anew.")
    key = found[1:]
    if not all(isinstance(part, kind) and _is_storable(part) for part, kind in zip(key, kinds, strict=True)):
        raise InvalidQuery("The cursor is damaged: leave `cursor` out to begin anew.")
    return list(key)


def _is_storable(part: Any) -> bool:
    match part:
        case bool():
            return False
        case int():
            return abs(part) < 2**63
        case float():
            return not math.isnan(part)
        case _:
            return not isinstance(part, str) or storable(part) == part


def after(columns: Sequence[ColumnElement[Any]], key: Sequence[Any], descending: Sequence[bool]) -> ColumnElement[bool]:
    """Rows behind `key` in the lexical order of `columns`."""
    alternatives = []
    for place, (column, value, is_down) in enumerate(zip(columns, key, descending, strict=True)):
        equal = [earlier == _bound(earlier, seen) for earlier, seen in zip(columns[:place], key[:place], strict=True)]
        seen = _bound(column, value)
        alternatives.append(and_(*equal, column < seen if is_down else column > seen))
    return or_(*alternatives)


def _bound(column: ColumnElement[Any], value: Any) -> Any:
    """A key's value as SQL; a whole number may be greater than any in its column."""
    return literal(value, BigInteger) if isinstance(column.type, Integer) else value
