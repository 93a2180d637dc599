"""Training, validation and test rows of the built-in data sets."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def split_each(groups: Iterable[Sequence[T]], *, validation_share: float, test_share: float) -> dict[str, list[T]]:
    """The splits by name: of each group its first rows for testing, the next for validation, and the rest to train on."""
    splits: dict[str, list[T]] = {"train": [], "validation": [], "test": []}
    for members in groups:
        tested, validated = round(test_share * len(members)), round(validation_share * len(members))
        splits["test"] += members[:tested]
        splits["validation"] += members[tested : tested + validated]
        splits["train"] += members[tested + validated :]
    return splits
