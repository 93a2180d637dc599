"""Merge patches, by the examples of RFC 7396 and by what must hold of any."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.merge_patch import merged

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


def without_null(value: Any) -> Any:
    """What a patch says of a document that does not hold the key yet."""
    return {key: without_null(item) for key, item in value.items() if item is not None} if isinstance(value, dict) else value


@pytest.mark.parametrize(
    ("document", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc_come_out(document: Any, patch: Any, result: Any) -> None:
    assert merged(document, patch) == result


@given(document=VALUES, patch=VALUES)
def test_a_patch_applied_twice_is_the_patch_applied_once_and_nothing_given_changes(document: Any, patch: Any) -> None:
    before = json.dumps([document, patch])
    once = merged(document, patch)
    assert merged(once, patch) == once
    assert json.dumps([document, patch]) == before


@given(document=VALUES)
def test_an_empty_patch_changes_no_object(document: Any) -> None:
    assert merged(document, {}) == (document if isinstance(document, dict) else {})


@given(patch=VALUES)
def test_a_patch_of_nothing_is_what_it_says(patch: Any) -> None:
    assert merged(None, patch) == without_null(patch)
