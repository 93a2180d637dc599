"""Draws and grids: deterministic, inside the space, never twice the same."""

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from search_spaces import Constraint, Key, Parameter, Space
from service.search.draws import draw_unseen, random_of, seed_of
from service.search.grid import grid_configuration

_SPACE = TypeAdapter(dict[str, Parameter])

MIXED: dict[str, Any] = {
    "rate": {"kind": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.5},
    "fixed": {"kind": "float", "low": 0.3, "high": 0.3},
    "layers": {"kind": "int", "low": 1, "high": 64, "log": True},
    "width": {"kind": "int", "low": 8, "high": 39, "step": 8},
    "choice": {"kind": "categorical", "choices": [None, True, 1, 1.5, "a"]},
}


def a_space(*constraints: str, **parameters: Any) -> Space:
    return Space(_SPACE.validate_json(json.dumps(parameters)), tuple(map(Constraint, constraints)))


@given(st.integers(0, 2**31 - 1), st.integers(0, 1000))
def test_every_draw_lies_in_the_space(seed: int, number: int) -> None:
    space = a_space(**MIXED)
    drawn = draw_unseen(space, set(), random_of(seed, number, "draw"))
    assert drawn is not None
    assert list(drawn) == list(space.parameters)
    assert space.contains(drawn)


def test_a_log_range_is_drawn_uniformly_in_its_logarithm() -> None:
    space = a_space(rate=MIXED["rate"])
    drawn = [draw_unseen(space, set(), random_of(0, number, "draw")) for number in range(2000)]
    below = sum(math.log10(item["rate"]) < -3.5 for item in drawn if item and isinstance(item["rate"], float))
    assert 900 < below < 1100


def test_an_int_range_in_steps_gives_all_its_values_and_no_others() -> None:
    space = a_space(width=MIXED["width"])
    drawn = [item["width"] for number in range(200) if (item := draw_unseen(space, set(), random_of(0, number, "draw")))]
    assert {width for width in drawn if isinstance(width, int)} == {8, 16, 24, 32}


def test_draws_do_not_depend_on_the_order_in_which_a_store_gives_the_space_back() -> None:
    forwards, backwards = a_space(**MIXED), a_space(**dict(reversed(MIXED.items())))
    assert draw_unseen(forwards, set(), random_of(1, 2, "draw")) == draw_unseen(backwards, set(), random_of(1, 2, "draw"))


def test_a_finite_space_is_drawn_empty_without_a_repetition() -> None:
    space = a_space(width=MIXED["width"], choice=MIXED["choice"], fixed=MIXED["fixed"])
    seen: set[Key] = set()
    while drawn := draw_unseen(space, seen, random_of(3, len(seen), "draw")):
        assert space.key(drawn) not in seen
        seen.add(space.key(drawn))
    assert len(seen) == space.size() == 20


@pytest.mark.parametrize(
    ("constraints", "size"), [((), 10), (("layers > 1 or rank >= 8",), 7), (("layers == 2 and rank == 8",), 3)]
)
def test_a_space_with_conditions_and_constraints_is_drawn_empty_too(constraints: tuple[str, ...], size: int) -> None:
    layers = {"kind": "int", "low": 1, "high": 2}
    rank = {"kind": "categorical", "choices": [2, 4, 6, 8], "when": {"use": "lora"}}
    space = a_space(*constraints, layers=layers, use={"kind": "categorical", "choices": ["lora", "full"]}, rank=rank)
    seen: set[Key] = set()
    while drawn := draw_unseen(space, seen, random_of(3, len(seen), "draw")):
        assert space.contains(drawn)
        assert space.key(drawn) not in seen
        seen.add(space.key(drawn))
    assert len(seen) == space.size() == size


def test_a_continuous_space_has_no_size() -> None:
    assert a_space(rate=MIXED["rate"]).size() is None


def test_values_that_python_holds_for_equal_are_different_choices() -> None:
    space = a_space(choice={"kind": "categorical", "choices": [1, True, 0, False, None]})
    keys = {space.key({"choice": choice}) for choice in (1, True, 0, False, None)}
    assert len(keys) == 5


def test_seeds_are_the_same_in_another_process() -> None:
    code = "from service.search.draws import seed_of; print(seed_of(7, 3, 'draw'))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == seed_of(7, 3, "draw")


def test_the_grid_holds_every_combination_once_in_an_order_of_the_seed() -> None:
    space = a_space(
        rate={**MIXED["rate"], "grid": [1e-5, 1e-4]}, layers={"kind": "int", "low": 0, "high": 2}, choice=MIXED["choice"]
    )
    size = len(space.grid())
    first = [grid_configuration(space, 1, number, set()) for number in range(size)]
    second = [grid_configuration(space, 2, number, set()) for number in range(size)]
    assert size == 30
    assert len({tuple(map(repr, item.values())) for item in first if item}) == size
    assert first != second
    assert sorted(map(repr, first)) == sorted(map(repr, second))
    assert grid_configuration(space, 1, size, {space.key(one) for one in space.grid()}) is None


def test_the_service_can_draw_without_importing_optuna_or_torch() -> None:
    code = "import sys, service.search; print([name for name in ('optuna', 'torch', 'ray') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
