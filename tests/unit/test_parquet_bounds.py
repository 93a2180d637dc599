"""Parquet files of a few bytes that say very much, and honest ones beside them."""

import io
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.thrift import DEEP, i32, parquet_file, structure, structures, text, told, whole
from trainers import parquet_footers, parquet_pages, parquets
from trainers.parquets import open_parquet
from trainers.tables import TableError, look, parts, read, read_lists
from trainers.thrift import Walk

_MEGABYTE = 1024**2


def written(table: pa.Table, **options: Any) -> bytes:
    made = io.BytesIO()
    parquet.write_table(table, made, **{"compression": "zstd", "write_statistics": False, **options})
    return made.getvalue()


def refused(path: Path, content: bytes) -> str:
    (path / "rows.parquet").write_bytes(content)
    with pytest.raises(TableError) as refusal:
        look(path / "rows.parquet")
    return refusal.value.detail


def lists(lengths: Sequence[int], kind: pa.DataType) -> pa.Array:
    """Lists of nothing but zeros."""
    offsets = [sum(lengths[:at]) for at in range(len(lengths) + 1)]
    zeros = pa.Array.from_buffers(pa.int64(), offsets[-1], [None, pa.py_buffer(bytes(8 * offsets[-1]))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), zeros.cast(kind))


def repeated(value: bytes, times: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array([value], pa.binary(len(value)))] * times)


def batch_rows(path: Path, columns: list[str] | None = None) -> list[int]:
    with open_parquet(path) as opened:
        return [batch.num_rows for batch in opened.batches(columns, 1000)]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("values of one length", lambda: pa.table({"a": repeated(bytes(1_000_000), 110)})),
        ("lists of numbers", lambda: pa.table({"a": lists([7_000_000] * 2, pa.int64())})),
        ("lists of yes and no", lambda: pa.table({"a": lists([14_000_000] * 2, pa.bool_())})),
        ("nothing, in a list", lambda: pa.table({"a": [[None] * 14_000_000]}, pa.schema([("a", pa.list_(pa.int64()))]))),
        ("no texts", lambda: pa.table({"a": pa.nulls(28_000_000, pa.string())})),
    ],
)
def test_what_stands_once_in_a_file_counts_as_often_as_it_is_said(
    tmp_path: Path, name: str, make: Callable[[], pa.Table]
) -> None:
    content = written(make())
    assert len(content) < _MEGABYTE, name
    assert "more than 100 times its size" in refused(tmp_path, content)


def test_pages_are_believed_and_not_what_the_footer_says_of_them(tmp_path: Path) -> None:
    content = written(pa.table({"a": lists([14_000_000], pa.int64())}))
    assert "more than 100 times its size" in refused(tmp_path, told(content, 14_000_000, 1))


def test_values_that_are_said_by_what_they_share_are_refused(tmp_path: Path) -> None:
    table = pa.table({"a": ["x" * 1000, "x" * 1001]})
    content = written(table, use_dictionary=False, column_encoding={"a": "DELTA_BYTE_ARRAY"})
    assert "save it anew in another encoding" in refused(tmp_path, content)


def test_columns_in_columns_do_not_end_the_process(tmp_path: Path) -> None:
    assert "columns in columns, 100 deep" in refused(tmp_path, DEEP)


def test_rows_without_columns_are_none(tmp_path: Path) -> None:
    group = structure((1, 9, b"\x0c"), (2, 6, b"\0"), (3, 6, b"\xfe\xff\xff\xff\xff\x3f"))
    (tmp_path / "rows.parquet").write_bytes(parquet_file([structure(text(4, b"s"), i32(5, 0))], [group], rows=2**40))
    assert look(tmp_path / "rows.parquet").rows == 0


def test_a_footer_of_many_small_parts_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_footers, "_FOOTER_PARTS", 50)
    assert "too many parts" in refused(tmp_path, written(pa.table({f"c{at}": [1] for at in range(20)})))


