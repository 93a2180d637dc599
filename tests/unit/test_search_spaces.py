"""What varies, and over which values."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from search_spaces import (
    CategoricalParameter,
    ConstantParameter,
    FloatParameter,
    IntParameter,
    Parameter,
    Space,
    Value,
    contains,
    grid_values,
    identity,
)

ANY: TypeAdapter[Parameter] = TypeAdapter(Parameter)


def a_parameter(document: dict[str, Any]) -> Parameter:
    """A parameter as a client sends it."""
    return ANY.validate_json(json.dumps(document))


def a_float(low: float = 0.0, high: float = 1.0, **changes: Any) -> FloatParameter:
    return FloatParameter(kind="float", low=low, high=high, **changes)


def an_int(low: int = 0, high: int = 6, **changes: Any) -> IntParameter:
    return IntParameter(kind="int", low=low, high=high, **changes)


def choices(*values: Value) -> CategoricalParameter:
    return CategoricalParameter(kind="categorical", choices=values)


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "float", "low": 0, "high": 1},
        {"kind": "float", "low": -1.5, "high": -1.5},
        {"kind": "float", "low": 1e-300, "high": 1e300, "log": True},
        {"kind": "float", "low": 0.0, "high": 1.0, "grid": [0.0, 0.5, 1.0]},
        {"kind": "int", "low": -3, "high": 3, "step": 2},
        {"kind": "int", "low": 1, "high": 10**30, "log": True},
        {"kind": "int", "low": 0, "high": 6, "grid": [6, 0, 3]},
        {"kind": "int", "low": 0, "high": 1, "step": 5},
        {"kind": "categorical", "choices": [1]},
        {"kind": "categorical", "choices": [1, 1.0, True, "1", None, ""]},
        {"kind": "categorical", "choices": [[], {}, [1], [1.0], {"a": 1}, {"a": [1, None]}], "ordered": True},
        {"kind": "float", "low": 0.1, "high": 0.5, "step": 0.1, "grid": [0.1, 0.3]},
        {"kind": "float", "low": 0, "high": 1, "step": 5},
        {"kind": "constant", "value": {"betas": [0.9, 0.999]}},
        {"kind": "constant", "value": None},
        {"kind": "int", "low": 1, "high": 2, "when": {"a": 1, "b.c": ["x", [1], None]}},
    ],
)
def test_a_parameter_that_makes_sense_is_read_and_written_back(document: dict[str, Any]) -> None:
    parameter = a_parameter(document)
    assert ANY.validate_json(parameter.model_dump_json()) == parameter
    assert document.items() <= parameter.model_dump(mode="json").items()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "float", "low": 2, "high": 1}, "swap"),
        ({"kind": "float", "low": 0, "high": 1, "log": True}, "above 0"),
        ({"kind": "float", "low": -1, "high": 1, "log": True}, "above 0"),
        ({"kind": "float", "low": 0, "high": 1, "grid": [0.5, 1.5]}, "1.5"),
        ({"kind": "float", "low": 0, "high": 1, "grid": [0.5, 0.5]}, "twice"),
        ({"kind": "float", "low": 0, "high": 1, "grid": []}, "at least 1"),
        ({"kind": "float", "low": "0", "high": 1}, "valid number"),
        ({"kind": "float", "low": True, "high": 1}, "valid number"),
        ({"kind": "float", "low": 0, "high": 1, "steps": 1}, "not permitted"),
        ({"kind": "float", "low": 0, "high": 1, "step": 0}, "greater than 0"),
        ({"kind": "float", "low": 1, "high": 2, "step": 0.1, "log": True}, "do not go together"),
        ({"kind": "float", "low": 0, "high": 1, "step": 1e-300}, "too small"),
        ({"kind": "float", "low": 1e12, "high": 1e12 + 1, "step": 1e-3}, "too small"),
        ({"kind": "float", "low": 0, "high": 1, "step": 0.25, "grid": [0.25, 0.3]}, "0.3, which is no whole number"),
        ({"kind": "int", "low": 0, "high": 10**301}, "too large"),
        ({"kind": "categorical", "choices": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, "twice"),
        ({"kind": "constant"}, "required"),
        ({"kind": "constant", "value": 1, "low": 0}, "not permitted"),
        ({"kind": "int", "low": 0, "high": 1, "when": {}}, "at least 1"),
        ({"kind": "int", "low": 0, "high": 1, "when": ["a"]}, "should be an object"),
        ({"kind": "float", "low": 0}, "required"),
        ({"kind": "float", "low": 0, "high": 1, "log": 1}, "valid boolean"),
        ({"kind": "int", "low": 2, "high": 1}, "swap"),
        ({"kind": "int", "low": 0, "high": 8, "log": True}, "above 0"),
        ({"kind": "int", "low": 1, "high": 8, "log": True, "step": 2}, "do not go together"),
        ({"kind": "int", "low": 0, "high": 8, "step": 0}, "greater than or equal to 1"),
        ({"kind": "int", "low": 0, "high": 8, "grid": [9]}, "9"),
        ({"kind": "int", "low": 0, "high": 8, "grid": [1, 1]}, "twice"),
        ({"kind": "int", "low": 0, "high": 8.5}, "valid integer"),
        ({"kind": "int", "low": False, "high": 8}, "valid integer"),
        ({"kind": "categorical", "choices": []}, "at least 1"),
        ({"kind": "categorical", "choices": ["a", "b", "a"]}, "twice"),
        ({"kind": "categorical", "choices": [None, None]}, "twice"),
        ({"kind": "categorical", "choices": list(range(1001))}, "at most 1000"),
        ({"kind": "normal", "low": 0, "high": 1}, "expected tags"),
        ({"low": 0, "high": 1}, "discriminator"),
    ],
)
def test_a_parameter_that_makes_no_sense_is_refused(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        a_parameter(document)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused_everywhere(value: float) -> None:
    for make in (
        lambda: a_float(low=value), lambda: a_float(high=value), lambda: a_float(grid=(value,)), lambda: choices(0.5, value)
    ):  # fmt: skip
        with pytest.raises(ValidationError):
            make()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"kind": "int", "low": 0, "high": 10, "step": 3, "grid": [0, 4]}, "step"),
        ({"kind": "int", "low": 1, "high": 10, "step": 2, "grid": [2]}, "step"),
    ],
)
def test_grid_values_between_two_steps_are_refused(document: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        a_parameter(document)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (a_float(), None),
        (a_float(0.5, 0.5), [0.5]),
        (a_float(grid=(0.1, 0.0)), [0.1, 0.0]),
        (an_int(1, 4), [1, 2, 3, 4]),
        (an_int(-2, 3, step=2), [-2, 0, 2]),
        (an_int(5, 5), [5]),
        (an_int(grid=(3, 0)), [3, 0]),
        (an_int(1, 4, log=True), [1, 2, 3, 4]),
        (choices(None, "a", True), [None, "a", True]),
        (a_float(0.1, 0.5, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
        (a_float(0.0, 0.5, step=0.2), [0.0, 0.2, 0.4]),
        (a_float(0.0, 0.5, step=0.1, grid=(0.3,)), [0.3]),
        (ConstantParameter(kind="constant", value=[1]), [[1]]),
    ],
)
def test_a_grid_tries_these_values(parameter: Parameter, expected: list[Value] | None) -> None:
    values = grid_values(parameter)
    assert (None if values is None else list(values)) == expected


@pytest.mark.parametrize(
    ("space", "size"),
    [
        ({}, 1),
        ({"a": an_int(0, 6), "b": choices("x", "y")}, 14),
        ({"a": an_int(0, 10, step=3)}, 4),
        ({"a": an_int(0, 9, grid=(1, 2))}, 2),
        ({"a": a_float(grid=(0.1, 0.2, 0.3)), "b": a_float(1, 1)}, 3),
        ({"a": an_int(0, 2**63)}, 2**63 + 1),
        ({"a": a_float(0, 1, step=0.25), "b": ConstantParameter(kind="constant", value=1)}, 5),
        ({"a": an_int(-(10**30), 10**30), "b": an_int(0, 10**30 - 1, step=10)}, (2 * 10**30 + 1) * 10**29),
    ],
)
def test_a_grid_is_counted_without_writing_it_out(space: dict[str, Parameter], size: int) -> None:
    assert Space(space).grid_size() == size


def test_a_grid_over_a_continuous_parameter_cannot_be_counted() -> None:
    with pytest.raises(ValueError, match="`rate`"):
        Space({"layers": an_int(), "rate": a_float()}).grid_size()


@pytest.mark.parametrize(
    ("space", "size"),
    [
        ({}, 1),
        ({"a": an_int(0, 10**30), "b": choices(0.5)}, 10**30 + 1),
        ({"a": a_float(1, 1)}, 1),
        ({"a": an_int(), "b": a_float()}, None),
        ({"a": a_float(grid=(0.1, 0.2))}, None),
        ({"a": a_float(0, 1, step=0.1), "b": an_int(0, 9, grid=(1, 2))}, 110),
    ],
)
def test_a_space_without_a_continuous_range_has_a_size(space: dict[str, Parameter], size: int | None) -> None:
    assert Space(space).size() == size


@pytest.mark.parametrize(
    ("parameter", "inside", "outside"),
    [
        (a_float(0, 1), [0, 0.0, 1, 0.5], [-0.1, 1.1, True, False, "0.5", None, math.nan, math.inf, 10**400]),
        (an_int(0, 6, step=2), [0, 2, 6], [1, 8, -2, 2.0, True, False, "2", None]),
        (an_int(3, 10**40), [3, 10**40], [2, 10**40 + 1]),
        (choices(1, "1", None), [1, "1", None], [1.0, True, 2, "", "None"]),
        (choices(True, 0), [True, 0], [False, 1, 0.0]),
        (choices([1], {"a": 1, "b": 2}), [[1], {"b": 2, "a": 1}], [[1.0], [True], {"a": 1}, 1, "[1]"]),
        (a_float(0.1, 0.5, step=0.1), [0.1, 0.3, 0.1 + 2 * 0.1, 0.5], [0.15, 0.0, 0.6, "0.1", True]),
        (ConstantParameter(kind="constant", value=1), [1], [1.0, True, None]),
    ],
)
def test_a_parameter_takes_its_values_and_no_others(parameter: Parameter, inside: list[Value], outside: list[Value]) -> None:
    assert [contains(parameter, value) for value in inside] == [True] * len(inside)
    assert [contains(parameter, value) for value in outside] == [False] * len(outside)


_INTS = st.tuples(st.integers(-(10**6), 10**6), st.integers(0, 200), st.integers(1, 50)).map(
    lambda drawn: an_int(drawn[0], drawn[0] + drawn[1], step=drawn[2])
)
_FLOATS = st.lists(st.floats(-1e9, 1e9), min_size=1, unique=True).map(
    lambda grid: a_float(min(grid), max(grid), grid=tuple(grid))
)
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
_CHOICES = st.lists(_SCALARS, min_size=1, unique_by=identity).map(lambda values: choices(*values))


@given(parameter=_INTS | _FLOATS | _CHOICES)
def test_all_that_a_grid_tries_is_in_the_parameter_and_counted(parameter: Parameter) -> None:
    values = list(grid_values(parameter) or ())
    assert all(contains(parameter, value) for value in values)
    assert Space({"only": parameter}).grid_size() == len(values)


@given(parameter=_INTS, value=st.integers())
def test_a_whole_number_is_in_the_parameter_just_when_the_grid_tries_it(parameter: IntParameter, value: int) -> None:
    values = grid_values(parameter)
    assert values is not None
    assert contains(parameter, value) == (value in list(values))


def test_values_are_told_apart_by_their_json() -> None:
    values: list[Value] = [1, 1.0, True, "1", None, [1], [1.0], {"a": 1, "b": [2]}, {"a": 1}]
    assert len({identity(value) for value in values}) == len(values)
    assert identity({"a": 1, "b": [2]}) == identity({"b": [2], "a": 1})
