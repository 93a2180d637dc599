"""What is made of a study's rows once, and the order that an epoch takes them in."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trainers.prepared import (
    Ints,
    Prepared,
    Ragged,
    by_length,
    epoch_order,
    file_sha256,
    is_prepared,
    padded,
    prepared,
    save_array,
    save_ragged,
    save_texts,
    tokenizer_sha256,
    weights_sha256,
)


def lengths(*counts: int) -> Ints:
    return np.asarray(counts, dtype=np.int64)


def ragged(*rows: Sequence[int]) -> Ragged:
    return Ragged(np.concatenate([np.asarray(row) for row in rows]), np.cumsum([0, *map(len, rows)]))


def making(made: list[str], facts: Mapping[str, Any]) -> Callable[[Path], Mapping[str, Any]]:
    """A recipe that notes each time it is followed."""

    def make(folder: Path) -> Mapping[str, Any]:
        made.append(folder.name)
        save_array(folder, "numbers", np.arange(3))
        save_ragged(folder, "tokens", [[1, 2], [], [3]])
        save_texts(folder, "texts", ["ä", "b"])
        return facts

    return make


def contents(found: Prepared) -> Any:
    tokens = found.ragged("tokens")
    return (
        found.facts,
        found.array("numbers").tolist(),
        [tokens[row].tolist() for row in range(len(tokens))],
        found.texts("texts"),
    )


def test_the_second_trial_finds_what_the_first_prepared(tmp_path: Path) -> None:
    made: list[str] = []
    first = prepared(tmp_path / "cache", {"rows": "a"}, making(made, {"rows": 3}))
    second = prepared(tmp_path / "cache", {"rows": "a"}, making(made, {"rows": 4}))
    assert len(made) == 1
    assert contents(first) == contents(second) == ({"rows": 3}, [0, 1, 2], [[1, 2], [], [3]], ["ä", "b"])


def test_one_copy_of_an_array_is_in_memory_for_all_workers(tmp_path: Path) -> None:
    found = prepared(tmp_path, {}, making([], {}))
    assert isinstance(found.array("numbers"), np.memmap)
    assert isinstance(found.ragged("tokens").values, np.memmap)


def test_what_depends_on_something_else_is_prepared_anew(tmp_path: Path) -> None:
    made: list[str] = []
    for depends_on in ({"rows": "a"}, {"rows": "b"}, {"rows": "a", "max_length": 1}):
        prepared(tmp_path, depends_on, making(made, {}))
    assert len(made) == len(list(tmp_path.iterdir())) == 3


def test_a_failure_leaves_nothing_half_made(tmp_path: Path) -> None:
    def fail(folder: Path) -> Mapping[str, Any]:
        save_array(folder, "numbers", np.arange(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepared(tmp_path / "cache", {}, fail)
    assert not list((tmp_path / "cache").iterdir())


def test_who_comes_second_takes_what_is_there(tmp_path: Path) -> None:
    """Both find nothing and prepare; the faster one's folder is there when the slower one is done."""
    made: list[str] = []

    def slower(folder: Path) -> Mapping[str, Any]:
        prepared(tmp_path / "elsewhere", {}, making(made, {"by": "the faster"}))
        (taken,) = (tmp_path / "elsewhere").iterdir()
        taken.rename(tmp_path / "cache" / taken.name)
        return making(made, {"by": "the slower"})(folder)

    found = prepared(tmp_path / "cache", {}, slower)
    assert found.facts == {"by": "the faster"}
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_two_processes_of_the_same_number_prepare_in_folders_of_their_own(tmp_path: Path) -> None:
    """As in two containers that share the cache."""
    made: list[str] = []

    def also_prepared_elsewhere(folder: Path) -> Mapping[str, Any]:
        prepared(tmp_path, {}, making(made, {"by": "the faster"}))
        return making(made, {"by": "the slower"})(folder)

    assert prepared(tmp_path, {}, also_prepared_elsewhere).facts == {"by": "the faster"}
    assert len(set(made)) == 2


