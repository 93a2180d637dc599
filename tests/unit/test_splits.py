"""Rows cleaned and divided by their keys."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainers.configs import Splits
from trainers.splits import Division, EmptySplit, Place, Row, divide


def splits(**settings: Any) -> Splits:
    return Splits.model_validate({"train": "dataset://rows/train.csv", **settings})


def rows(*keys: str, stratum: str | None = None) -> list[Row]:
    """Rows of these keys; the empty one is an empty row."""
    return [Row(key, stratum, is_empty=not key) for key in keys]


def labelled(**counts: int) -> list[Row]:
    return [Row(f"{label} {number}", label) for label, count in counts.items() for number in range(count)]


def positions(places: Sequence[Place]) -> list[int]:
    return [place.position for place in places]


def test_rows_that_are_named_stay_where_they_are() -> None:
    division = divide(splits(), {"train": rows("a", "b"), "validation": rows("c"), "test": rows("d")})
    assert division == Division(
        train=(Place("train", 0), Place("train", 1)),
        validation=(Place("validation", 0),),
        test=(Place("test", 0),),
        facts={
            "rows": {"train": 2, "validation": 1, "test": 1},
            "dropped": {"empty": 0, "duplicate": 0, "in_other_split": 0},
        },
    )


def test_empty_rows_are_dropped_everywhere_and_counted() -> None:
    division = divide(splits(), {"train": rows("", "a", ""), "validation": rows("b", ""), "test": rows("", "c")})
    assert (positions(division.train), positions(division.validation), positions(division.test)) == ([1], [0], [1])
    assert division.facts["dropped"]["empty"] == 4


def test_of_a_files_rows_with_the_same_key_the_first_is_kept() -> None:
    read = {"train": rows("a", "b", "a", "b", "c"), "validation": rows("d", "d"), "test": rows("e", "f", "f", "f")}
    division = divide(splits(), read)
    assert positions(division.train) == [0, 1, 4]
    assert positions(division.validation) == [0]
    assert positions(division.test) == [0, 1]
    assert division.facts["dropped"] == {"empty": 0, "duplicate": 5, "in_other_split": 0}


def test_a_training_row_that_is_a_validation_or_test_row_is_dropped() -> None:
    division = divide(splits(), {"train": rows("a", "b", "c", "b"), "validation": rows("b"), "test": rows("c")})
    assert positions(division.train) == [0]
    assert division.facts["dropped"] == {"empty": 0, "duplicate": 0, "in_other_split": 3}


def test_a_validation_row_that_is_a_test_row_is_dropped_and_may_stay_a_training_rows_neighbour() -> None:
    division = divide(splits(), {"train": rows("a"), "validation": rows("b", "c"), "test": rows("b", "x")})
    assert positions(division.validation) == [1]
    assert positions(division.test) == [0, 1]


def test_keys_may_be_bytes_or_tuples() -> None:
    division = divide(splits(), {"train": [Row(b"\0"), Row(("a", "b")), Row(b"\0")], "validation": [Row(("a", "b"))]})
    assert positions(division.train) == [0]


def test_held_back_rows_have_each_stratums_proportion() -> None:
    division = divide(splits(validation_fraction=0.2), {"train": labelled(a=50, b=20, c=5)})
    labels = [label for label, count in (("a", 50), ("b", 20), ("c", 5)) for _ in range(count)]
    assert Counter(labels[at] for at in positions(division.validation)) == {"a": 10, "b": 4, "c": 1}
    assert sorted(division.train + division.validation) == [Place("train", at) for at in range(75)]


def test_held_back_rows_come_in_the_order_of_the_file() -> None:
    division = divide(splits(validation_fraction=0.5, test_fraction=0.2), {"train": labelled(a=30, b=30)})
    for places in (division.train, division.validation, division.test):
        assert positions(places) == sorted(positions(places))


def test_the_validation_rows_of_a_seed_are_those_they_have_always_been() -> None:
    """As the shuffles of numpy's generator have it, label by label: another choice would make old results incomparable."""
    keys = [Row(str(at), "ba"[at % 2]) for at in range(40)]
    random = np.random.default_rng(7)
    by_label = {"a": list(range(1, 40, 2)), "b": list(range(0, 40, 2))}
    expected = sorted(at for label in "ab" for at in random.permutation(by_label[label])[:4].tolist())
    assert positions(divide(splits(validation_fraction=0.2, split_seed=7), {"train": keys}).validation) == expected
    assert expected == [0, 7, 8, 17, 24, 25, 27, 32]


