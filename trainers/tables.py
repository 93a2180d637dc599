"""Tables of rows in CSV, JSONL and Parquet files, read as text. The catalog checks files with it, trainers read their rows.

Needs pyarrow and nothing heavier.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import csv, parquet

FORMATS = (".csv", ".jsonl", ".parquet")
"""File name endings that can be read."""

_BLOCK_BYTES = 16 * 1024**2
"""The longest row of a CSV file."""

Column = list[str | None]


class TableError(ValueError):
    """A file that cannot be read as a table; `column` names the column where one is to blame."""

    def __init__(self, detail: str, column: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.column = column


@dataclass(frozen=True)
class Summary:
    """What a file holds."""

    rows: int
    columns: tuple[str, ...]


def look(path: Path, name: str | None = None) -> Summary:
    """Count rows and name columns. Reads to the end, in constant memory, so that a broken row anywhere is found.

    `name` tells the format where `path` is a temporary file. Raises TableError, OSError.
    """
    rows, columns = 0, dict[str, None]()
    for table in _tables(path, name or path.name, None):
        rows += table.rows
        columns.update(dict.fromkeys(table.columns))
    return Summary(rows, tuple(columns))


def read(path: Path, columns: Sequence[str]) -> dict[str, Column]:
    """The values of some columns, as text; numbers as they would be written, missing ones as None.

    Raises TableError for a broken file, a column that is not there and a value that is no text or number; OSError.
    """
    found: dict[str, Column] = {column: [] for column in columns}
    for table in _tables(path, path.name, columns):
        for column, values in found.items():
            values.extend(table.values[column])
    return found


@dataclass(frozen=True)
class _Part:
    rows: int
    columns: Sequence[str]
    values: Mapping[str, Column]


def _tables(path: Path, name: str, wanted: Sequence[str] | None) -> Iterator[_Part]:
    """The file part by part; `wanted` None only counts."""
    try:
        match Path(name).suffix.lower():
            case ".csv":
                yield from _csv(path, wanted)
            case ".jsonl":
                yield from _jsonl(path, wanted)
            case ".parquet":
                yield from _parquet(path, wanted)
            case other:
                raise TableError(f"{other or 'no ending'!r} is not a format that can be read: use one of {', '.join(FORMATS)}")
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # a damaged page of a Parquet file is an OSError
        raise TableError(f"the file is broken: {error}") from error


def _csv(path: Path, wanted: Sequence[str] | None) -> Iterator[_Part]:
    parse = csv.ParseOptions(newlines_in_values=True)
    read_options = csv.ReadOptions(block_size=_BLOCK_BYTES)
    with csv.open_csv(path, read_options=read_options, parse_options=parse) as reader:
        columns = _distinct(reader.schema.names)
    _check_columns(columns, wanted)
    # Every column as text: guessed types would turn the label "007" into 7, and change from one part of a file to the next.
    convert = csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False)
    with csv.open_csv(path, read_options=read_options, parse_options=parse, convert_options=convert) as reader:
        yield _Part(0, columns, {column: [] for column in wanted or ()})
        for batch in reader:
            yield _Part(batch.num_rows, columns, {column: batch.column(column).to_pylist() for column in wanted or ()})


def _parquet(path: Path, wanted: Sequence[str] | None) -> Iterator[_Part]:
    with parquet.ParquetFile(path) as file:
        columns = _distinct(file.schema_arrow.names)
        _check_columns(columns, wanted)
        yield _Part(0, columns, {column: [] for column in wanted or ()})
        for batch in file.iter_batches(columns=None if wanted is None else list(dict.fromkeys(wanted))):
            yield _Part(batch.num_rows, columns, {column: _text_column(batch.column(column), column) for column in wanted or ()})


def _text_column(values: Any, column: str) -> Column:
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    if pa.types.is_floating(kind):
        return [None if value is None else json.dumps(value) for value in values.to_pylist()]  # as JSONL has it: 1.0, not 1
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    if not (is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind)):
        raise TableError(f"column {column!r} holds {kind}, which is no text or number", column)
    return list(values.cast(pa.string()).to_pylist())


def _jsonl(path: Path, wanted: Sequence[str] | None) -> Iterator[_Part]:
    seen = dict[str, None]()
    values: dict[str, Column] = {column: [] for column in wanted or ()}
    rows = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _json_row(line, number)
            seen.update(dict.fromkeys(row))
            rows += 1
            for column, column_values in values.items():
                column_values.append(_json_text(row.get(column), column, number))
    _check_columns(tuple(seen), wanted)
    yield _Part(rows, tuple(seen), values)


def _json_row(line: bytes, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TableError(f"line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise TableError(f"line {number} is no JSON object: write one object a line, with the columns as its keys")
    return row


def _json_text(value: Any, column: str, number: int) -> str | None:
    match value:
        case None:
            return None
        case str():
            if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
                raise TableError(f"line {number} holds half a surrogate pair as {column!r}, which is no text", column)
            return value
        case bool() | int() | float():
            return json.dumps(value)
        case _:
            raise TableError(f"line {number} holds a list or an object as {column!r}, not a text or number", column)


def _distinct(columns: Sequence[str]) -> tuple[str, ...]:
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise TableError(f"two columns are called {twice[0]!r}: rename one", twice[0])
    return tuple(columns)


def _check_columns(columns: Sequence[str], wanted: Sequence[str] | None) -> None:
    for column in wanted or ():
        if column not in columns:
            listed = ", ".join(repr(one) for one in columns) or "none"
            raise TableError(f"there is no column {column!r}: the file has {listed}", column)
