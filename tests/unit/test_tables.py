"""Rows in CSV, JSONL and Parquet files, as text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from trainers.tables import Summary, TableError, look, read


class Folder:
    """Files to read."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def file(self, name: str, content: bytes | str) -> Path:
        path = self._root / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def lines(self, *rows: Any) -> Path:
        return self.file("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def parquet(self, **columns: Any) -> Path:
        parquet.write_table(pa.table(columns), self._root / "rows.parquet")
        return self._root / "rows.parquet"


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def test_a_look_counts_rows_and_names_columns(folder: Folder) -> None:
    assert look(folder.file("a.csv", "text,label\nhello,x\nbye,y\n")) == Summary(2, ("text", "label"))


def test_the_name_tells_the_format_of_a_temporary_file(folder: Folder) -> None:
    assert look(folder.file("upload", "text,label\nhello,x\n"), "train.csv").rows == 1


@pytest.mark.parametrize("name", ["a.CSV", "a.Csv"])
def test_the_case_of_an_ending_does_not_matter(folder: Folder, name: str) -> None:
    assert look(folder.file(name, "text\nhello\n")).rows == 1


@pytest.mark.parametrize("name", ["a.txt", "a", "a.csv.gz"])
def test_another_format_is_refused(folder: Folder, name: str) -> None:
    with pytest.raises(TableError, match=r"use one of \.csv, \.jsonl, \.parquet"):
        look(folder.file(name, "text\nhello\n"))


def test_columns_are_read_in_the_order_asked_for(folder: Folder) -> None:
    path = folder.file("a.csv", "text,label,more\nhello,x,1\nbye,y,2\n")
    assert read(path, ["label", "text"]) == {"label": ["x", "y"], "text": ["hello", "bye"]}


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Folder) -> None:
    assert read(folder.file("a.csv", b"\xef\xbb\xbftext,label\nhello,x\n"), ["text"]) == {"text": ["hello"]}


def test_quoted_values_hold_newlines_commas_and_quotes(folder: Folder) -> None:
    path = folder.file("a.csv", 'text,label\n"one\ntwo, ""three""",x\n')
    assert read(path, ["text"]) == {"text": ['one\ntwo, "three"']}


@pytest.mark.parametrize("label", ["007", "1e5", "true", "NA", "null", "1.0", "2030-01-02", "nan", " x "])
def test_a_csv_value_is_the_text_that_is_written_there(folder: Folder, label: str) -> None:
    assert read(folder.file("a.csv", f"text,label\nhello,{label}\n"), ["label"]) == {"label": [label]}


def test_an_empty_csv_value_is_an_empty_text(folder: Folder) -> None:
    assert read(folder.file("a.csv", "text,label\n,x\n"), ["text"]) == {"text": [""]}


def test_a_label_keeps_its_type_from_one_part_of_a_large_file_to_the_next(folder: Folder) -> None:
    long = "x" * 1000
    path = folder.file("a.csv", "text,label\n" + f"{long},1\n" * 20_000 + f"{long},one\n")
    assert look(path).rows == 20_001
    assert read(path, ["label"])["label"][-2:] == ["1", "one"]


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_end_as_any_system_ends_them(folder: Folder, ending: str) -> None:
    assert read(folder.file("a.csv", ending.join(["text", "hello", "bye"])), ["text"]) == {"text": ["hello", "bye"]}


@pytest.mark.parametrize(
    "content",
    [b"text,label\nhello\n", b"text,label\nhello,x,y\n", b"text,label\na,x\nb\xff,y\n", b'text,label\n"open,x\nbye,y\n', b""],
    ids=["too few values", "too many values", "no UTF-8", "an open quote", "nothing at all"],
)
def test_a_csv_file_that_is_broken_anywhere_is_refused(folder: Folder, content: bytes) -> None:
    path = folder.file("a.csv", content)
    with pytest.raises(TableError, match="broken"):
        look(path)
    with pytest.raises(TableError, match="broken"):
        read(path, ["text"])


def test_a_header_alone_is_a_file_without_rows(folder: Folder) -> None:
    assert look(folder.file("a.csv", "text,label\n")) == Summary(0, ("text", "label"))


def test_two_columns_of_one_name_are_refused_and_named(folder: Folder) -> None:
    with pytest.raises(TableError) as refused:
        look(folder.file("a.csv", "text,text\na,b\n"))
    assert refused.value.column == "text"


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_column_that_is_missing_is_named_beside_those_there_are(folder: Folder, name: str) -> None:
    content = {"a.csv": "text,label\na,b\n", "a.jsonl": '{"text": "a", "label": "b"}\n'}[name]
    with pytest.raises(TableError, match="'text', 'label'") as refused:
        read(folder.file(name, content), ["text", "category"])
    assert refused.value.column == "category"


