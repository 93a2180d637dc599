"""Parquet files, opened with care: what their pages say of themselves is looked at before anything of them is unpacked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet

from trainers.bounds import TooMuch, check_columns, check_unpacked
from trainers.parquet_footers import check_footer
from trainers.parquet_pages import Chunk, groups_of

_BATCH_BYTES = 64 * 1024**2
"""About what is unpacked at once."""
_ROW_BYTES = 512 * 1024**2
"""The most that a single row may take to read, with the pages that it is in."""
_JOINED_ROWS = 65_536
_READ_BYTES = 1024**2
"""What is read of a column at once."""


@dataclass(frozen=True)
class Opened:
    """A file as pyarrow reads it, where texts that repeat are kept once, with what its pages say."""

    file: Any
    groups: Sequence[Sequence[Chunk]]
    bytes: int

    @property
    def names(self) -> list[str]:
        """Its columns."""
        return list(self.file.schema_arrow.names)

    def batches(self, columns: Sequence[str] | None, most_rows: int) -> Iterator[Any]:
        """The rows of some columns, or of all of them, as many at once as about fit into `_BATCH_BYTES`.

        Texts that are kept once count as often as they are named, where columns are named. Raises TooMuch.
        """
        written_out = 0
        for at, group in enumerate(self.groups):
            read = [chunk for chunk in group if columns is None or any(map(chunk.is_of, columns))]
            rows = _rows_at_once(read, most_rows)
            for batch in self.file.iter_batches(batch_size=rows, row_groups=[at], columns=columns) if read else ():
                size = 0 if columns is None else sum(map(_decoded_bytes, batch.columns))
                written_out += size
                check_unpacked(written_out, self.bytes)
                yield from _parts(batch, size)


@contextmanager
def open_parquet(path: Path) -> Iterator[Opened]:
    """A file whose pages, as far as they say, can be read in little memory. Raises TooMuch, OSError, pyarrow.ArrowException."""
    check_footer(path)
    with parquet.ParquetFile(path) as file:
        check_columns(list(file.schema_arrow.names))
        groups, size = groups_of(file, path), path.stat().st_size
        check_unpacked(sum(chunk.bytes for group in groups for chunk in group), size)
        texts = sorted({column.path for column in _leaves(file) if column.physical_type == "BYTE_ARRAY"})
    with parquet.ParquetFile(path, read_dictionary=texts, buffer_size=_READ_BYTES) as file:
        yield Opened(file, groups, size)


def join_parquet(parts: Sequence[Path], target: Path) -> None:
    """One file of several that have the same columns, a few rows at a time. Raises TooMuch, OSError, pyarrow.ArrowException."""
    with open_parquet(parts[0]) as first:
        schema = pa.schema([(field.name, _plain(field.type)) for field in first.file.schema_arrow])
    with parquet.ParquetWriter(target, schema) as writer:
        for part in parts:
            with open_parquet(part) as opened:
                for batch in opened.batches(opened.names, _JOINED_ROWS):
                    columns = dict(zip(opened.names, map(decoded, batch.columns), strict=True))
                    writer.write_table(pa.table(columns).cast(schema))


def decoded(values: Any) -> Any:
    """A column with its values written out, wherever in it they were kept once."""
    kind = _plain(values.type)
    return values if kind == values.type else values.cast(kind)


def _leaves(file: Any) -> Iterator[Any]:
    return (file.schema.column(at) for at in range(file.metadata.num_columns))


def _rows_at_once(chunks: Sequence[Chunk], most_rows: int) -> int:
    """How many of a group. Raises TooMuch for one in which a single row may take more than any."""
    one = sum(chunk.largest for chunk in chunks)
    if one > _ROW_BYTES:
        name = max(chunks, key=lambda chunk: chunk.largest).column
        detail = f"one row may take {one:,} bytes to read, more than {_ROW_BYTES:,}, most of them for column {name!r}"
        raise TooMuch(f"{detail}: save it anew with fewer rows in a group (`row_group_size`), or shorter values")
    rows = most_rows
    while rows > 1 and sum(chunk.at_once(rows) for chunk in chunks) > _BATCH_BYTES:
        rows //= 2
    return rows


def _parts(batch: Any, size: int) -> Iterator[Any]:
    """The rows of a batch, as many at once as fit once they are written out, when they have this size. Raises TooMuch."""
    if size <= _BATCH_BYTES:
        yield batch
    elif batch.num_rows > 1:
        half = batch.num_rows // 2
        for part in (batch.slice(0, half), batch.slice(half)):
            yield from _parts(part, sum(map(_decoded_bytes, part.columns)))
    elif size > _ROW_BYTES:
        raise TooMuch(f"a row has {size:,} bytes, more than {_ROW_BYTES:,}: shorten its values")
    else:
        yield batch


def _decoded_bytes(values: Any) -> int:
    """What a column takes with its values written out."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        lengths = compute.binary_length(values.dictionary) if _has_lengths(kind.value_type) else None
        return 0 if lengths is None else int(compute.sum(lengths.take(values.indices)).as_py() or 0)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _decoded_bytes(values.flatten())
    if pa.types.is_struct(kind):
        return sum(_decoded_bytes(child) for child in values.flatten())
    return int(values.nbytes)


def _has_lengths(kind: Any) -> bool:
    return any(
        check(kind) for check in (pa.types.is_string, pa.types.is_binary, pa.types.is_large_string, pa.types.is_large_binary)
    )


def _plain(kind: Any) -> Any:
    """The type of a column that is written out."""
    types = pa.types
    if types.is_struct(kind):
        return pa.struct([(field.name, _plain(field.type)) for field in kind])
    if types.is_map(kind):
        return pa.map_(_plain(kind.key_type), _plain(kind.item_type))
    if types.is_fixed_size_list(kind):
        return pa.list_(_plain(kind.value_type), kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return (pa.list_ if types.is_list(kind) else pa.large_list)(_plain(kind.value_type))
    return kind.value_type if types.is_dictionary(kind) else kind