def test_what_a_kill_left_half_made_is_removed_after_a_day(tmp_path: Path) -> None:
    for name, hours in (("new", 1), ("old", 25)):
        (tmp_path / f".{name}.1").mkdir()
        (tmp_path / f".{name}.1" / "tokens.npy").touch()
        os.utime(tmp_path / f".{name}.1", (time.time() - hours * 3600,) * 2)
    found = prepared(tmp_path, {}, making([], {}))
    assert {path.name for path in tmp_path.iterdir()} == {".new.1", found.folder.name}


def test_what_is_prepared_can_be_asked_for_without_preparing_it(tmp_path: Path) -> None:
    assert not is_prepared(tmp_path, {"rows": "a"})
    prepared(tmp_path, {"rows": "a"}, making([], {}))
    assert is_prepared(tmp_path, {"rows": "a"})
    assert not is_prepared(tmp_path, {"rows": "b"})


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(OSError, match="cache"):
        prepared(tmp_path / "cache", {}, making([], {}))


def test_rows_are_padded_to_the_longest_of_them() -> None:
    rows = ragged([7], [8, 8, 8], [9, 9])
    assert rows.padded([0, 2], -1).tolist() == [[7, -1], [9, 9]]
    assert rows.padded([1, 0], 0).tolist() == [[8, 8, 8], [7, 0, 0]]
    assert rows.lengths.tolist() == [1, 3, 2]


def test_whole_numbers_stay_whole_and_fractions_what_they_are() -> None:
    assert padded([np.asarray([1], dtype=np.int32)], 2, -1).dtype == np.int64
    assert padded([np.asarray([0.5], dtype=np.float32)], 2, 0).dtype == np.float32


@pytest.mark.parametrize("group_by_length", [True, False])
def test_an_epoch_has_every_row_once(*, group_by_length: bool) -> None:
    order = epoch_order(lengths(*[3] * 103), 8, seed=1, epoch=0, group_by_length=group_by_length)
    assert sorted(row for batch in order for row in batch) == list(range(103))
    assert sorted(len(batch) for batch in order) == [7] + [8] * 12


@pytest.mark.parametrize("group_by_length", [True, False])
def test_an_epochs_order_depends_on_seed_and_epoch_alone(*, group_by_length: bool) -> None:
    def order(seed: int, epoch: int) -> list[list[int]]:
        return epoch_order(lengths(*range(1, 65)), 8, seed, epoch, group_by_length=group_by_length)

    assert order(1, 2) == order(1, 2)
    assert order(1, 2) != order(1, 3)
    assert order(1, 2) != order(2, 2)


def test_rows_of_similar_length_share_a_batch() -> None:
    counts = np.random.default_rng(0).integers(1, 100, size=1000)

    def padding(*, group_by_length: bool) -> float:
        order = epoch_order(counts, 10, 0, 0, group_by_length=group_by_length)
        return float(sum(len(batch) * counts[batch].max() for batch in order) / counts.sum())

    assert padding(group_by_length=True) < 1.1
    assert padding(group_by_length=False) > 1.5


def test_batches_of_a_length_do_not_come_in_its_order() -> None:
    counts = np.arange(1, 401)
    longest = [int(counts[batch].max()) for batch in epoch_order(counts, 10, 0, 0, group_by_length=True)]
    assert longest != sorted(longest)


def test_evaluation_begins_with_the_shortest_and_keeps_the_order_of_equals() -> None:
    assert by_length(lengths(5, 1, 3, 1)) == [1, 3, 2, 0]


def test_a_hash_is_of_what_a_file_holds_now(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("one")
    (tmp_path / "same.csv").write_text("one")
    before = file_sha256(tmp_path / "rows.csv")
    assert before == file_sha256(tmp_path / "same.csv")
    (tmp_path / "rows.csv").write_text("another")
    assert file_sha256(tmp_path / "rows.csv") != before


def test_a_tokenizers_hash_leaves_weights_out_and_a_models_hash_is_of_them(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors", "README.md"):
        (tmp_path / name).write_text("one")
    before = tokenizer_sha256(tmp_path), weights_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_text("other weights")
    (tmp_path / "README.md").write_text("other words")
    after = tokenizer_sha256(tmp_path), weights_sha256(tmp_path)
    assert (before[0] == after[0], before[1] == after[1]) == (True, False)
    (tmp_path / "tokenizer.json").write_text("another tokenizer")
    assert (tokenizer_sha256(tmp_path) == after[0], weights_sha256(tmp_path) == after[1]) == (False, True)
