"""What a configuration that a user asks for must be like."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.configuration_rules import configuration_violations
from service.domain.definition import parse_definition
from service.domain.errors import InvalidDefinition
from tests.builders import a_definition, a_document

SPACE: dict[str, Any] = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.3, "step": 0.1},
    "frozen_layers": {"kind": "int", "low": 0, "high": 4, "step": 2},
    "batch_size": {"kind": "categorical", "choices": [16, 32]},
    "optimizer": {"kind": "categorical", "choices": ["adamw", "adafactor"]},
    "weight_decay": {"kind": "float", "low": 0.0, "high": 0.3, "when": {"optimizer": "adamw"}},
}
CONSTRAINTS = ["learning_rate * batch_size <= 0.2"]
GOOD = {"learning_rate": 1e-3, "dropout": 0.3, "frozen_layers": 2, "batch_size": 16, "optimizer": "adafactor"}


def violations(*initial: Any, **changes: Any) -> dict[str, str]:
    """What is said about each place in the document."""
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(a_document(**{"space": SPACE, "constraints": CONSTRAINTS, "initial": list(initial), **changes}))
    return {violation.pointer: violation.detail for violation in refused.value.violations}


def test_configurations_of_the_space_are_kept_in_their_order() -> None:
    initial = [GOOD, {**GOOD, "optimizer": "adamw", "weight_decay": 0}]
    assert list(a_definition(space=SPACE, constraints=CONSTRAINTS, initial=initial).initial) == initial


@pytest.mark.parametrize(
    ("changes", "place", "said"),
    [
        ({"learning_rate": 0.5}, "/learning_rate", "cannot be 0.5: give it a number from 1e-05 to 0.01"),
        ({"learning_rate": "1e-3"}, "/learning_rate", 'cannot be "1e-3"'),
        ({"dropout": 0.25}, "/dropout", "in steps of 0.1"),
        ({"frozen_layers": 3}, "/frozen_layers", "give it a whole number from 0 to 4 in steps of 2"),
        ({"frozen_layers": 2.0}, "/frozen_layers", "cannot be 2.0"),
        ({"frozen_layers": True}, "/frozen_layers", "cannot be true"),
        ({"batch_size": 64}, "/batch_size", "give it 16 or 32"),
        ({"epochs": 3}, "/epochs", "is no parameter of the space, which has `learning_rate`, `dropout`"),
        ({"weight_decay": 0.1}, "/weight_decay", 'exists only where `optimizer` is "adamw": take it out, or change that'),
        ({"optimizer": "adamw"}, "", "lacks `weight_decay`: give it a number from 0.0 to 0.3"),
        ({"batch_size": 32, "learning_rate": 1e-2}, "", "does not meet the constraint `learning_rate * batch_size <= 0.2`"),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said_where_it_is(changes: Any, place: str, said: str) -> None:
    found = violations(GOOD, {**GOOD, **changes})
    assert list(found) == [f"/initial/1{place}"]
    assert said in found[f"/initial/1{place}"]


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = violations({**GOOD, "batch_size": 1, "x": 1}, {})
    assert set(found) == {"/initial/0/batch_size", "/initial/0/x", "/initial/1"}


def test_a_configuration_stands_once_whatever_its_order_and_the_form_of_its_numbers() -> None:
    first = {**GOOD, "optimizer": "adamw", "weight_decay": 0}
    again = {name: 0.0 if name == "weight_decay" else value for name, value in reversed(first.items())}
    assert violations(GOOD, first, again) == {"/initial/2": "is the same as /initial/1: keep one of them"}


def test_an_unsound_space_is_said_before_what_is_wrong_with_the_configurations_in_it() -> None:
    space = {"dropout": {"kind": "float", "low": 0.0, "high": 7.0}}
    assert list(violations({"dropout": 9}, space=space, constraints=[])) == ["/space/dropout/high"]


@given(seed=st.integers(0, 2**32))
def test_whatever_is_drawn_from_the_space_may_be_asked_for(seed: int) -> None:
    study = a_definition(space=SPACE, constraints=CONSTRAINTS)
    drawn = study.search_space.draw(Random(seed))  # noqa: S311 - a search, not a secret
    assert configuration_violations(study, drawn, ("initial", 0)) == []
