"""The data sets that the service makes itself."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.catalog import api_docs
from service.catalog.api_docs import (
    LIBRARIES,
    MASK,
    TEST_SHARE,
    VALIDATION_SHARE,
    Row,
    choose,
    key,
    make_rows,
    mask,
    similarity,
    split,
)
from service.catalog.baseline import bag_of_words_accuracy
from service.catalog.builtin import BUILTINS, fetch_builtin
from service.catalog.docstrings import first_sentence
from service.domain.errors import DatasetNotFound, UnreadableDataset
from trainers.configs import BUILTIN_SPLITS
from trainers.tables import look, read

Splits = Mapping[str, Sequence[Row]]
FEW = {"networkx": "networkx", "numpy": "numpy"}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builtin")


@pytest.fixture(scope="session")
def docs(cache: Path) -> Splits:
    """The data set `api-docs`, made once."""
    splits = {}
    for name in BUILTIN_SPLITS:
        columns = read(fetch_builtin(f"builtin://api-docs/{name}", cache), ["text", "label"])
        splits[name] = [Row(text or "", label or "") for text, label in zip(columns["text"], columns["label"], strict=True)]
    return splits


def every(splits: Splits) -> list[Row]:
    return [row for rows in splits.values() for row in rows]


def test_each_library_has_hundreds_of_sentences_and_none_outweighs_another(docs: Splits) -> None:
    counts = Counter(row.label for row in every(docs))
    assert set(counts) == set(LIBRARIES)
    assert min(counts.values()) >= 200
    assert max(counts.values()) <= 2 * min(counts.values())


def test_every_label_has_its_share_of_each_split(docs: Splits) -> None:
    whole = Counter(row.label for row in every(docs))
    for name, share in (("validation", VALIDATION_SHARE), ("test", TEST_SHARE)):
        counts = Counter(row.label for row in docs[name])
        assert all(counts[label] == round(share * whole[label]) for label in whole)


def test_labels_come_mixed(docs: Splits) -> None:
    assert len({row.label for row in docs["train"][:200]}) == len(LIBRARIES)


def test_no_text_names_a_library(docs: Splits) -> None:
    names = [name.lower() for pair in LIBRARIES.items() for name in pair]
    telling = [row for row in every(docs) if any(name in row.text.lower() for name in names)]
    words = [row for row in every(docs) if {"np", "pd", "plt", "nx", "ray"} & set(row.text.lower().replace(".", " ").split())]
    assert telling + words == []


def test_no_row_is_nearly_the_same_as_one_in_another_split(docs: Splits) -> None:
    elsewhere: dict[str, list[set[str]]] = {}
    near = []
    for rows in docs.values():
        keys = [set(key(row.text)) for row in rows]
        if elsewhere:
            near += [words for words in keys if nearest(words, elsewhere) >= 0.8]
        for words in keys:
            for word in words:
                elsewhere.setdefault(word, []).append(words)
    assert near == []


def nearest(words: set[str], holders: Mapping[str, Sequence[set[str]]]) -> float:
    """The greatest similarity to a text with at least one of the words."""
    # At most a fifth of its words may be missing there, so one of the rarest fifth and one more is not.
    rarest = sorted(words, key=lambda word: len(holders.get(word, ())))[: len(words) // 5 + 1]
    return max((len(words & other) / len(words | other) for word in rarest for other in holders.get(word, ())), default=0.0)


def test_texts_are_sentences_of_four_to_sixty_words(docs: Splits) -> None:
    assert [row.text for row in every(docs) if not 4 <= len(row.text.split()) <= 60 or "`" in row.text] == []


def test_a_bag_of_words_finds_much_but_not_all(docs: Splits, cache: Path) -> None:
    train, test = (fetch_builtin(f"builtin://api-docs/{name}", cache) for name in ("train", "test"))
    assert 0.6 < bag_of_words_accuracy(train, test) < 0.9


def test_another_process_makes_the_same_rows(tmp_path: Path) -> None:
    script = f"""
import json, sys
from service.catalog.api_docs import make_rows
splits = make_rows({FEW!r})
heavy = [name for name in ("numpy", "networkx", "pandas", "torch", "sklearn") if name in sys.modules]
print(json.dumps([heavy, [[name, row.label, row.text] for name, rows in splits.items() for row in rows]]))
"""
    child = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=True,
    )
    heavy, rows = json.loads(child.stdout)
    assert rows == [[name, row.label, row.text] for name, rows in make_rows(FEW).items() for row in rows]
    assert heavy == []


def test_making_digits_does_not_import_the_library_that_has_them(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from service.catalog.builtin import fetch_builtin
fetch_builtin("builtin://digits/train", Path({str(tmp_path)!r}))
print([name for name in ("torch", "sklearn", "scipy", "transformers") if name in sys.modules])
"""
    command = [sys.executable, "-c", script]
    child = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, check=True, text=True)
    assert child.stdout.strip() == "[]"


@pytest.mark.parametrize("name", BUILTINS)
def test_what_is_known_of_a_data_set_without_making_it_is_true(name: str, docs: Splits, cache: Path) -> None:
    for each in BUILTIN_SPLITS:
        path = fetch_builtin(f"builtin://{name}/{each}", cache)
        assert look(path).columns == BUILTINS[name].columns
        assert set(read(path, ["label"])["label"]) == set(BUILTINS[name].labels)


def test_digits_are_1797_images_of_64_grey_values(tmp_path: Path) -> None:
    rows = [read(fetch_builtin(f"builtin://digits/{name}", tmp_path), ["text", "label"]) for name in BUILTIN_SPLITS]
    texts = [(text or "").split() for split_rows in rows for text in split_rows["text"]]
    assert len(texts) == 1797
    assert {len(values) for values in texts} == {64}
    assert {int(value) for values in texts for value in values} == set(range(17))