def test_json_values_are_text_as_json_writes_them(folder: Folder) -> None:
    path = folder.lines({"v": "007"}, {"v": 7}, {"v": 1.5}, {"v": True}, {"v": None}, {"w": 1})
    assert read(path, ["v"]) == {"v": ["007", "7", "1.5", "true", None, None]}


def test_the_columns_of_json_lines_are_the_keys_of_all_of_them(folder: Folder) -> None:
    assert look(folder.lines({"a": 1}, {"b": 1}, {"a": 1, "c": 1})) == Summary(3, ("a", "b", "c"))


def test_blank_json_lines_are_passed_over(folder: Folder) -> None:
    assert look(folder.file("a.jsonl", '\n{"a": 1}\n  \n{"a": 2}')).rows == 2


def test_a_byte_order_mark_before_json_is_passed_over(folder: Folder) -> None:
    assert look(folder.file("a.jsonl", b'\xef\xbb\xbf{"a": 1}\n')) == Summary(1, ("a",))


@pytest.mark.parametrize(
    "line", [b"[1]", b"1", b"{", b'{"a": 1} {"a": 2}', b'{"a": "\xff"}', b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_a_line_that_is_no_json_object_is_named_by_its_number(folder: Folder, line: bytes) -> None:
    with pytest.raises(TableError, match="line 2"):
        look(folder.file("a.jsonl", b'{"a": 1}\n' + line + b"\n"))


@pytest.mark.parametrize("value", [["x"], {"x": 1}])
def test_a_json_value_that_is_no_text_or_number_is_refused_when_it_is_read(folder: Folder, value: Any) -> None:
    path = folder.lines({"a": "x"}, {"a": value, "b": 1})
    assert look(path).rows == 2
    with pytest.raises(TableError, match="line 2") as refused:
        read(path, ["a"])
    assert refused.value.column == "a"


def test_half_a_surrogate_pair_is_no_text(folder: Folder) -> None:
    with pytest.raises(TableError, match="line 1 holds half a surrogate pair"):
        read(folder.file("rows.jsonl", b'{"text": "\\ud83d"}'), ["text"])


def test_a_fraction_is_written_alike_in_every_format(folder: Folder) -> None:
    wanted = {"label": ["1.0", "2.5", None]}
    assert read(folder.parquet(label=[1.0, 2.5, None]), ["label"]) == wanted
    assert read(folder.lines({"label": 1.0}, {"label": 2.5}, {"label": None}), ["label"]) == wanted


def test_a_header_that_is_no_utf_8_is_refused(folder: Folder) -> None:
    with pytest.raises(TableError, match="broken"):
        look(folder.file("rows.csv", b"\xff\xfe,b\n1,2\n"))


def test_a_json_file_without_lines_has_no_rows(folder: Folder) -> None:
    assert look(folder.file("a.jsonl", "")) == Summary(0, ())


def test_parquet_values_are_text(folder: Folder) -> None:
    path = folder.parquet(text=["a", None], number=[7, None], share=[0.5, 1.25], yes=[True, False])
    assert read(path, ["text", "number", "share", "yes"]) == {
        "text": ["a", None], "number": ["7", None], "share": ["0.5", "1.25"], "yes": ["true", "false"],
    }  # fmt: skip


def test_a_dictionary_column_is_read_as_its_values(folder: Folder) -> None:
    path = folder.parquet(label=pa.array(["x", "y", None, "x"]).dictionary_encode())
    assert read(path, ["label"]) == {"label": ["x", "y", None, "x"]}


def test_a_column_of_nulls_is_a_column_of_nothing(folder: Folder) -> None:
    assert read(folder.parquet(label=pa.nulls(2)), ["label"]) == {"label": [None, None]}


def test_large_text_columns_are_read_too(folder: Folder) -> None:
    path = folder.parquet(label=pa.array(["x"], pa.large_string()))
    assert read(path, ["label"]) == {"label": ["x"]}


@pytest.mark.parametrize("values", [[["a"]], [{"a": 1}], [b"a"]], ids=["lists", "records", "bytes"])
def test_a_nested_or_binary_column_can_lie_beside_but_not_be_read(folder: Folder, values: list[Any]) -> None:
    path = folder.parquet(text=["a"], other=values)
    assert look(path) == Summary(1, ("text", "other"))
    assert read(path, ["text"]) == {"text": ["a"]}
    with pytest.raises(TableError, match="no text or number") as refused:
        read(path, ["other"])
    assert refused.value.column == "other"


@pytest.mark.parametrize("keep", [0, 1, 8, -20])
def test_a_parquet_file_that_is_cut_short_is_refused(folder: Folder, keep: int) -> None:
    whole = folder.parquet(text=["a", "b"]).read_bytes()
    with pytest.raises(TableError, match="broken"):
        look(folder.file("cut.parquet", whole[:keep]))


def test_a_file_that_is_not_there_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"gone\.csv"):
        look(tmp_path / "gone.csv")
