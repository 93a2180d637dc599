"""Tables of rows in CSV, JSONL, Parquet and CoNLL files, read as text.

The catalog checks files with it, trainers read their rows. Needs pyarrow and nothing heavier.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute
from pyarrow import csv as arrow_csv

from trainers.bounds import ROW_BYTES, TooMuch, check_columns, check_csv_header, lines_of
from trainers.conll import BrokenConll, Sentence, read_sentences
from trainers.parquets import open_parquet

FORMATS = (".csv", ".jsonl", ".parquet", ".conll", ".bio")
"""File name endings that can be read."""

CONLL_COLUMNS = ("tokens", "tags")
"""What the columns of a CoNLL file are called, which has no names for them: each row of it is a sentence."""

_ROWS_AT_ONCE = 1000
_BYTES_AT_ONCE = 16 * 1024**2
_PARQUET_ROWS_AT_ONCE = 65_536
_WORDS_AT_ONCE = 100_000

Column = list[str | None]
ListColumn = list[list[str] | None]


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


@dataclass(frozen=True)
class Part:
    """Some rows that follow each other: the columns that were asked for, as text or as lists of text."""

    rows: int
    columns: Sequence[str]
    texts: Mapping[str, Column] = field(default_factory=dict)
    lists: Mapping[str, ListColumn] = field(default_factory=dict)


def look(path: Path, name: str | None = None) -> Summary:
    """Count rows and name columns. Reads to the end, in constant memory, so that a broken row anywhere is found.

    `name` tells the format where `path` is a temporary file. Raises TableError, OSError.
    """
    rows, columns = 0, dict[str, None]()
    for part in _parts(path, name or path.name, None):
        rows += part.rows
        columns.update(dict.fromkeys(part.columns))
    return Summary(rows, tuple(columns))


def read(path: Path, columns: Sequence[str]) -> dict[str, Column]:
    """The values of some columns, as text; numbers as they would be written, missing ones as None.

    Raises TableError for a broken file, a column that is not there and a value that is no text or number; OSError.
    """
    found: dict[str, Column] = {column: [] for column in columns}
    for part in parts(path, columns):
        for column, values in found.items():
            values.extend(part.texts[column])
    return found


def read_lists(path: Path, columns: Mapping[str, str | None]) -> dict[str, ListColumn]:
    """The values of some columns, each as a list of texts; numbers as they would be written, missing values as None.

    `columns` says for each where to split what the file holds as text and not as a list: at white space for None, else at that
    separator, without the space around the pieces and without empty ones. Raises TableError, OSError.
    """
    found: dict[str, ListColumn] = {column: [] for column in columns}
    for part in parts(path, lists=columns):
        for column, values in found.items():
            values.extend(part.lists[column])
    return found


def parts(path: Path, texts: Sequence[str] = (), lists: Mapping[str, str | None] | None = None) -> Iterator[Part]:
    """The same as `read` and `read_lists`, in constant memory. Raises TableError, OSError."""
    return _parts(path, path.name, _Wanted(tuple(texts), lists or {}))


@dataclass(frozen=True)
class _Wanted:
    texts: tuple[str, ...]
    lists: Mapping[str, str | None]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys([*self.texts, *self.lists]))


def _parts(path: Path, name: str, wanted: _Wanted | None) -> Iterator[Part]:
    """The file part by part; `wanted` None only counts."""
    try:
        match Path(name).suffix.lower():
            case ".csv":
                yield from _csv(path, wanted)
            case ".jsonl":
                yield from _jsonl(path, wanted)
            case ".parquet":
                yield from _parquet(path, wanted)
            case ".conll" | ".bio":
                yield from _conll(path, wanted)
            case other:
                raise TableError(f"{other or 'no ending'!r} is not a format that can be read: use one of {', '.join(FORMATS)}")
    except (FileNotFoundError, PermissionError):
        raise
    except (BrokenConll, TooMuch) as error:
        raise TableError(str(error)) from error
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:  # a damaged page of a Parquet file is an OSError
        raise TableError(f"the file is broken: {error}") from error


def _csv(path: Path, wanted: _Wanted | None) -> Iterator[Part]:
    try:
        yield from _csv_batches(path, wanted)
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise TableError(f"the file is broken: {_csv_fault(path) or error}") from error


def _csv_batches(path: Path, wanted: _Wanted | None) -> Iterator[Part]:
    parse = arrow_csv.ParseOptions(newlines_in_values=True)
    read_options = arrow_csv.ReadOptions(block_size=ROW_BYTES)
    check_csv_header(path)
    with arrow_csv.open_csv(path, read_options=read_options, parse_options=parse) as reader:
        columns = _distinct(reader.schema.names)
    _check_columns(columns, wanted)
    # Every column as text: guessed types would turn the label "007" into 7, and change from one part of a file to the next.
    convert = arrow_csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.string()), strings_can_be_null=False)
    with arrow_csv.open_csv(path, read_options=read_options, parse_options=parse, convert_options=convert) as reader:
        yield Part(0, columns, *_nothing(wanted))
        for batch in reader:
            yield _arrow_part(batch, columns, wanted)


def _csv_fault(path: Path) -> str | None:
    """The first line that is wrong, and how. Arrow does not say which it is, and a row may take several."""
    width = None
    with path.open("rb") as file:
        lines = (
            line.decode("utf-8-sig" if number == 1 else "utf-8", "surrogateescape") for number, line in lines_of(file, ROW_BYTES)
        )
        reader, begun = csv.reader(lines), 1
        try:
            for row in reader:
                line, begun = begun, reader.line_num + 1
                if not row:
                    continue
                width = width or len(row)
                if any("\udc80" <= letter <= "\udcff" for value in row if not value.isascii() for letter in value):
                    return f"line {line} is no UTF-8"
                if len(row) != width:
                    return f"line {line} has {len(row)} value{'s' if len(row) > 1 else ''}, and the header has {width}"
        except csv.Error:
            return None
    return None


def _parquet(path: Path, wanted: _Wanted | None) -> Iterator[Part]:
    with open_parquet(path) as opened:
        columns = _distinct(opened.names)
        _check_columns(columns, wanted)
        yield Part(0, columns, *_nothing(wanted))
        for batch in opened.batches(None if wanted is None else wanted.columns, _PARQUET_ROWS_AT_ONCE):
            yield _arrow_part(batch, columns, wanted)


def _arrow_part(batch: Any, columns: Sequence[str], wanted: _Wanted | None) -> Part:
    texts, lists = (wanted.texts, wanted.lists) if wanted else ((), {})
    return Part(
        batch.num_rows,
        columns,
        {column: _text_column(batch.column(column), column) for column in texts},
        {column: _list_column(batch.column(column), column, separator) for column, separator in lists.items()},
    )


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


def _list_column(values: Any, column: str, separator: str | None) -> ListColumn:
    kind = values.type
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return [_split(value, separator) for value in _text_column(values, column)]
    # The items of all lists behind each other, then cut where each list ends.
    items = _text_column(values.flatten(), column)
    found: ListColumn = []
    at = 0
    for length in compute.list_value_length(values).to_pylist():
        found.append(None if length is None else _whole(items[at : at + length], column))
        at += length or 0
    return found


def _whole(items: Column, column: str) -> list[str]:
    whole = [item for item in items if item is not None]
    if len(whole) < len(items):
        raise TableError(f"a list in column {column!r} lacks a value: write every one", column)
    return whole


def _split(value: str | None, separator: str | None) -> list[str] | None:
    if value is None:
        return None
    return [piece.strip() for piece in value.split(separator) if piece.strip()]


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, as they are, with their lines' numbers from 1. Raises TableError, OSError."""
    for number, _, row in _json_lines(path):
        yield number, row


