"""Rows cleaned and divided into training, validation and test rows by their keys, whatever they hold."""

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from trainers.configs import Splits


class EmptySplit(ValueError):
    """A split that has no rows left; the message says what to do."""


class Row(NamedTuple):
    """What dividing needs to know of a row.

    Rows of equal keys are the same row, and rows of one group, such as a question with several answers, are in one split; a row
    without one stands alone. Rows are held back in each stratum's proportion; None everywhere is a plain random split. `labels`
    are those that a row is held back only while training rows have them too. A row that lacks something is empty.
    """

    key: Hashable
    stratum: str | None = None
    is_empty: bool = False
    labels: frozenset[str] = frozenset()
    group: Hashable | None = None

    @property
    def kin(self) -> Hashable:
        """What it shares with the rows that it is not to be parted from."""
        return self.key if self.group is None else self.group


class Place(NamedTuple):
    """Where a row came from: the split whose file it is in, and its position there, from 0."""

    source: str
    position: int


@dataclass(frozen=True)
class Division:
    """The rows of each split, in the order of their files. `facts` counts rows, and those that were dropped and why."""

    train: tuple[Place, ...]
    validation: tuple[Place, ...]
    test: tuple[Place, ...]
    facts: Mapping[str, Any]


def divide(splits: Splits, read: Mapping[str, Sequence[Row]]) -> Division:
    """Which rows to train, validate and test on; `read` has the rows of each file by the split that names it.

    Empty rows are dropped, and of rows of one file with the same key all but the first. No training row's key or group is a
    validation or test row's, and no validation row's is a test row's. Validation rows that are not named, and test rows where a
    `test_fraction` asks for them, are held back from the training rows by `split_seed`. Raises EmptySplit.
    """
    dropped = _Dropped()
    named: dict[str, _Rows] = {}
    elsewhere: set[Hashable] = set()
    for split in ("test", "validation", "train"):  # what is in two of them stays in the first of these
        if split in read:
            rows = _without(_without_empty(split, read[split], dropped), elsewhere, dropped)
            named[split] = _without_duplicates(rows, dropped)
            elsewhere |= {row.kin for row in rows.values()}
    train = named["train"]
    _check("train", train)
    held = _hold_back(splits, train, needed={"validation", "test"} - set(named))
    kept = {
        "train": {place: row for place, row in train.items() if not any(place in rows for rows in held.values())},
        "validation": named.get("validation", held["validation"]),
        "test": named.get("test", held["test"]),
    }
    for split, rows in kept.items():
        if split != "test" or "test" in named or splits.test_fraction:
            _check(split, rows, None if split in named else (f"{split}_fraction", len(train)))
    places = {split: tuple(rows) for split, rows in kept.items()}
    counts = {split: len(rows) for split, rows in kept.items() if rows}
    return Division(**places, facts={"rows": counts, "dropped": asdict(dropped)})


_Rows = dict[Place, Row]


@dataclass
class _Dropped:
    empty: int = 0
    duplicate: int = 0
    in_other_split: int = 0


def _without_empty(split: str, rows: Sequence[Row], dropped: _Dropped) -> _Rows:
    kept = {Place(split, at): row for at, row in enumerate(rows) if not row.is_empty}
    dropped.empty += len(rows) - len(kept)
    return kept


def _without(rows: _Rows, elsewhere: set[Hashable], dropped: _Dropped) -> _Rows:
    """The rows that have no kin in another split."""
    kept = {place: row for place, row in rows.items() if row.kin not in elsewhere}
    dropped.in_other_split += len(rows) - len(kept)
    return kept


def _without_duplicates(rows: _Rows, dropped: _Dropped) -> _Rows:
    """Each key once, the first of its rows."""
    first: dict[Hashable, Place] = {}
    for place, row in rows.items():
        first.setdefault(row.key, place)
    dropped.duplicate += len(rows) - len(first)
    return {place: rows[place] for place in first.values()}


def _hold_back(splits: Splits, train: _Rows, needed: set[str]) -> dict[str, _Rows]:
    """Validation and test rows out of the training rows, each stratum in the same proportion, and each group as if it were a row.

    Each stratum is shuffled once: the first of it are validation rows, the next test rows. So the validation rows are the same
    whatever the `test_fraction`.
    """
    stratum_of: dict[Hashable, str] = {}
    for row in train.values():
        stratum_of.setdefault(row.kin, row.stratum or "")
    strata: defaultdict[str, list[Hashable]] = defaultdict(list)
    for kin, stratum in stratum_of.items():
        strata[stratum].append(kin)
    whole = {stratum: len(members) for stratum, members in strata.items()}
    validated = splits.held_back(whole) if "validation" in needed else dict.fromkeys(whole, 0)
    left = {stratum: count - validated[stratum] for stratum, count in whole.items()}
    # A share of all training rows, although only these are left.
    share = splits.test_fraction * len(stratum_of) / sum(left.values())
    tested = splits.held_back(left, share) if "test" in needed and splits.test_fraction else dict.fromkeys(whole, 0)
    random = np.random.default_rng(splits.split_seed)
    held: dict[str, set[Hashable]] = {"validation": set(), "test": set()}
    for stratum, members in sorted(strata.items()):
        order = random.permutation(len(members)).tolist() if needed else []
        validation, test = validated[stratum], tested[stratum]
        held["validation"] |= {members[at] for at in order[:validation]}
        held["test"] |= {members[at] for at in order[validation : validation + test]}
    found: dict[str, _Rows] = {}
    for split, chosen in held.items():  # validation rows first, so that the test rows do not matter to them
        kept = _with_known_labels(train, chosen)
        found[split] = {place: row for place, row in train.items() if row.kin in kept}
        train = {place: row for place, row in train.items() if row.kin not in kept}
    return found


def _with_known_labels(train: _Rows, held: set[Hashable]) -> set[Hashable]:
    """What is held back, without the rows that have a label which no other training row has: nobody could learn it."""
    known = {label for row in train.values() if row.kin not in held for label in row.labels}
    kept = set(held)
    for row in train.values():
        if row.kin in kept and not row.labels <= known:
            kept.remove(row.kin)
            known |= row.labels
    return kept


def _check(split: str, rows: _Rows, held: tuple[str, int] | None = None) -> None:
    """`held` names the fraction that the rows were held back by, and how many training rows there were."""
    if rows:
        return
    name = "training" if split == "train" else split
    if held is None:
        raise EmptySplit(f"No {name} rows are left after empty and repeated ones were dropped: add rows.")
    fraction, count = held
    raise EmptySplit(f"`{fraction}` holds back none of {count} training rows for the {name}: raise it, or add rows.")