def test_another_seed_holds_back_other_rows() -> None:
    one, same, other = (divide(splits(split_seed=seed), {"train": labelled(a=100)}) for seed in (1, 1, 2))
    assert one == same
    assert one.validation != other.validation


def test_rows_without_strata_are_held_back_by_chance_alone() -> None:
    division = divide(splits(validation_fraction=0.3), {"train": rows(*(str(at) for at in range(100)))})
    assert len(division.validation) == 30
    assert positions(division.validation) != list(range(30))


def test_a_stratum_keeps_its_last_training_row() -> None:
    division = divide(splits(validation_fraction=0.6, test_fraction=0.3), {"train": labelled(a=9, b=1, c=2)})
    assert {9}.issubset(positions(division.train))
    assert {10, 11}.intersection(positions(division.train))


def test_nothing_is_tested_unless_it_is_asked_for() -> None:
    division = divide(splits(), {"train": labelled(a=50)})
    assert division.test == ()
    assert "test" not in division.facts["rows"]


def test_the_test_fraction_is_a_share_of_all_training_rows() -> None:
    division = divide(splits(validation_fraction=0.2, test_fraction=0.3), {"train": labelled(a=100, b=50)})
    assert division.facts["rows"] == {"train": 75, "validation": 30, "test": 45}


def test_test_rows_are_held_back_beside_named_validation_rows() -> None:
    division = divide(splits(test_fraction=0.25), {"train": labelled(a=40), "validation": rows("v")})
    assert division.facts["rows"] == {"train": 30, "validation": 1, "test": 10}


def test_the_test_fraction_says_nothing_where_test_rows_are_named() -> None:
    division = divide(splits(test_fraction=0.25), {"train": labelled(a=40), "test": rows("t")})
    assert division.facts["rows"] == {"train": 36, "validation": 4, "test": 1}


def test_validation_rows_stay_the_same_whatever_is_held_back_for_the_test() -> None:
    without, with_test = (divide(splits(test_fraction=share), {"train": labelled(a=60, b=30)}) for share in (0.0, 0.4))
    assert without.validation == with_test.validation


@pytest.mark.parametrize(
    ("settings", "read", "sentence"),
    [
        ({}, {"train": rows("", "")}, "No training rows are left"),
        ({}, {"train": rows("a"), "validation": rows("a")}, "No training rows are left"),
        ({}, {"train": rows("a"), "validation": rows("")}, "No validation rows are left"),
        ({}, {"train": rows("a"), "validation": rows("b"), "test": rows("")}, "No test rows are left"),
        ({}, {"train": rows("a", "b")}, "`validation_fraction` holds back none of 2 training rows for the validation: raise it"),
        (
            {"test_fraction": 0.1},
            {"train": rows("a", "b"), "validation": rows("c")},
            "`test_fraction` holds back none of 2 training rows for the test: raise it",
        ),
    ],
)
def test_a_split_without_rows_says_what_to_do(settings: dict[str, Any], read: dict[str, list[Row]], sentence: str) -> None:
    with pytest.raises(EmptySplit, match=sentence):
        divide(splits(**settings), read)


def several(*labels: str) -> list[Row]:
    """Rows with some labels of one letter each."""
    return [Row(at, labels=frozenset(some)) for at, some in enumerate(labels)]


@pytest.mark.parametrize("seed", range(10))
def test_a_row_with_a_label_of_its_own_is_not_held_back(seed: int) -> None:
    division = divide(splits(validation_fraction=0.6, split_seed=seed), {"train": several("a", "ab", "a", "", "ac", "a")})
    assert {1, 4} <= set(positions(division.train))


