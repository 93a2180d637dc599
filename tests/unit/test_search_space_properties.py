"""Spaces made up of everything there is: whatever comes out of one lies in it, and survives each translation."""

import json
import math
from itertools import islice
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from search_spaces import (
    Configuration,
    Constraint,
    FloatParameter,
    NoConfiguration,
    Parameter,
    Space,
    Value,
    condition_faults,
    identity,
    value_at,
)
from search_spaces.conditions import contexts
from search_spaces.ranges import count
from service.search.draws import draw_unseen, random_of
from service.search.evidence import Observation
from service.search.gaussian_process import gaussian_process_proposals
from tests.builders import a_definition

_ONE = TypeAdapter[Parameter](Parameter)
_NAMES = ["a", "b", "group.c", "d", "e"]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("xyz", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text("kl", max_size=1), inner, max_size=2),
    max_leaves=3,
)
_CONSTRAINTS = ["a != b", "a in [0, 1, 'x'] or d != 1", "group.c == e or a != 0", "min(a, d) < 3", "a * b <= 8"]


@st.composite
def numbers(draw: st.DrawFn) -> dict[str, Any]:
    """A float or an int, in each of its forms."""
    low, width = draw(st.integers(1, 50)), draw(st.integers(0, 40))
    kind = draw(st.sampled_from(["float", "int"]))
    scale = 10 if kind == "float" else 1
    form: dict[str, Any] = draw(st.sampled_from([{}, {"log": True}, {"step": _over(draw(st.integers(1, 7)), scale)}]))
    return {"kind": kind, "low": _over(low, scale), "high": _over(low + width, scale), **form}


def _over(number: int, scale: int) -> float:
    return number if scale == 1 else number / scale


def _values_of(parameter: Parameter, places: int) -> st.SearchStrategy[list[Value]]:
    return st.lists(st.integers(0, places - 1).map(lambda place: value_at(parameter, place)), min_size=1, max_size=2)


@st.composite
def parameters(draw: st.DrawFn, others: dict[str, Parameter]) -> Parameter:
    """A parameter of any kind, which may exist only beside others that are there already."""
    listed = st.lists(_JSON, min_size=1, max_size=4, unique_by=identity)
    document = draw(
        numbers()
        | st.fixed_dictionaries({"kind": st.just("categorical"), "choices": listed, "ordered": st.booleans()})
        | st.fixed_dictionaries({"kind": st.just("constant"), "value": _JSON})
    )
    possible = {name: places for name, other in others.items() if (places := count(other)) is not None}
    named = draw(st.lists(st.sampled_from(sorted(possible)), unique=True, max_size=2)) if possible else []
    if named:
        document["when"] = {name: draw(_values_of(others[name], possible[name])) for name in named}
    return _ONE.validate_json(json.dumps(document))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """A space of one to five parameters, sound, in any order, with constraints that some draws meet."""
    found: dict[str, Parameter] = {}
    for name in draw(st.lists(st.sampled_from(_NAMES), min_size=1, unique=True)):
        found[name] = draw(parameters(found))
    assume(not list(condition_faults(found)))
    shuffled = {name: found[name] for name in draw(st.permutations(sorted(found)))}
    texts = draw(st.lists(st.sampled_from(_CONSTRAINTS), max_size=2, unique=True))
    space = Space(shuffled, tuple(Constraint(text) for text in texts))
    assume(any(space.meets_constraints(Space(shuffled).draw(random_of(seed, 0, "test"))) for seed in range(20)))
    return space


def again(configuration: Configuration) -> Configuration:
    """The configuration once it was stored."""
    read: Configuration = json.loads(json.dumps(configuration))
    return read


def is_sound(space: Space, configuration: Configuration) -> bool:
    """Whether a configuration is one of the space's, in its order, and the same once it was stored."""
    is_in_order = list(configuration) == [name for name in space.parameters if name in configuration]
    stored = again(configuration)
    return (
        is_in_order and space.contains(configuration) and space.key(stored) == space.key(configuration) and space.contains(stored)
    )


