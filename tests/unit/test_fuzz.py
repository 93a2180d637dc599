"""What anybody may send, made up by the thousand: our own errors alone come of it, in little time and memory."""

import contextlib
import io
import json
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from search_spaces.expressions import ExpressionError, read_expression, read_formula
from service.api.documents import JSON_TYPE, decode
from service.api.downloads import Download, file_response
from service.api.gateway_rules import canonical_path, is_listed, read_only_query
from service.catalog.headers import read_header
from service.domain.definition import parse_definition
from service.domain.errors import TuneyardError
from service.store import cursors
from tests.builders import a_document
from tests.unit.catalog_shelf import write_model
from trainers.images import look_images, read_images
from trainers.tables import TableError, look, read

_MEGABYTES = 200
_SECONDS = 20.0
_FEW = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=20,
)
_WORDS = st.sampled_from(
    [
        "a", "b.c", "1", "1e308", "0x1F", "9" * 300, "'x'", "True", "None", "[", "]", "(", ")", ",", "+", "-", "*", "**", "/",
        "//", "%", "<", "<=", "==", "in", "not", "and", "or", "if", "else", "min(", "max(", "log(", "sqrt(", "abs(",
        "__class__", ".",
        "lambda:", "f'{a}'", "{", "}", ":=", "~", "@", "<<",
    ]
)  # fmt: skip


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fails where more time or memory goes by than anything small may take."""
    tracemalloc.start()
    begun = time.process_time()
    try:
        yield
        assert time.process_time() - begun < _SECONDS
        assert tracemalloc.get_traced_memory()[1] < _MEGABYTES * 10**6
    finally:
        tracemalloc.stop()


def refused_or_read(work: Callable[[], Any], *known: type[Exception]) -> None:
    with bounded(), contextlib.suppress(*known):
        work()


@_FEW
@given(body=st.binary(max_size=300) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_body_is_decoded_or_refused(body: bytes) -> None:
    for media_type in (JSON_TYPE, "application/yaml", None):
        refused_or_read(partial(decode, body, media_type), TuneyardError)


@_FEW
@given(document=_JSON)
def test_a_document_of_any_form_is_a_definition_or_refused(document: Any) -> None:
    refused_or_read(lambda: parse_definition(document), TuneyardError)


@_FEW
@given(
    at=st.sampled_from(sorted([*a_document(), "outcomes", "constraints", "initial", "final", "warm_start", "requirements"])),
    value=_JSON,
)
def test_a_definition_with_anything_in_the_place_of_a_key_is_read_or_refused(at: str, value: Any) -> None:
    refused_or_read(lambda: parse_definition({**a_document(), at: value}), TuneyardError)


@_FEW
@given(at=st.sampled_from(["kind", "low", "high", "log", "step", "choices", "when", "grid", "default"]), value=_JSON)
def test_a_parameter_with_anything_in_it_is_read_or_refused(at: str, value: Any) -> None:
    space = {"learning_rate": {"kind": "float", "low": 0.1, "high": 1.0, at: value}}
    refused_or_read(lambda: parse_definition({**a_document(), "space": space}), TuneyardError)


@settings(_FEW, max_examples=300)
@given(words=st.lists(_WORDS, max_size=30).map(" ".join) | st.text(max_size=80))
def test_an_expression_has_an_answer_or_is_refused(words: str) -> None:
    for reads in (read_expression, read_formula):
        with bounded(), contextlib.suppress(ExpressionError):
            expression = reads(words)
            values: dict[str, Any] = dict.fromkeys(expression.names, 2)
            with contextlib.suppress(ArithmeticError, TypeError, ValueError):
                answer = expression.evaluate(values)
                assert answer is None or isinstance(answer, bool | int | float | str | list)


@_FEW
@given(
    ending=st.sampled_from(["csv", "jsonl", "parquet", "conll", "bio"]),
    content=st.binary(max_size=400) | st.text(max_size=200).map(str.encode),
)
def test_a_file_of_rows_is_read_or_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_bytes(content)
    refused_or_read(lambda: look(path), TableError)
    refused_or_read(lambda: read(path, ["text"]), TableError)


@_FEW
@given(document=st.lists(st.dictionaries(st.sampled_from(["text", "label", "tokens"]), _JSON, max_size=3), max_size=3))
def test_rows_that_hold_anything_are_read_or_refused(tmp_path: Path, document: list[dict[str, Any]]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, document)), errors="surrogatepass")
    refused_or_read(lambda: read(path, ["text", "label"]), TableError)


@_FEW
@given(name=st.text(min_size=1, max_size=30), content=st.binary(max_size=100), at=st.integers(0, 300), byte=st.integers(0, 255))
def test_a_zip_with_a_wrong_byte_is_read_or_refused(tmp_path: Path, name: str, content: bytes, at: int, byte: int) -> None:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive, contextlib.suppress(UnicodeEncodeError):
        archive.writestr(f"{name}/1.png", content)
    raw = bytearray(made.getvalue())
    raw[at % len(raw)] = byte
    path = tmp_path / "pictures.zip"
    path.write_bytes(raw)
    refused_or_read(lambda: look_images(path), TableError)
    refused_or_read(lambda: list(read_images(path)), TableError)


@_FEW
@given(
    header=st.binary(max_size=200) | _JSON.map(lambda value: json.dumps(value).encode()),
    length=st.none() | st.integers(0, 2**64 - 1),
)
def test_a_header_of_weights_is_read_or_refused(tmp_path: Path, header: bytes, length: int | None) -> None:
    folder = tmp_path / "model"
    if not folder.exists():
        write_model(folder)
    (folder / "model.safetensors").write_bytes((len(header) if length is None else length).to_bytes(8, "little") + header)
    refused_or_read(lambda: read_header("tiny", folder), TuneyardError)


@_FEW
@given(
    config=st.dictionaries(
        st.sampled_from(["model_type", "num_hidden_layers", "hidden_size", "auto_map", "depths", "image_size"]), _JSON
    )
)
def test_a_configuration_of_a_model_is_read_or_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tmp_path / "model"
    if not folder.exists():
        write_model(folder)
    (folder / "config.json").write_text(json.dumps(config))
    refused_or_read(lambda: read_header("tiny", folder), TuneyardError)


@settings(_FEW, max_examples=300)
@given(
    raw=st.binary(max_size=80).map(lambda rest: b"/mlflow/" + rest)
    | st.lists(st.sampled_from([b"..", b"%2e", b"/", b"%2f", b";", b"a", b"%00"])).map(b"".join)
)
def test_a_path_to_mlflow_has_one_reading_or_none(raw: bytes) -> None:
    with bounded():
        path = canonical_path(raw)
        if path is not None:
            assert path.startswith("/mlflow/")
            assert ".." not in path.split("/")
            assert canonical_path(path.encode()) == path
            is_listed("GET", path)


@_FEW
@given(
    query=st.text(max_size=200)
    | st.lists(st.sampled_from(["{", "}", "query", "mutation", "mlflowGetRun", "(", ")", "...", "on", "x", ":", "$a"])).map(
        " ".join
    )
)
def test_a_graphql_query_is_one_that_reads_or_refused(query: str) -> None:
    refused_or_read(lambda: read_only_query(json.dumps({"query": query}).encode()), TuneyardError)
    refused_or_read(lambda: read_only_query(query.encode("utf-8", "replace")), TuneyardError)


@_FEW
@given(header=st.text(max_size=40) | st.from_regex(r"bytes=[0-9]{0,25}-[0-9]{0,25}", fullmatch=True), size=st.integers(0, 2000))
def test_a_range_is_within_the_file_or_refused(header: str, size: int) -> None:
    request: Any = SimpleNamespace(headers={"Range": header}, method="GET")
    with bounded(), contextlib.suppress(TuneyardError):
        response = file_response(request, Download(io.BytesIO(b"x" * size), size, "0" * 64, "text/plain", "a.txt"))
        assert 0 <= int(response.headers["Content-Length"]) <= size


@_FEW
@given(cursor=st.text(max_size=80) | _JSON.map(lambda key: cursors.encode("created_at", [key])))
def test_a_cursor_is_one_of_ours_or_refused(cursor: str) -> None:
    refused_or_read(lambda: cursors.decode(cursor, "created_at", [str, int]), TuneyardError)


@pytest.mark.parametrize(
    "text", ["(" * 200, "9" * 499, "-" * 500, "a" + ".b" * 240, "9**" * 160 + "9", "not " * 120 + "a", "[" * 250]
)
def test_an_expression_as_long_as_may_be_takes_no_time(text: str) -> None:
    for reads in (read_expression, read_formula):
        refused_or_read(partial(reads, text), ExpressionError)
