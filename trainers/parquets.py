"""Parquet files, opened with care: what they say of themselves is looked at before anything of them is unpacked."""

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import compute, parquet

from trainers.bounds import TooMuch, check_columns, check_unpacked

_FOOTER_BYTES = 64 * 1024**2
_TAIL = struct.Struct("<I4s")
"""Where every Parquet file ends: the length of its footer, and four letters."""
_BATCH_BYTES = 64 * 1024**2
"""About what is unpacked at once."""
_DECODED_BYTES = 512 * 1024**2
"""Of the rows read at once, with values that stand once in the file written out as often as they are named."""


@contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """The file as pyarrow reads it. Values that repeat are kept once. Raises TooMuch, OSError, pyarrow.ArrowException."""
    _check_footer(path)
    with parquet.ParquetFile(path) as file:
        check_columns(list(file.schema_arrow.names))
        chunks = list(_chunks(file))
        check_unpacked(sum(chunk.total_uncompressed_size for chunk in chunks), path.stat().st_size)
        texts = sorted({chunk.path_in_schema for chunk in chunks if chunk.physical_type == "BYTE_ARRAY"})
    with parquet.ParquetFile(path, read_dictionary=texts) as file:
        yield file


def batches(file: Any, columns: Sequence[str] | None, most_rows: int) -> Iterator[Any]:
    """Its rows, as many at once as about fit into `_BATCH_BYTES`. Raises TooMuch."""
    groups = [file.metadata.row_group(at) for at in range(file.metadata.num_row_groups)]
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in groups), default=0)
    rows = max(1, min(most_rows, _BATCH_BYTES // max(1, largest)))
    for batch in file.iter_batches(batch_size=rows, columns=columns):
        if columns is not None and sum(map(_decoded_bytes, batch.columns)) > _DECODED_BYTES:
            raise TooMuch(f"{batch.num_rows:,} rows have more than {_DECODED_BYTES:,} bytes together: shorten their values")
        yield batch


def decoded(values: Any) -> Any:
    """A column with its values written out, wherever in it they were kept once."""
    kind = _plain(values.type)
    return values if kind == values.type else values.cast(kind)


def _check_footer(path: Path) -> None:
    size = path.stat().st_size
    if size < _TAIL.size:
        return  # pyarrow says what is wrong with it
    with path.open("rb") as file:
        file.seek(size - _TAIL.size)
        length, _ = _TAIL.unpack(file.read(_TAIL.size))
    if _FOOTER_BYTES < length < size:
        raise TooMuch(f"the file's footer says that it has {length:,} bytes, more than {_FOOTER_BYTES:,}: save it anew")


def _chunks(file: Any) -> Iterator[Any]:
    metadata = file.metadata
    for at in range(metadata.num_row_groups):
        group = metadata.row_group(at)
        yield from (group.column(column) for column in range(group.num_columns))


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
    if pa.types.is_dictionary(kind):
        return kind.value_type
    if pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(kind.field(at).name, _plain(kind.field(at).type)) for at in range(kind.num_fields)])
    return kind
