"""Texts before a trainer sees them: cleaned, split, tokenised, kept for the next trial, and put into batches."""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tiny import intents, make_tiny_encoder
from trainers.configs import TextData
from trainers.contract import TrainerError
from trainers.models import load_tokenizer
from trainers.texts import PreparedTexts, Tokens, epoch_order, padded_batches, prepare

Row = tuple[str, str]


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    make_tiny_encoder(folder)
    return folder


class Desk:
    """Rows in files, prepared with the tiny encoder's tokenizer."""

    def __init__(self, root: Path, encoder: Path) -> None:
        self.root = root
        self.encoder = encoder
        self.tokenizer = load_tokenizer(encoder)

    def prepare(self, max_length: int = 32, settings: Mapping[str, Any] | None = None, **splits: Sequence[Row]) -> PreparedTexts:
        for split, rows in splits.items():
            with (self.root / f"{split}.csv").open("w", newline="") as file:
                csv.writer(file).writerows([("text", "label"), *rows])
        sources = {f"dataset://rows/{split}.csv": self.root / f"{split}.csv" for split in splits}
        named = {split: f"dataset://rows/{split}.csv" for split in splits}
        data = TextData.model_validate({**named, **(settings or {})})
        return prepare(data, max_length, self.tokenizer, self.encoder, sources, self.root / "cache")

    def texts(self, tokens: Tokens) -> list[str]:
        spans = zip(tokens.offsets[:-1], tokens.offsets[1:], strict=True)
        return [self.tokenizer.decode(tokens.ids[start:end], skip_special_tokens=True) for start, end in spans]


@pytest.fixture
def desk(tmp_path: Path, encoder: Path) -> Desk:
    return Desk(tmp_path, encoder)


def some(count: int, start: int = 0) -> list[Row]:
    return intents()[start : start + count]


def test_every_row_keeps_its_text_and_its_label(desk: Desk) -> None:
    rows = some(20)
    prepared = desk.prepare(train=rows, validation=some(5, 20))
    labels = [prepared.labels[number] for number in prepared.train.labels]
    assert sorted(zip(desk.texts(prepared.train), labels, strict=True)) == sorted(
        (text.replace("'", " ' "), label) for text, label in rows
    )


def test_empty_and_repeated_rows_are_dropped_and_counted(desk: Desk) -> None:
    rows = some(10)
    untidy = [*rows, ("  ", "card"), ("a text", ""), rows[0], (f" {rows[1][0]} ", rows[1][1])]
    prepared = desk.prepare(train=untidy, validation=[("a word", rows[0][1])] * 5)
    assert len(prepared.train) == 10
    assert prepared.facts["dropped"] == {"empty": 2, "duplicate": 2, "in_other_split": 0}
    assert prepared.facts["rows"] == {"train": 10, "validation": 5}


def test_no_training_text_is_a_validation_or_a_test_text(desk: Desk) -> None:
    prepared = desk.prepare(train=some(20), validation=some(4), test=some(3, 10))
    assert set(desk.texts(prepared.train)).isdisjoint(desk.texts(prepared.validation))
    assert prepared.facts["dropped"]["in_other_split"] == 7
    assert len(prepared.train) == 13


def test_no_validation_text_is_a_test_text(desk: Desk) -> None:
    prepared = desk.prepare(train=some(20), validation=some(6, 20), test=some(4, 24))
    assert len(prepared.validation) == 4
    assert prepared.facts["dropped"]["in_other_split"] == 2


def test_validation_rows_are_held_back_in_each_labels_proportion(desk: Desk) -> None:
    prepared = desk.prepare(train=some(400), settings={"validation_fraction": 0.2})
    assert len(prepared.validation) == 80
    whole = Counter(label for _, label in some(400))
    held = Counter(prepared.labels[number] for number in prepared.validation.labels)
    assert all(abs(held[label] - 0.2 * count) <= 1 for label, count in whole.items())
    assert set(desk.texts(prepared.train)).isdisjoint(desk.texts(prepared.validation))


def test_a_label_never_loses_its_last_training_row(desk: Desk) -> None:
    rows = [*some(30), ("the only one of its kind", "rare")]
    prepared = desk.prepare(train=rows, settings={"validation_fraction": 0.5})
    assert "rare" in {prepared.labels[number] for number in prepared.train.labels}


def test_the_split_follows_its_own_seed(desk: Desk) -> None:
    one, same, other = (desk.prepare(train=some(100), settings={"split_seed": seed}) for seed in (1, 1, 2))
    assert desk.texts(one.validation) == desk.texts(same.validation)
    assert desk.texts(one.validation) != desk.texts(other.validation)


def test_labels_that_are_numbers_come_in_their_order(desk: Desk) -> None:
    rows = [(f"{text} x", str(at % 12)) for at, (text, _) in enumerate(some(40))]
    assert desk.prepare(train=rows).labels == tuple(str(number) for number in range(12))