@settings(max_examples=40)
@given(space=spaces(), seed=st.integers(0, 99))
def test_what_is_drawn_is_one_of_the_spaces_configurations(space: Space, seed: int) -> None:
    drawn = space.draw(random_of(seed, 0, "test"))
    assert is_sound(space, drawn)
    assert space.active(drawn) == drawn
    assert space.draw(random_of(seed, 0, "test")) == drawn


@settings(max_examples=40)
@given(space=spaces(), point=st.lists(st.floats(0, 1), min_size=len(_NAMES), max_size=len(_NAMES)))
def test_any_point_of_the_unit_cube_is_a_configuration_and_comes_back_from_there(space: Space, point: list[float]) -> None:
    plain = Space(space.parameters)
    found = plain.from_unit(point[: len(plain.names)])
    assert is_sound(plain, found)
    there = plain.to_unit(found)
    assert [share is not None for share in there] == [name in found for name in plain.names]
    assert all(share is None or 0 <= share <= 1 for share in there)
    back = plain.from_unit(there)
    assert list(back) == list(found)
    for name, value in found.items():
        parameter = plain.parameters[name]
        if isinstance(parameter, FloatParameter) and count(parameter) is None:
            assert isinstance(value, float)
            assert math.isclose(float(str(back[name])), value, rel_tol=1e-9)
        else:
            assert plain.key({name: back[name]}) == plain.key({name: value})


@settings(max_examples=40)
@given(space=spaces())
def test_a_grid_holds_each_of_its_configurations_once(space: Space) -> None:
    finite = {name: one for name, one in space.parameters.items() if count(one) is not None and not one.when}
    assume(finite)
    small = Space(finite, space.constraints)
    assume((small.grid_size() or math.inf) < 2000)
    grid = small.grid()
    assert all(is_sound(small, one) for one in grid)
    assert len({small.key(one) for one in grid}) == len(grid) == small.size() == small.grid_size()


@settings(max_examples=30)
@given(space=spaces(), seed=st.integers(0, 99))
def test_a_grid_with_conditions_has_all_that_is_drawn(space: Space, seed: int) -> None:
    assume(all(count(one) is not None for one in space.parameters.values()))
    assume((space.grid_size() or math.inf) < 2000)
    keys = [space.key(one) for one in space.grid()]
    assert all(is_sound(space, one) for one in space.grid())
    assert len(set(keys)) == len(keys) == space.size()
    assert space.key(space.draw(random_of(seed, 0, "test"))) in keys
    assert draw_unseen(space, set(keys), random_of(seed, 0, "test")) is None
    assert space.key(draw_unseen(space, set(keys[1:]), random_of(seed, 0, "test")) or {}) == keys[0]


@settings(max_examples=40)
@given(space=spaces(), seed=st.integers(0, 99))
def test_what_is_drawn_shows_that_its_values_occur_together(space: Space, seed: int) -> None:
    plain = Space(space.parameters)
    drawn = plain.draw(random_of(seed, 0, "test"))
    for name, value in drawn.items():
        found = contexts(plain.parameters, {name: value})
        assert any(plain.key(one) == plain.key({other: drawn[other] for other in one if other in drawn}) for one in found)


@settings(max_examples=15, deadline=None)
@given(space=spaces(), seed=st.integers(0, 99))
def test_what_optuna_proposes_is_one_of_the_spaces_configurations(space: Space, seed: int) -> None:
    definition = a_definition(seed=seed).model_copy(update={"space": dict(space.parameters)})
    definition.__dict__["search_space"] = space
    told = [Observation(space.draw(random_of(number, 0, "test")), float(number) if number % 3 else None) for number in range(6)]
    for proposal in islice(gaussian_process_proposals(definition, told, 6), 3):
        assert is_sound(space, proposal)


def test_a_space_that_only_constraints_empty_is_told_from_one_that_is_small() -> None:
    space = Space({"a": _ONE.validate_python({"kind": "int", "low": 0, "high": 3})}, (Constraint("a > 3"),))
    assert space.size() == 0
    assert draw_unseen(space, set(), random_of(0, 0, "test")) is None
    with pytest.raises(NoConfiguration, match="10000"):
        space.draw(random_of(0, 0, "test"))