def test_of_rows_that_share_a_label_alone_one_stays_to_train_on() -> None:
    division = divide(splits(validation_fraction=0.5, test_fraction=0.4), {"train": several(*["a"] * 6, *["b"] * 2)})
    assert {6, 7} & set(positions(division.train))


def test_labels_decide_nothing_about_rows_that_are_named() -> None:
    division = divide(splits(), {"train": several("a", "a"), "validation": [Row("v", labels=frozenset("z"))]})
    assert (len(division.train), len(division.validation)) == (2, 1)


@given(
    labels=st.lists(st.sets(st.sampled_from("abcdef"), max_size=3).map("".join), min_size=2, max_size=40),
    fraction=st.floats(0.05, 0.45),
    seed=st.integers(0, 10),
)
def test_no_held_back_row_has_a_label_that_no_training_row_has(labels: list[str], fraction: float, seed: int) -> None:
    read = {"train": several(*labels)}
    try:
        without, division = (
            divide(splits(validation_fraction=fraction, test_fraction=share, split_seed=seed), read) for share in (0.0, fraction)
        )
    except EmptySplit:
        return
    learnt = {label for place in division.train for label in labels[place.position]}
    assert all(set(labels[place.position]) <= learnt for place in (*division.validation, *division.test))
    assert len(division.train) + len(division.validation) + len(division.test) == len(labels)
    assert without.validation == division.validation


def grouped(*groups: str | None) -> list[Row]:
    return [Row((group, at), group=group) for at, group in enumerate(groups)]


def test_rows_of_one_group_are_kept_out_of_other_splits() -> None:
    read = {"train": grouped("p", "q", "r", None), "validation": [Row(("q", "v"), group="q")], "test": [Row(("r", 9), group="r")]}
    division = divide(splits(), read)
    assert positions(division.train) == [0, 3]
    assert division.facts["dropped"] == {"empty": 0, "duplicate": 0, "in_other_split": 2}


@given(groups=st.lists(st.sampled_from([None, *"abcdefgh"]), min_size=2, max_size=40), seed=st.integers(0, 10))
def test_rows_of_one_group_are_held_back_together(groups: list[str | None], seed: int) -> None:
    rows = grouped(*groups)
    try:
        division = divide(splits(validation_fraction=0.3, test_fraction=0.3, split_seed=seed), {"train": rows})
    except EmptySplit:
        return
    parts = [{rows[place.position].kin for place in part} for part in (division.train, division.validation, division.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == len({row.kin for row in rows})
    assert sum(division.facts["rows"].values()) == len(groups)


def test_a_group_is_held_back_as_if_it_were_one_row() -> None:
    read = [[Row((at, number), group=at) for at in range(20) for number in range(answers)] for answers in (1, 3)]
    alone, answered = (divide(splits(validation_fraction=0.3), {"train": rows}) for rows in read)
    assert {at // 3 for at in positions(answered.validation)} == set(positions(alone.validation))
    assert len(answered.validation) == 3 * len(alone.validation) == 18


@given(
    keys=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([None, "a", "b"])), min_size=1, max_size=60),
    tested=st.lists(st.integers(0, 30), max_size=5),
    fraction=st.floats(0.05, 0.45),
    seed=st.integers(0, 10),
)
def test_no_key_is_in_two_splits_and_no_row_is_lost(
    keys: list[tuple[int, str | None]], tested: list[int], fraction: float, seed: int
) -> None:
    read = {"train": [Row(key, stratum) for key, stratum in keys], **({"test": [Row(key) for key in tested]} if tested else {})}
    try:
        division = divide(splits(validation_fraction=fraction, test_fraction=fraction, split_seed=seed), read)
    except EmptySplit:
        return
    found = [{read[place.source][place.position].key for place in places} for places in (division.train, division.validation)]
    found.append({read[place.source][place.position].key for place in division.test})
    assert sum(map(len, found)) == len(set().union(*found))
    dropped = sum(division.facts["dropped"].values())
    assert sum(division.facts["rows"].values()) + dropped == len(keys) + len(tested)
    if not tested:
        assert set().union(*found) == {key for key, _ in keys}