def test_texts_are_cut_at_the_longest_length(desk: Desk) -> None:
    prepared = desk.prepare(max_length=6, train=some(20), validation=some(5, 20))
    assert prepared.train.lengths.max() == 6


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": [("one", "a"), ("two", "a")], "validation": [("three", "a")]}, "needs two"),
        ({"train": [("one", "a"), ("two", "b")], "validation": [("three", "c")]}, "'c'"),
        ({"train": [("one", "a"), ("two", "b")], "validation": [(" ", "a")]}, "No validation rows are left"),
    ],
)
def test_rows_that_nothing_can_be_learnt_from_are_refused(desk: Desk, splits: dict[str, list[Row]], said: str) -> None:
    with pytest.raises(TrainerError, match=said):
        desk.prepare(32, None, **splits)


def test_a_missing_column_is_named(desk: Desk) -> None:
    with pytest.raises(TrainerError, match=r"train\.csv: there is no column 'category': the file has 'text', 'label'"):
        desk.prepare(train=some(5), settings={"label": "category"})


def test_a_missing_file_is_named(desk: Desk) -> None:
    rows = TextData(train="dataset://rows/gone.csv")
    with pytest.raises(TrainerError, match=r"dataset://rows/gone\.csv"):
        prepare(rows, 32, desk.tokenizer, desk.encoder, {}, desk.root)


def test_the_second_trial_finds_what_the_first_prepared(desk: Desk) -> None:
    desk.prepare(train=some(50))
    (made,) = (desk.root / "cache").iterdir()
    before = made.stat().st_ino
    again = desk.prepare(train=some(50))
    assert [path.stat().st_ino for path in (desk.root / "cache").iterdir()] == [before]
    assert isinstance(again.train.ids, np.memmap), "one copy in memory for all workers"


@pytest.mark.parametrize("change", [{"max_length": 8}, {"settings": {"validation_fraction": 0.3}}, {"train": some(49)}])
def test_other_rows_or_settings_are_prepared_anew(desk: Desk, change: dict[str, Any]) -> None:
    desk.prepare(train=some(50))
    desk.prepare(**{"train": some(50), **change})
    assert len(list((desk.root / "cache").iterdir())) == 2


def test_preparing_leaves_nothing_half_made(desk: Desk) -> None:
    with pytest.raises(TrainerError):
        desk.prepare(train=[("one", "a"), ("two", "a")])
    assert not (desk.root / "cache").exists()


def test_who_comes_second_takes_what_is_there(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    first = desk.prepare(train=some(50))
    is_dir = Path.is_dir
    looked: list[Path] = []

    def not_there_at_the_first_look(path: Path, **options: bool) -> bool:
        looked.append(path)
        return len(looked) > 1 and is_dir(path, **options)

    monkeypatch.setattr(Path, "is_dir", not_there_at_the_first_look)
    second = desk.prepare(train=some(50))
    assert second.facts == first.facts
    assert len(list((desk.root / "cache").iterdir())) == 1


def tokens(lengths: Sequence[int]) -> Tokens:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = np.concatenate([np.full(length, number) for number, length in enumerate(lengths)]).astype(np.int32)
    return Tokens(ids, offsets, np.arange(len(lengths), dtype=np.int64))


def test_an_epoch_has_every_row_once() -> None:
    order = epoch_order(tokens([3] * 103), 8, seed=1, epoch=0)
    assert sorted(row for batch in order for row in batch) == list(range(103))
    assert sorted(len(batch) for batch in order) == [7] + [8] * 12


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    rows = tokens(list(range(1, 65)))
    assert epoch_order(rows, 8, 1, 2) == epoch_order(rows, 8, 1, 2)
    assert epoch_order(rows, 8, 1, 2) != epoch_order(rows, 8, 1, 3)
    assert epoch_order(rows, 8, 1, 2) != epoch_order(rows, 8, 2, 2)


def test_texts_of_similar_length_share_a_batch() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, size=1000)
    rows = tokens(lengths.tolist())
    padded = sum(ids.size for ids, _ in padded_batches(rows, 10, epoch_order(rows, 10, 0, 0)))
    by_chance = np.random.default_rng(1).permutation(1000).reshape(100, 10)
    assert padded / lengths.sum() < 1.1
    assert sum(10 * lengths[batch].max() for batch in by_chance) / lengths.sum() > 1.5


def test_short_texts_are_padded_to_the_longest_of_their_batch() -> None:
    ((ids, labels),) = padded_batches(tokens([1, 3]), 2, [[1, 0]])
    assert ids.tolist() == [[1, 1, 1], [0, -1, -1]]
    assert labels.tolist() == [1, 0]


def test_without_an_order_all_rows_come_once_the_shortest_first() -> None:
    found = [labels.tolist() for _, labels in padded_batches(tokens([5, 1, 3]), 2)]
    assert found == [[1, 2], [0]]