def _json_lines(path: Path) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The same with how many bytes each of them takes in the file."""
    with path.open("rb") as file:
        try:
            for number, line in lines_of(file, ROW_BYTES):
                if line.strip():
                    yield number, len(line), _json_row(line, number)
        except TooMuch as error:
            raise TableError(str(error)) from error


def _jsonl(path: Path, wanted: _Wanted | None) -> Iterator[Part]:
    seen = dict[str, None]()
    waiting: list[tuple[int, dict[str, Any]]] = []
    waiting_bytes = 0
    for number, size, row in _json_lines(path):
        new = [key for key in row if key not in seen]
        seen.update(dict.fromkeys(new))
        check_columns(new, beside=len(seen) - len(new))
        waiting.append((number, row))
        waiting_bytes += size
        if len(waiting) == _ROWS_AT_ONCE or waiting_bytes >= _BYTES_AT_ONCE:
            yield _json_part(waiting, tuple(seen), wanted)
            waiting, waiting_bytes = [], 0
    _check_columns(tuple(seen), wanted)
    yield _json_part(waiting, tuple(seen), wanted)


def _json_part(rows: Sequence[tuple[int, dict[str, Any]]], columns: Sequence[str], wanted: _Wanted | None) -> Part:
    texts, lists = (wanted.texts, wanted.lists) if wanted else ((), {})
    return Part(
        len(rows),
        columns,
        {column: [_json_text(row.get(column), column, number) for number, row in rows] for column in texts},
        {
            column: [_json_list(row.get(column), column, number, separator) for number, row in rows]
            for column, separator in lists.items()
        },
    )


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


def _json_list(value: Any, column: str, number: int, separator: str | None) -> list[str] | None:
    if not isinstance(value, list):
        return _split(_json_text(value, column, number), separator)
    items = [_json_text(item, column, number) for item in value]
    if None in items:
        raise TableError(f"line {number} has a list as {column!r} that lacks a value: write every one", column)
    return [item for item in items if item is not None]


def _conll(path: Path, wanted: _Wanted | None) -> Iterator[Part]:
    _check_columns(CONLL_COLUMNS, wanted)
    if wanted is not None and wanted.texts:
        column = wanted.texts[0]
        raise TableError(f"column {column!r} of a CoNLL file holds lists of words, which are no text", column)
    waiting: list[Sentence] = []
    yield _conll_part(waiting, wanted)
    words = 0
    for sentence in read_sentences(path):
        waiting.append(sentence)
        words += len(sentence)
        if len(waiting) == _ROWS_AT_ONCE or words >= _WORDS_AT_ONCE:
            yield _conll_part(waiting, wanted)
            waiting, words = [], 0
    yield _conll_part(waiting, wanted)


def _conll_part(sentences: Sequence[Sentence], wanted: _Wanted | None) -> Part:
    lists: dict[str, ListColumn] = {}
    for column in wanted.lists if wanted else ():
        place = CONLL_COLUMNS.index(column)
        lists[column] = [[word[place] for word in sentence] for sentence in sentences]
    return Part(len(sentences), CONLL_COLUMNS, lists=lists)


def _nothing(wanted: _Wanted | None) -> tuple[dict[str, Column], dict[str, ListColumn]]:
    return ({column: [] for column in wanted.texts}, {column: [] for column in wanted.lists}) if wanted else ({}, {})


def _distinct(columns: list[str]) -> tuple[str, ...]:
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise TableError(f"two columns are called {twice[0]!r}: rename one", twice[0])
    check_columns(columns)
    return tuple(columns)


def _check_columns(columns: Sequence[str], wanted: _Wanted | None) -> None:
    for column in wanted.columns if wanted else ():
        if column not in columns:
            listed = ", ".join(repr(one) for one in columns) or "none"
            raise TableError(f"there is no column {column!r}: the file has {listed}", column)
