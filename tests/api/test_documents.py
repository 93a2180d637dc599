import json
from typing import Any

import pytest

from service.api.documents import JSON_TYPE, decode
from service.domain.errors import MalformedDocument, UnsupportedMediaType

YAML = "application/yaml"
JSON = "application/json"


def from_yaml(text: str) -> Any:
    return decode(text.encode(), YAML)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6), ("1.0e-6", 1e-6), ("-2E+3", -2000.0), (".5", 0.5), ("3", 3), ("-3", -3), ("010", 10), ("0x1f", 31),
        ("0o17", 15), ("true", True), ("False", False), ("null", None), ("~", None),
        ("no", "no"), ("on", "on"), ("2030-01-02", "2030-01-02"),
        ("12:30:45", "12:30:45"), ("1_000", "1_000"), ("1h30m", "1h30m"), ("'1'", "1"), ("!!str 1", "1"),
        ("<<", "<<"), ("=", "="),
    ],
)  # fmt: skip
def test_a_yaml_scalar_is_what_it_looks_like(text: str, value: Any) -> None:
    found = from_yaml(f"a: {text}")["a"]
    assert found == value
    assert type(found) is type(value)


def test_an_empty_value_is_null() -> None:
    assert from_yaml("a:\nb: 1") == {"a": None, "b": 1}


@pytest.mark.parametrize("content_type", [None, YAML, "application/x-yaml", "text/yaml; charset=utf-8", JSON, "Application/JSON"])
def test_json_is_read_under_every_content_type(content_type: str | None) -> None:
    document = {"name": "a", "list": [1, 2.5, None, True, {"x": "\u00e9\n"}], "log": 1e-06}
    assert decode(json.dumps(document).encode(), content_type) == document


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "json", "", "application/*"],
)
def test_another_content_type_is_refused_with_what_to_send(content_type: str) -> None:
    if not content_type:
        assert decode(b"{}", content_type) == {}
        return
    with pytest.raises(UnsupportedMediaType, match="application/yaml"):
        decode(b"{}", content_type)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "Line 2, column 1: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}", "stands twice"),
        ("a: &x 1\nb: *x", "aliases"),
        ("1: 2", "must be a string"),
        ("null: 2", "must be a string"),
        ("? [a]\n: 1", "must be a string"),
        ("a: [1", "Line"),
        ("a: 1\n---\nb: 2", "but found another document"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!timestamp 2030-01-02", "could not determine a constructor"),
        ("a: !!binary aGk=", "could not determine a constructor"),
        ("a: !!int x", "'x' is not int"),
        ("a: !!float x", "'x' is not float"),
        ("a: !!bool x", "'x' is not bool"),
        ("a: !!int [1]", "scalar node"),
        ("a: " + "9" * 5000, "not int"),
        ("a: \x01", "cannot be read"),
        ('a: "\\0"', "NUL"),
        ('a: "\\ud800"', "invalid Unicode"),
        ("a: " + "[" * 65 + "]" * 65, "deeper than 64"),
        ("[" * 100_000, "deeper than 64"),
    ],
)
def test_yaml_that_is_not_plain_is_refused_with_its_place_or_cause(text: str, said: str) -> None:
    with pytest.raises(MalformedDocument) as refusal:
        from_yaml(text)
    assert said in refusal.value.detail


def test_aliases_do_not_multiply() -> None:
    bomb = "\n".join(["a0: &a0 [x]", *(f"a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 10)}]" for n in range(20))])
    with pytest.raises(MalformedDocument, match="Line 2: aliases"):
        from_yaml(bomb)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": {"b": 1, "b": 1}}', "stands twice"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ('{"a": ' + "9" * 5000 + "}", "5000 digits"),
        ('{"a": }', "Line 1, column 7"),
        ("", "Line 1, column 1"),
        ("a: 1", "Line 1, column 1"),
        ("[" * 100_000, "deeper than 64"),
        ("[" * 65 + "]" * 65, "deeper than 64"),
        ('{"\\ud800": 1}', "surrogate"),
        ('{"a": "\\u0000"}', "NUL"),
    ],
)
def test_json_that_is_not_plain_is_refused_with_its_place_or_cause(text: str, said: str) -> None:
    with pytest.raises(MalformedDocument) as refusal:
        decode(text.encode(), JSON)
    assert said in refusal.value.detail


def test_bytes_that_are_not_utf_8_are_refused() -> None:
    with pytest.raises(MalformedDocument, match="byte 3"):
        decode(b"a: \xff", YAML)


def test_a_byte_order_mark_is_no_part_of_the_document() -> None:
    assert decode(b"\xef\xbb\xbf{}", JSON) == {}


@pytest.mark.parametrize(
    "text",
    [
        "a: [" + "1," * 100_001 + "1]",
        "".join(f"- &a{at} 1\n" for at in range(2000)),
        "%TAG !a! x\n--- 1",
        "a: 0x" + "f" * 1000,
    ],
    ids=["values", "anchors", "directives", "digits"],
)
def test_yaml_that_would_take_long_is_refused(text: str) -> None:
    with pytest.raises(MalformedDocument):
        from_yaml(text)


def test_json_of_very_many_values_is_refused() -> None:
    with pytest.raises(MalformedDocument, match="more than 100,000 values"):
        decode(b"[" + b"1," * 100_001 + b"1]", JSON_TYPE)
