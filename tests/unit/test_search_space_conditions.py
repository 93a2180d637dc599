"""Spaces in which parameters exist only sometimes, and values must meet constraints together."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from pydantic import TypeAdapter

from search_spaces import Configuration, Constraint, NoConfiguration, Parameter, Space, condition_faults
from search_spaces.conditions import contexts
from service.search.draws import random_of

_SPACE = TypeAdapter(dict[str, Parameter])


def a_space(*constraints: str, **parameters: Any) -> Space:
    return Space(_SPACE.validate_json(json.dumps(parameters)), tuple(map(Constraint, constraints)))


def choices(*values: Any, **changes: Any) -> dict[str, Any]:
    return {"kind": "categorical", "choices": list(values), **changes}


def an_int(low: int, high: int, **changes: Any) -> dict[str, Any]:
    return {"kind": "int", "low": low, "high": high, **changes}


def a_float(low: float, high: float) -> dict[str, Any]:
    return {"kind": "float", "low": low, "high": high}


@dataclass(frozen=True)
class Noted(Constraint):
    """Notes down each time that it is asked."""

    asked: list[str] = field(default_factory=list)

    def holds(self, configuration: Configuration) -> bool:
        self.asked.append(self.text)
        return super().holds(configuration)


NESTED = a_space(
    alpha=an_int(1, 2, when={"rank": [4, 8]}),
    method=choices("full", "lora", "frozen"),
    rank=choices(4, 8, 16, when={"method": "lora"}),
    layers=an_int(1, 3, when={"method": ["frozen", "full"], "deep": True}),
    deep=choices(True, False),
)


@pytest.mark.parametrize(
    ("changes", "active"),
    [
        ({}, ["method", "layers", "deep"]),
        ({"deep": False}, ["method", "deep"]),
        ({"method": "lora"}, ["alpha", "method", "rank", "deep"]),
        ({"method": "lora", "rank": 16}, ["method", "rank", "deep"]),
        ({"method": "frozen", "rank": 16}, ["method", "layers", "deep"]),
    ],
)
def test_a_parameter_exists_where_all_that_it_names_do_and_have_the_values(changes: dict[str, Any], active: list[str]) -> None:
    values = {"deep": True, "rank": 4, "alpha": 1, "method": "full", "layers": 1, **changes}
    assert list(NESTED.active(values)) == active
    assert NESTED.contains(NESTED.active(values))
    assert not NESTED.contains(values)


@pytest.mark.parametrize(
    "configuration",
    [
        {"method": "lora", "rank": 4, "deep": True},
        {"method": "lora", "rank": 16, "deep": True, "alpha": 1},
        {"method": "full", "deep": True, "layers": 4},
        {"method": "full", "deep": False, "wings": 1},
        {"method": "half", "deep": False},
        {"deep": False},
        {},
    ],
)
def test_a_configuration_that_lacks_an_active_parameter_or_has_another_is_not_in_the_space(configuration: Configuration) -> None:
    assert not NESTED.contains(configuration)


def test_what_does_not_exist_multiplies_neither_the_grid_nor_the_size() -> None:
    grid = NESTED.grid()
    assert len(grid) == NESTED.grid_size() == NESTED.size() == len({NESTED.key(one) for one in grid}) == 18
    assert all(NESTED.contains(one) for one in grid)


def test_the_order_in_which_a_store_gives_the_space_back_changes_no_grid_and_no_draw() -> None:
    backwards = Space(dict(reversed(list(NESTED.parameters.items()))))
    assert list(backwards.grid()) == list(NESTED.grid())
    assert [backwards.draw(random_of(seed, 0, "test")) for seed in range(9)] == [
        NESTED.draw(random_of(seed, 0, "test")) for seed in range(9)
    ]


def test_a_choice_is_known_by_its_json_and_a_float_by_its_number() -> None:
    space = a_space(
        step=choices(1, 1.0, True), rate={"kind": "float", "low": 0, "high": 1, "step": 0.1},
        one=an_int(0, 1, when={"step": True}), other=an_int(0, 1, when={"rate": [0, 0.3]}),
    )  # fmt: skip
    assert list(space.active({"step": 1, "rate": 0.0, "one": 1, "other": 1})) == ["step", "rate", "other"]
    assert list(space.active({"step": True, "rate": 0.1 + 0.2, "one": 1, "other": 1})) == ["step", "rate", "one", "other"]


@pytest.mark.parametrize(
    ("parameters", "place", "said"),
    [
        ({"a": an_int(0, 1, when={"b": 1})}, ("a", "when", "b"), "no parameter `b`: it has `a`"),
        ({"a": an_int(0, 1, when={"b": 2}), "b": an_int(0, 1)}, ("a", "when", "b"), "never 2"),
        ({"a": an_int(0, 1, when={"b": [1, True]}), "b": an_int(0, 1)}, ("a", "when", "b", 1), "never True"),
        ({"a": an_int(0, 1, when={"b": []}), "b": an_int(0, 1)}, ("a", "when", "b"), "no value"),
        ({"a": an_int(0, 1, when={"b": [1, 2]}), "b": choices([1, 2])}, ("a", "when", "b", 0), "never 1"),
        ({"a": an_int(0, 1, when={"b": 0.5}), "b": {"kind": "float", "low": 0, "high": 1}}, ("a", "when", "b"), "`step`"),
        ({"a": an_int(0, 1, when={"a": 1})}, ("a", "when"), "circle"),
        ({"a": an_int(0, 1, when={"b": 1}), "b": an_int(0, 1, when={"c": 1}), "c": an_int(0, 1, when={"a": 1})},
         ("a", "when"), "`a` only where `b` does, `b` only where `c` does, `c` only where `a` does"),
        ({"a": an_int(0, 1, when={"b": 1, "c": 0}), "b": an_int(0, 1, when={"c": 1}), "c": an_int(0, 1)},
         ("a", "when"), "never holds"),
    ],
)  # fmt: skip
def test_a_condition_that_cannot_be_met_is_refused_where_it_is(parameters: Any, place: Any, said: str) -> None:
    found = dict(condition_faults(a_space(**parameters).parameters))
    assert said in found[place]


def test_conditions_that_can_be_met_are_let_through() -> None:
    assert not list(condition_faults(NESTED.parameters))


def test_values_occur_together_where_no_condition_keeps_them_apart() -> None:
    parameters = NESTED.parameters
    assert list(contexts(parameters, {"rank": 4, "method": "full"})) == []
    assert list(contexts(parameters, {"rank": 4, "layers": 1})) == []
    assert list(contexts(parameters, {"alpha": 2})) == [
        {"alpha": 2, "rank": rank, "method": "lora"} for rank in (4, 8)
    ]  # fmt: skip
    assert list(contexts(parameters, {"layers": 2, "method": "full"})) == [{"layers": 2, "method": "full", "deep": True}]


LIMITED = a_space("batch * length <= 64", "batch != 3", batch=an_int(1, 8), length=choices(8, 16, 32))


def test_draws_grids_and_sizes_meet_the_constraints() -> None:
    assert all(LIMITED.contains(LIMITED.draw(random_of(seed, 0, "test"))) for seed in range(50))
    assert all(LIMITED.contains(one) for one in LIMITED.grid())
    assert LIMITED.size() == LIMITED.grid_size() == 7 + 3 + 2
    assert not LIMITED.contains({"batch": 8, "length": 16})


def test_a_space_in_which_no_draw_meets_the_constraints_gives_up() -> None:
    with pytest.raises(NoConfiguration, match="10000 draws"):
        a_space("a > 3", a=an_int(0, 3)).draw(random_of(0, 0, "test"))


def test_a_space_in_which_no_draw_meets_the_constraints_says_which_one_fails_most_often() -> None:
    often, never = "a > 0.5", "a > 2"
    for constraints in ((often, never), (never, often)):
        with pytest.raises(NoConfiguration, match="`a > 2` fails most often"):
            a_space(*constraints, a=a_float(0.0, 1.0)).draw(random_of(0, 0, "test"))


def test_the_longer_the_constraints_are_the_fewer_configurations_are_held_against_them() -> None:
    asked: list[str] = []
    constraints = [Noted("a < 10" + " and a < 10" * 44, asked=asked)] * 19 + [Noted("a > 9", asked=asked)]
    space = Space(a_space(a=a_float(0.0, 1.0)).parameters, tuple(constraints))
    with pytest.raises(NoConfiguration, match="none of 536 draws"):
        space.draw(random_of(0, 0, "test"))
    assert len(asked) == 20 * 100 + 536  # to put them in order, and then only the one that never holds
    many = a_space(a=an_int(0, 9), b=an_int(1, 1000)).parameters
    assert (Space(many, tuple(constraints)).size(), Space(many, (constraints[-1],)).size()) == (None, 0)


def test_what_a_trial_can_have_is_not_looked_for_without_end() -> None:
    asked: list[str] = []
    kinds = list(range(500))
    space = a_space(kind=choices(*kinds), y=an_int(1, 2, when={"kind": kinds}), x=a_float(0.0, 1.0))
    never = Space(space.parameters, (Noted("x > 2", asked=asked),))
    assert list(never.occurrences({"y": 1}, random_of(0, 0, "test"))) == []
    assert len(asked) == 500


def test_a_space_that_is_too_large_to_count_has_no_size() -> None:
    large = {f"p{place}": choices(*range(10)) for place in range(6)}
    assert a_space(**large).size() == a_space(**large).grid_size() == 10**6
    limited = a_space("p0 < 1", **large)
    assert (limited.size(), limited.grid_size()) == (None, None)
    with pytest.raises(ValueError, match="more than 100000"):
        limited.grid()


@pytest.mark.parametrize(
    ("parameter", "points"),
    [
        ({"kind": "float", "low": -1, "high": 3}, {0.0: -1.0, 0.5: 1.0, 1.0: 3.0, -7.0: -1.0, 7.0: 3.0}),
        ({"kind": "float", "low": 1e-4, "high": 1, "log": True}, {0.0: 1e-4, 0.5: 1e-2, 1.0: 1.0}),
        ({"kind": "float", "low": 0, "high": 1, "step": 0.5}, {0.0: 0.0, 0.3: 0.0, 0.34: 0.5, 0.5: 0.5, 0.67: 1.0, 1.0: 1.0}),
        (an_int(0, 9), {0.0: 0, 0.09: 0, 0.11: 1, 0.95: 9, 1.0: 9}),
        (an_int(0, 7, step=3), {0.0: 0, 0.34: 3, 0.99: 6, 1.0: 6}),
        (an_int(1, 64, log=True), {0.0: 1, 0.5: 6, 1.0: 64}),
        (choices("a", [1]), {0.0: "a", 0.49: "a", 0.5: [1], 1.0: [1]}),
        ({"kind": "constant", "value": None}, {0.0: None, 1.0: None}),
    ],
)
def test_a_point_of_the_unit_cube_is_a_value(parameter: dict[str, Any], points: dict[float, Any]) -> None:
    space = a_space(only=parameter)
    found = [space.from_unit([point])["only"] for point in points]
    assert found == pytest.approx(list(points.values())) if parameter["kind"] == "float" else found == list(points.values())


def test_values_of_finitely_many_stand_in_the_middle_of_their_cells() -> None:
    space = a_space(a=an_int(0, 3), b=choices("x", "y"), c={"kind": "constant", "value": 1}, d=an_int(0, 1, when={"a": 0}))
    assert space.to_unit({"a": 3, "b": "x", "c": 1}) == (0.875, 0.25, 0.5, None)
    assert space.to_unit({"a": 0, "b": "y", "c": 1, "d": 1}) == (0.125, 0.75, 0.5, 0.75)


def test_a_value_that_the_space_does_not_hold_has_no_place_in_the_cube() -> None:
    with pytest.raises(ValueError, match="'z'"):
        a_space(b=choices("x", "y")).to_unit({"b": "z"})