def test_no_digit_is_in_two_splits(tmp_path: Path) -> None:
    texts = [set(read(fetch_builtin(f"builtin://digits/{name}", tmp_path), ["text"])["text"]) for name in BUILTIN_SPLITS]
    assert sum(map(len, texts)) == len(set().union(*texts))


def test_making_it_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (fetch_builtin("builtin://digits/train", tmp_path / folder) for folder in ("one", "other"))
    assert one.read_bytes() == other.read_bytes()


def test_it_is_made_once(tmp_path: Path) -> None:
    first = fetch_builtin("builtin://digits/train", tmp_path).stat()
    assert fetch_builtin("builtin://digits/train", tmp_path).stat() == first


def test_another_version_is_made_beside_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch_builtin("builtin://digits/train", tmp_path)
    monkeypatch.setitem(BUILTINS, "digits", replace(BUILTINS["digits"], version=2))
    assert fetch_builtin("builtin://digits/train", tmp_path) != first
    assert first.is_file()


def test_what_a_killed_maker_left_is_no_data_set(tmp_path: Path) -> None:
    folder = fetch_builtin("builtin://digits/train", tmp_path).parent
    folder.rename(tmp_path / f".{folder.name}")
    (tmp_path / f".{folder.name}" / "test.parquet").unlink()
    assert look(fetch_builtin("builtin://digits/test", tmp_path)).rows > 0


def test_a_library_that_is_missing_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = replace(BUILTINS["digits"], made_from=("a-distribution-that-is-missing",))
    monkeypatch.setitem(BUILTINS, "digits", broken)
    with pytest.raises(UnreadableDataset, match="a-distribution-that-is-missing"):
        fetch_builtin("builtin://digits/train", tmp_path)


@pytest.mark.parametrize(
    "uri", ["builtin://digit/train", "builtin://digits", "builtin://digits/all", "builtin://", "builtin://../x"]
)
def test_a_name_that_is_none_of_ours_is_not_found(uri: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="builtin://digits"):
        fetch_builtin(uri, tmp_path)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("See numpy.linalg.norm for more", "See [LIB].linalg.norm for more"),
        ("Use np.array or pd.DataFrame", "Use [LIB].array or [LIB].DataFrame"),
        ("Scikit-learn, sklearn and SciPy", "[LIB], [LIB] and [LIB]"),
        ("A PyTorch model for MLflow", "A [LIB] model for [LIB]"),
        ("The MlflowClient and a SQLAlchemyError", "The [LIB]Client and a [LIB]Error"),
        ("torch_dtype or np_array", "[LIB]_dtype or [LIB]_array"),
        ("Ray Tune runs it", "[LIB] runs it"),
        ("An array in an ndarray of input", "An array in an ndarray of input"),
    ],
)
def test_names_and_aliases_of_libraries_are_masked(text: str, masked: str) -> None:
    assert mask(text) == masked


@pytest.mark.parametrize(
    ("docstring", "sentence"),
    [
        ("Compute the mean of it. And more.", "Compute the mean of it."),
        ("Compute the mean,\n    over several lines.\n\n    More.", "Compute the mean, over several lines."),
        ("mean(a, axis=None)\n\nCompute the mean of it.", "Compute the mean of it."),
        ("Values, e.g. Integers of any size. More.", "Values, e.g. Integers of any size."),
        ("Return a :class:`~a.b.Table` or ``None`` for *all*.", "Return a a.b.Table or None for all."),
        ("Return :func:`this one <a.b>` every time.", "Return this one every time."),
        (":attr:`size` comes first, of course.", "size comes first, of course."),
        ("Compute the mean of it\n:param a: all these values", "Compute the mean of it"),
        ("Too short.", None),
        ("word " * 61, None),
        ("See https://example.org for more of it", None),
        (">>> print(this one and that)", None),
        ("", None),
    ],
)
def test_the_first_sentence_is_taken_without_markup(docstring: str, sentence: str | None) -> None:
    assert first_sentence(docstring) == sentence


def test_a_text_that_two_libraries_have_is_left_out() -> None:
    rows = [
        Row("Return a copy of this.", "numpy"),
        Row("Return a copy of this", "scipy"),
        Row("Fit the whole model here", "scipy"),
    ]
    assert choose(rows, 10) == [rows[2]]


def test_of_nearly_the_same_texts_one_is_kept() -> None:
    rows = [Row(f"Return the {word} of a large sparse matrix in place now", "scipy") for word in ("trace", "norm", "rank")]
    assert len(choose(rows, 10)) == 1


def test_identifiers_are_taken_apart_to_compare_texts() -> None:
    assert key("Fit the DataFrame2 of load_iris, [LIB].") == ("fit", "the", "data", "frame", "of", "load", "iris")
    assert similarity(key("one two three four"), key("four three two ONE!")) == 1


def test_a_label_gives_at_most_so_many_rows() -> None:
    texts = ["alpha beta gamma", "delta epsilon zeta", "eta theta iota", "kappa lambda mu"]
    assert len(choose([Row(text, "numpy") for text in texts], 3)) == 3


def test_the_order_in_which_rows_are_found_does_not_matter() -> None:
    rows = [Row(text, "numpy") for text in api_docs.__doc__.split(". ")]
    assert split(choose(rows, 3)) == split(choose(rows[::-1], 3))


def test_the_mask_is_no_word_of_its_own() -> None:
    assert key(f"{MASK} is good") == key("is good")
