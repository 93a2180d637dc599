"""Rows in CSV, JSONL, Parquet and CoNLL files, as text."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from trainers.tables import Summary, TableError, look, parts, read, read_lists


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
    ("content", "reason"),
    [
        (b"text,label\na,x\nhello\n", "line 3 has 1 value, and the header has 2"),
        (b"text,label\nhello,x,y\n", "line 2 has 3 values, and the header has 2"),
        (b"text,label\n\n\nhello,x,y\n", "line 4 has 3 values"),
        (b'text,label\n"one\ntwo",x\nhello,x,y\n', "line 4 has 3 values"),
        (b'text,label\r\n"one\r\ntwo",x,y\r\n', "line 2 has 3 values"),
        (b"text,label\na,x\nb\xff,y\n", "line 3 is no UTF-8"),
        (b'text,label\na,x\n"open,x\nbye,y\n', "line 3 has 1 value"),
        (b"text,label\na,x\n" + b"y" * 200_000 + b"\n", "broken"),
        (b"", "broken"),
    ],
)
def test_a_csv_file_that_is_broken_anywhere_is_refused_and_the_line_named(folder: Folder, content: bytes, reason: str) -> None:
    path = folder.file("a.csv", content)
    with pytest.raises(TableError, match=reason):
        look(path)
    with pytest.raises(TableError, match=reason):
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


def test_lists_of_texts_are_read_from_every_format(folder: Folder) -> None:
    wanted = [["a", "b"], [], ["c"], None]
    assert read_lists(folder.lines(*({"v": value} for value in wanted)), {"v": None}) == {"v": wanted}
    assert read_lists(folder.parquet(v=wanted), {"v": None}) == {"v": wanted}
    assert read_lists(folder.parquet(v=pa.array(wanted, pa.large_list(pa.large_string()))), {"v": None}) == {"v": wanted}


def test_lists_of_one_length_are_lists(folder: Folder) -> None:
    path = folder.parquet(v=pa.array([["a", "b"], ["c", "d"]], pa.list_(pa.string(), 2)))
    assert read_lists(path, {"v": None}) == {"v": [["a", "b"], ["c", "d"]]}


def test_numbers_in_lists_are_written_as_text(folder: Folder) -> None:
    assert read_lists(folder.lines({"v": [1, 2.5, True, "x"]}), {"v": None}) == {"v": [["1", "2.5", "true", "x"]]}
    assert read_lists(folder.parquet(v=[[1, 2]], w=[[1.0]]), {"v": None, "w": None}) == {"v": [["1", "2"]], "w": [["1.0"]]}


@pytest.mark.parametrize(
    ("separator", "text", "wanted"),
    [
        (None, " one  two\tthree ", ["one", "two", "three"]),
        ("|", "one two | three||", ["one two", "three"]),
        (", ", "one, two", ["one", "two"]),
        ("|", "", []),
    ],
)
def test_text_is_split_where_it_is_said(folder: Folder, separator: str | None, text: str, wanted: list[str]) -> None:
    for path in (folder.lines({"v": text}), folder.parquet(v=[text]), folder.file("a.csv", f'v\n"{text}"\n')):
        assert read_lists(path, {"v": separator}) == {"v": [wanted]}


def test_a_number_in_the_place_of_a_list_is_one_piece(folder: Folder) -> None:
    assert read_lists(folder.lines({"v": 7}, {"w": 1}), {"v": "|"}) == {"v": [["7"], None]}


@pytest.mark.parametrize("value", [["a", None], [["a"]], {"x": 1}])
def test_a_list_of_something_else_is_named_by_its_line(folder: Folder, value: Any) -> None:
    with pytest.raises(TableError, match="line 2") as refused:
        read_lists(folder.lines({"v": ["a"]}, {"v": value}), {"v": None})
    assert refused.value.column == "v"


@pytest.mark.parametrize("values", [[["a", None]], [[["a"]]], [[{"x": 1}]], [[b"a"]]])
def test_a_parquet_column_of_other_lists_is_named(folder: Folder, values: list[Any]) -> None:
    with pytest.raises(TableError) as refused:
        read_lists(folder.parquet(v=values), {"v": None})
    assert refused.value.column == "v"


def test_texts_and_lists_come_in_parts_that_belong_together(folder: Folder) -> None:
    path = folder.lines(*({"text": f"t{at}", "tags": [str(at)]} for at in range(2500)))
    found = list(parts(path, ["text"], {"tags": None}))
    assert len(found) > 1
    assert sum(part.rows for part in found) == 2500
    rows = [pair for part in found for pair in zip(part.texts["text"], part.lists["tags"], strict=True)]
    assert rows == [(f"t{at}", [str(at)]) for at in range(2500)]


WORDS = {"tokens": None, "tags": None}


def words(path: Path) -> list[list[tuple[str, str]]]:
    found = read_lists(path, WORDS)
    return [list(zip(tokens or [], tags or [], strict=True)) for tokens, tags in zip(found["tokens"], found["tags"], strict=True)]


@pytest.mark.parametrize("name", ["a.conll", "a.bio"])
def test_the_sentences_of_a_conll_file_are_its_rows(folder: Folder, name: str) -> None:
    path = folder.file(name, "Emma\tB-person\nis\tO\n\nRome\tB-location\n")
    assert look(path) == Summary(2, ("tokens", "tags"))
    assert words(path) == [[("Emma", "B-person"), ("is", "O")], [("Rome", "B-location")]]


@pytest.mark.parametrize(
    "content",
    [
        "\n\nEmma O\nis O\n\n\nhere O\n\n",
        "Emma O\r\nis O\r\n\r\nhere O\r\n",
        "\ufeffEmma\tO\nis\tO\n\t\nhere\tO",
        "-DOCSTART- -X- O\n\nEmma NNP O\nis VBZ O\n\nhere RB O\n",
        "-DOCSTART-\nEmma O\nis O\n-DOCSTART-\nhere O\n",
        "# id = 1\nEmma\tO\nis\tO\n\n# id = 2\n# text = here\nhere\tO\n",
        "# id = 1\nEmma O\nis   O \n \nhere O\n",
    ],
)
def test_a_conll_file_can_be_written_in_several_ways(folder: Folder, content: str) -> None:
    assert words(folder.file("a.conll", content)) == [[("Emma", "O"), ("is", "O")], [("here", "O")]]


def test_a_word_of_a_message_may_begin_with_a_hash(folder: Folder) -> None:
    assert words(folder.file("a.conll", "go\tO\n#\tO\n#nlp\tO\n# x\tO\n")) == [
        [("go", "O"), ("#", "O"), ("#nlp", "O"), ("# x", "O")]
    ]
    assert words(folder.file("b.conll", "# O\ngo O\n#nlp O\n")) == [[("#", "O"), ("go", "O"), ("#nlp", "O")]]


@pytest.mark.parametrize("space", ["\u2028", "\x85", "\xa0", "\x0b", "\x1c"])
def test_only_a_newline_ends_a_line_and_only_a_tab_or_space_a_column(folder: Folder, space: str) -> None:
    assert words(folder.file("a.conll", f"a{space}b\tO\n")) == [[(f"a{space}b", "O")]]
    assert words(folder.file("a.conll", f"a{space}b O\n")) == [[(f"a{space}b", "O")]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("Emma\tO\nis\n", "line 2 has 1 column where the first word has 2"),
        ("Emma\tO\nis O\n", "line 2 has 1 column where the first word has 2, with tabs between"),
        ("Emma O\n\nNew York O\n", "line 3 has 3 columns where the first word has 2, with spaces between"),
        ("Emma\n", "line 1 has one column"),
        ("Emma\tO\n\tO\n", "line 2 has no word"),
        ("Emma\tO\nis\t\n", "line 2 has no tag"),
        (b"Emma\tO\nis\xff\tO\n", "line 2 is no UTF-8"),
    ],
)
def test_a_line_that_is_no_word_with_a_tag_is_named_by_its_number(folder: Folder, content: str | bytes, reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        look(folder.file("a.conll", content))


def test_a_conll_file_without_words_has_no_rows(folder: Folder) -> None:
    assert look(folder.file("a.conll", "\n# nothing\n\n")) == Summary(0, ("tokens", "tags"))


def test_a_conll_file_has_lists_and_no_texts(folder: Folder) -> None:
    path = folder.file("a.conll", "Emma O\n")
    with pytest.raises(TableError, match="lists of words") as refused:
        read(path, ["tokens"])
    assert refused.value.column == "tokens"
    with pytest.raises(TableError, match="the file has 'tokens', 'tags'"):
        read_lists(path, {"words": None})


def test_reading_imports_nothing_heavy(folder: Folder) -> None:
    paths = [folder.file("a.csv", "text\na\n"), folder.parquet(text=["a"], tags=[["a"]]), folder.file("a.conll", "a O\n")]
    script = f"""
import sys
from pathlib import Path
from trainers.tables import look, read_lists
for path in {[str(path) for path in paths]!r}:
    look(Path(path))
    read_lists(Path(path), {{"tokens" if path.endswith("conll") else "text": None}})
print([name for name in ("pandas", "torch", "PIL") if name in sys.modules])
"""
    command = [sys.executable, "-c", script]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True, text=True)
    assert child.stdout.strip() == "[]"
