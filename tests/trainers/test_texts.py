"""Texts on their way to a model: normalised, tokenised and changed for training."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import intents, make_tiny_encoder
from trainers.configs import CleanText, TextAugmentation
from trainers.contract import TrainerError
from trainers.models import load_tokenizer
from trainers.prepared import Array
from trainers.splits import Row
from trainers.texts import (
    augmented,
    divided,
    label_key,
    normalised,
    read_columns,
    read_lists,
    source_files,
    token_types,
    tokenised,
)

_START, _END, _MASK = 101, 102, 103
_SPECIAL = frozenset({_START, _END, _MASK})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("encoder")
    make_tiny_encoder(folder)
    return load_tokenizer(folder)


def clean(**settings: Any) -> CleanText:
    return CleanText.model_validate({"train": "dataset://rows/train.csv", **settings})


def a_text(count: int = 200) -> Array:
    """So many tokens between two special ones."""
    return np.asarray([_START, *range(count), _END])


def change(ids: Array, seed: int = 0, mask_token: int | None = _MASK, **changes: float) -> tuple[list[int], list[int]]:
    found, kept = augmented(ids, TextAugmentation.model_validate(changes), _SPECIAL, mask_token, (seed, 0, 0))
    return found.tolist(), kept.tolist()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, "É ﬁne\t Day"),
        ({"normalise": "none"}, "E\u0301 ﬁne\t Day"),
        ({"normalise": "nfkc"}, "É fine\t Day"),
        ({"collapse_whitespace": True}, "É ﬁne Day"),
        ({"lowercase": True}, "é ﬁne\t day"),
    ],
)
def test_texts_are_brought_into_the_form_asked_for(settings: dict[str, Any], wanted: str) -> None:
    assert normalised([" E\u0301 ﬁne\t Day\n"], clean(**settings)) == [wanted]


def test_texts_are_cut_at_the_longest_length_and_counted(tokenizer: Any) -> None:
    texts = [text for text, _ in intents()[:30]]
    whole, none_cut = tokenised(tokenizer, texts, 32)
    cut, some_cut = tokenised(tokenizer, texts, 8)
    assert none_cut == 0
    assert some_cut == sum(len(row) > 8 for row in whole) > 0
    assert max(map(len, cut)) == 8
    assert all(row[-1] == tokenizer.sep_token_id for row in cut), "the end of a text that is cut is an end too"
    assert all(row == all_of_it for row, all_of_it in zip(cut, whole, strict=True) if len(all_of_it) <= 8)


def test_texts_become_what_the_tokenizer_alone_makes_of_them(tokenizer: Any) -> None:
    texts = [text for text, _ in intents()] * 2
    assert tokenised(tokenizer, texts, 8)[0] == tokenizer(texts, truncation=True, max_length=8)["input_ids"]


@pytest.mark.parametrize("max_length", [8, 32])
def test_each_token_of_a_pair_is_said_to_be_of_one_of_both(tokenizer: Any, max_length: int) -> None:
    texts, pairs = ["please pay back the loan"] * 2, ["block my card", "see my balance today or right now or never"]
    ids, _ = tokenised(tokenizer, texts, max_length, pairs)
    types = token_types(tokenizer, texts, pairs, max_length)
    assert [len(row) for row in types] == [len(row) for row in ids]
    for row, kinds in zip(ids, types, strict=True):
        first = row.index(tokenizer.sep_token_id) + 1
        assert kinds == [0] * first + [1] * (len(row) - first)


def test_tokens_are_dropped_at_the_share_asked_for_and_the_rest_keep_their_order() -> None:
    ids, kept = change(a_text(), token_dropout=0.3)
    assert 0.2 < 1 - len(ids) / 202 < 0.4
    assert kept == sorted(set(kept))
    assert ids == a_text()[kept].tolist()
    assert (ids[0], ids[-1]) == (_START, _END)


def test_one_token_is_always_left() -> None:
    for seed in range(50):
        ids, _ = change(np.asarray([_START, 5, 6, _END]), seed, token_dropout=0.99)
        assert set(ids) & {5, 6}


def test_spans_are_hidden_and_nothing_is_moved() -> None:
    ids, kept = change(a_text(), span_masking=0.3)
    assert kept == list(range(202))
    assert ids.count(_MASK) == 60
    hidden = [place for place, token in enumerate(ids) if token == _MASK]
    spans = 1 + sum(after != before + 1 for before, after in itertools.pairwise(hidden))
    assert 60 / spans > 1.5, "longer than single tokens"
    assert (ids[0], ids[-1]) == (_START, _END)


def test_a_tokenizer_without_a_mask_hides_nothing() -> None:
    assert change(a_text(), mask_token=None, span_masking=0.5)[0] == a_text().tolist()


def test_a_change_depends_on_its_seed_alone_and_dropping_not_on_hiding() -> None:
    both: dict[str, Any] = {"token_dropout": 0.2, "span_masking": 0.2}
    assert change(a_text(), 1, **both) == change(a_text(), 1, **both)
    assert change(a_text(), 1, **both) != change(a_text(), 2, **both)
    assert change(a_text(), 1, **both)[1] == change(a_text(), 1, token_dropout=0.2)[1]


def test_a_text_stays_as_it_was_on_disk() -> None:
    ids = a_text()
    change(ids, token_dropout=0.2, span_masking=0.2)
    assert ids.tolist() == a_text().tolist()


def test_labels_that_are_numbers_come_in_their_order_before_the_others() -> None:
    assert sorted(["10", "b", "9", "٣", "-1", "a", "0"], key=label_key) == ["0", "9", "10", "-1", "a", "b", "٣"]


def test_a_source_is_a_name_or_a_path(tmp_path: Path) -> None:
    named, beside = tmp_path / "named.csv", tmp_path / "beside.csv"
    named.touch()
    beside.touch()
    data = clean(train="dataset://rows/named.csv", test=str(beside))
    assert source_files(data, {"dataset://rows/named.csv": named}) == {"train": named, "test": beside}


def test_a_missing_file_is_named() -> None:
    with pytest.raises(TrainerError, match=r"dataset://rows/train\.csv"):
        source_files(clean(), {})


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text,label\na,b\n")
    with pytest.raises(TrainerError, match=r"train\.csv: there is no column 'category': the file has 'text', 'label'"):
        read_columns(tmp_path / "train.csv", ["category"])
    with pytest.raises(TrainerError, match=r"train\.csv: there is no column 'category'"):
        read_lists(tmp_path / "train.csv", {"category": "|"})


def test_what_is_missing_is_empty(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": null, "labels": null}\n{"text": "a", "labels": ["b", "c"]}\n')
    assert read_columns(tmp_path / "rows.jsonl", ["text"]) == {"text": ["", "a"]}
    assert read_lists(tmp_path / "rows.jsonl", {"labels": None}) == {"labels": [[], ["b", "c"]]}


def test_a_split_without_rows_says_what_to_do() -> None:
    with pytest.raises(TrainerError, match="No training rows are left") as raised:
        divided(clean(), {"train": [Row("", None, is_empty=True)]})
    assert raised.value.reason == "trainer_error"
