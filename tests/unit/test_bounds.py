"""Files of rows that hold more than they may."""

import io
import struct
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from trainers import parquet_footers
from trainers.bounds import COLUMNS, ROW_BYTES, SENTENCE_WORDS, WORD_BYTES, TooMuch, lines_of
from trainers.tables import TableError, look, parts

_MEGABYTE = 1024**2


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(TableError) as refusal:
        look(path)
    return refusal.value.detail


@pytest.mark.parametrize("ending", ["jsonl", "csv", "conll"])
def test_a_line_that_never_ends_is_not_read_to_its_end(tmp_path: Path, ending: str) -> None:
    begun = {"jsonl": b'{"a": "', "csv": b'"', "conll": b""}[ending]
    assert "more than" in refused(tmp_path / f"rows.{ending}", begun + b"x" * (ROW_BYTES + 1))


def test_lines_are_read_up_to_the_longest() -> None:
    assert [line for _, line in lines_of(io.BytesIO(b"abc\n\nabcd\n"), 5)] == [b"abc\n", b"\n", b"abcd\n"]
    with pytest.raises(TooMuch, match="line 2 has more than 5 bytes"):
        list(lines_of(io.BytesIO(b"abc\nabcde\n"), 5))


def test_a_word_of_a_megabyte_is_refused(tmp_path: Path) -> None:
    assert f"more than {WORD_BYTES:,} bytes" in refused(tmp_path / "rows.conll", b"a O\n" + b"x" * WORD_BYTES + b" O\n")


def test_a_sentence_that_never_ends_is_refused(tmp_path: Path) -> None:
    assert f"more than {SENTENCE_WORDS:,} words" in refused(tmp_path / "rows.conll", b"x O\n" * (SENTENCE_WORDS + 1))


def test_columns_without_end_are_refused(tmp_path: Path) -> None:
    names = [f"c{at}" for at in range(COLUMNS + 1)]
    rows = "".join(f'{{"{name}": 1}}\n' for name in names)
    assert "more than 10,000 columns" in refused(tmp_path / "rows.jsonl", rows.encode())
    assert "more than 10,000 columns" in refused(tmp_path / "rows.csv", ",".join(names).encode())
    assert "more than 10,000 columns" in refused(tmp_path / "folded.csv", b'"a\n",' + ",".join(names).encode())
    parquet.write_table(pa.table({name: [1] for name in names}), tmp_path / "rows.parquet")
    assert "more than 10,000 columns" in refused(tmp_path / "rows.parquet", (tmp_path / "rows.parquet").read_bytes())


def test_a_column_with_a_long_name_is_refused(tmp_path: Path) -> None:
    assert "1,001 characters: shorten it" in refused(tmp_path / "rows.csv", b"x" * 1001 + b",b\n1,2\n")


def test_a_parquet_file_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array([b"\0" * 105 * _MEGABYTE])})
    parquet.write_table(table, tmp_path / "zeros", compression="zstd", use_dictionary=False, write_statistics=False)
    assert "more than 100 times its size" in refused(tmp_path / "rows.parquet", (tmp_path / "zeros").read_bytes())


def test_a_value_that_stands_once_in_a_parquet_file_is_not_written_out_a_thousand_times(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 2000, pa.int32()), pa.array(["x" * _MEGABYTE]))
    parquet.write_table(pa.table({"text": text}), path)
    assert look(path).rows == 2000, "it is small as long as it is only looked at"
    with pytest.raises(TableError, match="unpacks to 2,097,152,000 bytes, more than 100 times its size"):
        list(parts(path, ["text"]))


def test_values_that_repeat_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"text": ["a", "b", "a", None], "tags": [["x"], ["y", "x"], [], None]}), path)
    read = list(parts(path, ["text"], {"tags": None}))
    assert [value for part in read for value in part.texts["text"]] == ["a", "b", "a", None]
    assert [value for part in read for value in part.lists["tags"]] == [["x"], ["y", "x"], [], None]


def test_a_footer_that_is_longer_than_any_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_footers, "_FOOTER_BYTES", 1000)
    content = b"PAR1" + b"x" * 5000 + struct.pack("<I4s", 4000, b"PAR1")
    assert "footer" in refused(tmp_path / "rows.parquet", content)
