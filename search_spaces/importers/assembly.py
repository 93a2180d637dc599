"""The pieces of another tool's file, put together to a study's document in our words."""

import math
import re
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, assert_never

from search_spaces.importers.names import KEYS, WHOLE, key_of, metric_of, value_of
from search_spaces.importers.pieces import Found, Goal, Note, NotImportable, Part, Piece
from search_spaces.importers.ranges import choices, constant, interval

_NO_LETTER = re.compile(r"[^A-Za-z0-9 ._-]+")
_MOST_LETTERS = 100
_SECTIONS = ("name", "trainer", "space", "objective", "strategy", "budget", "resources", "seed")
_LADDERS = ("hyperband", "pbt")
"""Strategies that decide themselves how long a trial runs."""
_REPORTS = 10
"""Reports of a trial whose length is in steps, where nothing says how many."""
_TOLERANCE = 1e-9
"""What floats round off of a number of steps."""


def assemble(pieces: Iterable[Piece], tool: str) -> tuple[dict[str, Any], tuple[Note, ...]]:
    """The document, and the notes on what does not carry over. Raises `NotImportable`, as the pieces do."""
    parts: dict[str, Any] = {"trainer": {}, "space": {}}
    notes, found = list[Note](), list[Found]()
    for piece in pieces:
        match piece:
            case Note():
                notes.append(piece)
            case Found():
                found.append(piece)
            case Goal():
                parts["objective"] = {"metric": metric_of(piece.metric) or piece.metric, "direction": piece.direction}
                notes += _said_of_metric(piece)
            case Part():
                parts[piece.key] = (
                    {**parts.get(piece.key, {}), **piece.value} if isinstance(piece.value, Mapping) else piece.value
                )
            case _:
                assert_never(piece)
    name = _name(parts.get("name"), tool)
    if name != parts.get("name"):
        notes.append(Note("", f"the study is called {name!r}: rename it as you like"))
    is_ladder = parts.get("strategy", {}).get("kind") in _LADDERS
    for item in _named(found, parts["trainer"], is_ladder=is_ladder):
        if isinstance(item, Note):
            notes.append(item)
        else:
            section = "trainer" if item.parameter["kind"] == "constant" and item.name in KEYS else "space"
            value = item.parameter["value"] if section == "trainer" else dict(item.parameter)
            parts[section] = {**parts[section], item.name: value}
    document, said = _completed({**parts, "name": name})
    return {key: document[key] for key in _SECTIONS if key in document}, tuple(dict.fromkeys([*notes, *said]))


def _said_of_metric(goal: Goal) -> Iterator[Note]:
    metric = metric_of(goal.metric)
    if metric is None:
        yield Note(goal.path, f"`{goal.metric}` is no metric that a trainer here is known to report: name one of its own")
    elif metric != goal.metric:
        yield Note(goal.path, f"`{goal.metric}` is `{metric}` here")


def _named(found: Sequence[Found], settled: Collection[str], *, is_ladder: bool) -> Iterator[Found | Note]:
    """Each parameter under the name that it has here; the first of several that mean the same keeps it."""
    taken = set(settled)
    for one in found:
        key = key_of(one.name)
        if key is None:
            name = one.name.lstrip("-")
            yield Note(one.path, f"`{name}` is no setting that a trainer here has: give it the name of one, or take it out")
            yield Found(one.path, name, one.parameter)
        elif key in taken:
            yield Note(one.path, f"`{one.name}` says what `{key}` is, which something else says already: left out")
        else:
            taken.add(key)
            if key != one.name:
                yield Note(one.path, f"`{one.name}` is `{key}` here")
            yield Found(one.path, key, (yield from _settled(one, key, is_ladder=is_ladder)))