def test_a_footer_of_very_many_pieces_is_refused(tmp_path: Path) -> None:
    chunks = structure(structures(1, [structure((2, 6, b"\0"))] * 200_001))
    assert "pieces of columns" in refused(tmp_path, parquet_file([structure(text(4, b"s"), i32(5, 0))], [chunks]))


@pytest.mark.parametrize("cut", [b"\x15", b"\x19\xfc\xff\xff\xff\x7f", b"\x18\xff\xff", b"\x1b", b"\x99" * 40])
def test_a_footer_that_is_none_is_refused(tmp_path: Path, cut: bytes) -> None:
    assert refused(tmp_path, b"PAR1" + cut + len(cut).to_bytes(4, "little") + b"PAR1")


def test_more_pages_than_any_file_needs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_pages, "PAGES", 3)
    content = written(pa.table({"a": range(4)}), row_group_size=1, use_dictionary=False)
    assert "more than 3 pages" in refused(tmp_path, content)


def test_a_page_with_a_broken_header_is_no_mistake_of_ours(tmp_path: Path) -> None:
    content = written(pa.table({"a": ["b"]}))
    assert refused(tmp_path, content[:4] + b"\xff" * 8 + content[12:]).startswith("the file is broken")


def test_a_row_that_takes_more_than_any_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquets, "_ROW_BYTES", 1000)
    detail = refused(tmp_path, written(pa.table({"text": ["a"] * 9, "pixels": lists([1, 1, 200, 1, 1, 1, 1, 1, 1], pa.int64())})))
    assert "more than 1,000, most of them for column 'pixels.list.element'" in detail
    assert "`row_group_size`" in detail
    assert "one row may take" in refused(tmp_path, written(pa.table({"text": [os.urandom(2000).hex()]}), use_dictionary=False))


def test_a_row_of_lists_may_have_all_pages_of_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquets, "_ROW_BYTES", 6000)
    table = pa.table({"pixels": lists([100] * 10, pa.int64())})
    small: dict[str, Any] = {"use_dictionary": False, "data_page_size": 100, "write_batch_size": 1}
    assert "one row may take 8," in refused(tmp_path, written(table, **small))
    (tmp_path / "rows.parquet").write_bytes(written(table, row_group_size=5, **small))
    assert batch_rows(tmp_path / "rows.parquet") == [5, 5]


def test_what_rows_only_refer_to_counts_with_each_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquets, "_ROW_BYTES", 6000)
    texts = [f"{at:0100}" for at in range(100)] * 3
    assert "one row may take" in refused(tmp_path, written(pa.table({"text": texts})))


def test_as_many_rows_are_read_at_once_as_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquets, "_BATCH_BYTES", 80_000)
    path = tmp_path / "rows.parquet"
    path.write_bytes(written(pa.table({"pixels": repeated(bytes(1000), 200)})))
    assert max(batch_rows(path)) <= 80
    path.write_bytes(written(pa.table({"pixels": lists([100] * 400, pa.int64())})))
    assert max(batch_rows(path)) <= 100
    path.write_bytes(written(pa.table({"label": ["a", "b"] * 1000})))
    assert batch_rows(path) == [1000, 1000]


def test_a_few_long_texts_among_short_ones_are_read_a_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquets, "_BATCH_BYTES", 200_000)
    texts = [*["a"] * 20_000, *(os.urandom(5000).hex() for _ in range(100))]
    (tmp_path / "rows.parquet").write_bytes(
        written(pa.table({"text": texts}), use_dictionary=False, data_page_size=20_000, write_batch_size=1)
    )
    assert max(batch_rows(tmp_path / "rows.parquet")) <= 32


