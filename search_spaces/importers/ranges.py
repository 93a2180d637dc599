"""Ranges of numbers, whichever tool they are from, as parameters of a search space."""

import math
from collections.abc import Generator
from typing import Any

from search_spaces.importers.pieces import Note, NotImportable
from search_spaces.values import identity

MOST_CHOICES = 1000


def interval(
    path: str, low: float, high: float, *, log: bool = False, step: float | None = None, whole: bool = False
) -> Generator[Note, None, dict[str, Any]]:
    """The parameter with the values from `low` to `high`, both included, and notes on what of them cannot be said."""
    if low > high:
        raise NotImportable(path, f"the range from {low:g} to {high:g} is empty: swap the two")
    if low == high:
        return constant(int(low) if whole else low)
    low, high = (math.ceil(low), math.floor(high)) if whole else (float(low), float(high))
    if low >= high:
        raise NotImportable(path, "holds no two whole numbers: widen the range")
    log = yield from _logarithm(path, low, log=log)
    step = yield from _step(path, high - low, step, log=log, whole=whole)
    found: dict[str, Any] = {"kind": "int" if whole else "float", "low": low, "high": high}
    if log:
        found["log"] = True
    if step is not None:
        found["step"] = step
    return found


def constant(value: Any) -> dict[str, Any]:
    """The parameter that has one value."""
    return {"kind": "constant", "value": value}


def choices(path: str, values: list[Any], *, ordered: bool = False) -> Generator[Note, None, dict[str, Any]]:
    """The parameter that has one of these values."""
    differing = list({identity(value): value for value in values}.values())
    if not differing:
        raise NotImportable(path, "holds no value to choose from: add some")
    if len(differing) < len(values):
        yield Note(path, "holds a value twice: each is listed once, and as likely as the others")
    if len(differing) == 1:
        return constant(differing[0])
    if len(differing) > MOST_CHOICES:
        raise NotImportable(path, f"holds {len(differing)} values, more than {MOST_CHOICES}: give a range in their place")
    found: dict[str, Any] = {"kind": "categorical", "choices": differing}
    return {**found, "ordered": True} if ordered else found


def _logarithm(path: str, low: float, *, log: bool) -> Generator[Note, None, bool]:
    if log and low <= 0:
        yield Note(path, f"a logarithm needs a lowest value above 0, not {low:g}: drawn uniformly; raise it and add `log: true`")
        return False
    return log


def _step(path: str, span: float, step: float | None, *, log: bool, whole: bool) -> Generator[Note, None, float | int | None]:
    """The step, where a parameter can have it."""
    if step is None or (whole and step == 1):
        return None
    if step <= 0:
        raise NotImportable(path, f"the step must be above 0, not {step:g}: mend it")
    if log:
        yield Note(path, f"a logarithmic range has no steps here: the step of {step:g} is left out")
        return None
    if whole and step != int(step):
        yield Note(path, f"whole numbers have whole steps: the step of {step:g} is left out")
        return None
    if step > span:
        yield Note(path, f"the step of {step:g} is wider than the range: left out")
        return None
    return int(step) if whole else float(step)