def _settled(one: Found, key: str, *, is_ladder: bool) -> Generator[Note, None, Mapping[str, Any]]:
    """The parameter with the values that its key takes here."""
    parameter = one.parameter
    match parameter["kind"]:
        case "constant":
            changed = constant(_value(key, parameter["value"]))
        case "categorical":
            values = [_value(key, value) for value in parameter["choices"]]
            changed = yield from choices(one.path, values, ordered=parameter.get("ordered", False))
        case "float" if key in WHOLE:
            changed = yield from _whole(one.path, parameter)
        case _:
            changed = dict(parameter)
    if changed != parameter:
        yield Note(one.path, f"`{key}` has other values here: changed to {_shown(changed)}")
    if key == "epochs" and is_ladder and changed["kind"] != "constant":
        longest = changed["high"] if "high" in changed else max(changed["choices"], key=_size)
        yield Note(one.path, f"the strategy decides how long a trial runs: not searched; `epochs` is {longest}, the longest")
        return constant(longest)
    return changed


def _value(key: str, value: Any) -> Any:
    """The value, where it is one of ours by another name, or a whole number written as a real one."""
    if key in WHOLE and isinstance(value, float) and value.is_integer():
        return int(value)
    return value_of(key, value)


def _size(value: Any) -> float:
    return value if isinstance(value, int | float) else -math.inf


def _whole(path: str, parameter: Mapping[str, Any]) -> Generator[Note, None, dict[str, Any]]:
    """The whole numbers in a range of real ones."""
    low, high = math.ceil(parameter["low"]), math.floor(parameter["high"])
    if low > high:
        raise NotImportable(path, "holds no whole number: widen the range")
    grid = [value for value in dict.fromkeys(map(round, parameter.get("grid", ()))) if low <= value <= high]
    found = yield from interval(path, low, high, log=parameter.get("log", False), step=parameter.get("step"), whole=True)
    return {**found, "grid": grid} if grid and found["kind"] == "int" else found


def _shown(parameter: Mapping[str, Any]) -> str:
    match parameter["kind"]:
        case "constant":
            return repr(parameter["value"])
        case "categorical":
            return " or ".join(map(repr, parameter["choices"]))
        case _:
            return f"whole numbers from {parameter['low']} to {parameter['high']}"


def _name(given: Any, tool: str) -> str:
    """A study's name: letters, digits, spaces, dots, dashes and underscores, the first a letter or a digit."""
    cleaned = _NO_LETTER.sub("-", given if isinstance(given, str) else "").strip(" ._-")[:_MOST_LETTERS]
    return cleaned or f"from-{tool}"


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """`lora.rank: 8` as `lora: {rank: 8}`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        group, _, key = name.rpartition(".")
        if group:
            found[group] = {**found.get(group, {}), key: value}
        else:
            found[key] = value
    return found


def _completed(document: Mapping[str, Any]) -> tuple[dict[str, Any], list[Note]]:
    """The document with what the other tool need not say, and notes on that."""
    trainer, space, strategy = document["trainer"], document["space"], document.get("strategy", {})
    notes = list[Note]()
    if not space:
        notes.append(Note("", "nothing varies: add a parameter to `space`"))
    if isinstance(trainer.get("max_steps"), int | float) and "report_every" not in trainer:
        trainer = {**trainer, "report_every": max(1, int(trainer["max_steps"]) // _REPORTS)}
        notes.append(Note("", f"`max_steps` needs `report_every` here: set to {trainer['report_every']}"))
    size, trials = _grid_size(document), document.get("budget", {}).get("trials")
    if size is not None and trials is not None and size > trials:
        strategy = {**strategy, "sample": True}
        notes.append(Note("", f"the grid is larger than {trials} trials: `sample: true` takes so many of it by chance"))
    return {**document, "trainer": _nested(trainer), "strategy": strategy}, notes


def _grid_size(document: Mapping[str, Any]) -> int | None:
    """Configurations in the grid, where the strategy is one and each parameter has a countable number of values."""
    if document.get("strategy", {}).get("kind") != "grid":
        return None
    counts = [_count(parameter) for parameter in document["space"].values()]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def _count(parameter: Mapping[str, Any]) -> int | None:
    match parameter:
        case {"grid": list(values)} | {"choices": list(values)}:
            return len(values)
        case {"kind": "constant"}:
            return 1
        case {"kind": "int"} | {"step": _}:
            steps = (parameter["high"] - parameter["low"]) / parameter.get("step", 1)
            return int(steps + _TOLERANCE) + 1 if math.isfinite(steps) else None
        case _:
            return None