def test_texts_that_are_named_often_are_written_out_a_few_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquets, "_BATCH_BYTES", 50_000)
    path = tmp_path / "rows.parquet"
    path.write_bytes(written(pa.table({"text": ["x" * 1000] * 200, "label": ["a"] * 200})))
    assert batch_rows(path, ["label"]) == [200]
    assert sum(batch_rows(path, ["text"])) == 200
    assert max(batch_rows(path, ["text"])) <= 50
    assert read(path, ["text"])["text"] == ["x" * 1000] * 200


def test_lists_of_texts_are_read_from_several_groups_of_rows(tmp_path: Path) -> None:
    path, tags = tmp_path / "rows.parquet", [["a", "b"], [], None, ["c"]] * 10
    path.write_bytes(written(pa.table({"tags": tags}), row_group_size=3))
    assert read_lists(path, {"tags": None})["tags"] == tags


def test_a_column_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(written(pa.table({"a.b": ["x"], "a": ["y"]})))
    assert read(path, ["a.b"]) == {"a.b": ["x"]}
    assert sum(part.rows for part in parts(path, ["a"])) == 1


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_both_versions_of_pages_are_read_in_all_their_compressions(tmp_path: Path, version: str, compression: str) -> None:
    path, texts = tmp_path / "rows.parquet", [str(at % 7) for at in range(3000)] + [None]
    options = {"data_page_version": version, "compression": compression, "data_page_size": 500, "write_page_index": True}
    path.write_bytes(written(pa.table({"text": texts, "n": range(3001)}), write_page_checksum=True, **options))
    assert look(path).rows == 3001
    assert read(path, ["text"])["text"] == texts


def zeros(values: int) -> tuple[bytes, Any]:
    """A file of one list of zeros, and what it says of its only column."""
    content = written(pa.table({"a": lists([values], pa.int64())}))
    return content, parquet.ParquetFile(io.BytesIO(content)).metadata.row_group(0).column(0)


_PLAIN = 16_000_000
_OF_DATA = (5, 12, structure(i32(1, 1), i32(2, 0), i32(3, 3), i32(4, 3)))
"""What a page of data says that has one value."""


def longer(content: bytes, column: Any, at: int, more: bytes, without: int = 0) -> bytes:
    """The file with more in it, in place of so many bytes, and a footer that knows of it."""
    total = column.total_compressed_size
    return told(content[:at] + more + content[at + without :], total, total + len(more) - without)


def with_a_page_of_another_kind_before() -> bytes:
    content, column = zeros(_PLAIN)
    decoy = structure(i32(1, 1), i32(2, 0), i32(3, 0), _OF_DATA)
    return longer(told(content, _PLAIN, 1), column, column.dictionary_page_offset, decoy)


def with_a_dictionary_that_says_it_is_data() -> bytes:
    content, column = zeros(_PLAIN)
    begin = column.dictionary_page_offset
    walk = Walk(content[begin : column.data_page_offset], 100)
    said = walk.fields()
    kept = (7, 12, structure(i32(1, said[7][1]), i32(2, said[7][2])))
    header = structure(i32(1, 2), i32(2, said[2]), i32(3, said[3]), _OF_DATA, kept)
    return longer(told(content, _PLAIN, 1), column, begin, header, walk.at)


def with_a_number_that_is_said_twice() -> bytes:
    content, column = zeros(_PLAIN)
    number = i32(1, _PLAIN)
    first = bytes([number[0] << 4 | number[1]]) + number[2]
    at = content.index(first, column.data_page_offset) + len(first)
    return longer(content, column, at, bytes([6]) + whole(1) + whole(1))


@pytest.mark.parametrize(
    "make",
    [with_a_page_of_another_kind_before, with_a_dictionary_that_says_it_is_data, with_a_number_that_is_said_twice],
    ids=lambda make: make.__name__,
)
def test_a_page_that_readers_and_we_could_understand_differently_is_refused(make: Callable[[], bytes], tmp_path: Path) -> None:
    content = make()
    assert len(content) < 1500
    assert "a page" in (said := refused(tmp_path, content)) or "twice" in said
