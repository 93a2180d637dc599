"""Texts on their way from a file to a model: read, normalised, tokenised, changed a little for training."""

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trainers import tables
from trainers.configs import CleanText, Splits, TextAugmentation
from trainers.contract import TrainerError
from trainers.prepared import Array, file_sha256
from trainers.splits import Division, EmptySplit, Row, divide

_CHUNK = 1000
_SPAN = 3
_TOKEN_DROPOUT, _SPAN_MASKING = 1, 2


def source_files(data: Splits, sources: Mapping[str, Path]) -> dict[str, Path]:
    """The file of each split that is named. Raises TrainerError."""
    files = {split: sources.get(name, Path(name)) for split, name in data.named.items()}
    for split, path in files.items():
        if not path.is_file():
            detail = f"There is no file for the rows {data.named[split]!r}: upload it, or name a file that is there."
            raise TrainerError("trainer_error", detail)
    return files


def file_hashes(files: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each split's file."""
    return {split: file_sha256(path) for split, path in files.items()}


def read_columns(path: Path, columns: Sequence[str]) -> dict[str, list[str]]:
    """Columns as text, missing values as empty text. Raises TrainerError."""
    try:
        read = tables.read(path, columns)
    except tables.TableError as error:
        raise TrainerError("trainer_error", f"{path.name}: {error.detail}.") from error
    return {column: [value or "" for value in values] for column, values in read.items()}


def read_lists(path: Path, columns: Mapping[str, str | None]) -> dict[str, list[list[str]]]:
    """Columns of lists, or of text that is split at what `columns` says, missing values as empty lists. Raises TrainerError."""
    try:
        read = tables.read_lists(path, columns)
    except tables.TableError as error:
        raise TrainerError("trainer_error", f"{path.name}: {error.detail}.") from error
    return {column: [value or [] for value in values] for column, values in read.items()}


def divided(data: Splits, rows: Mapping[str, Sequence[Row]]) -> Division:
    """Which rows are in which split, clean and without one in two of them. Raises TrainerError."""
    try:
        return divide(data, rows)
    except EmptySplit as error:
        raise TrainerError("trainer_error", str(error)) from error


def normalised(texts: Sequence[str], data: CleanText) -> list[str]:
    """The texts in the form that they are compared and tokenised in."""
    return [_normalised(text, data) for text in texts]


def _normalised(text: str, data: CleanText) -> str:
    match data.normalise:
        case "nfc":
            text = unicodedata.normalize("NFC", text)
        case "nfkc":
            text = unicodedata.normalize("NFKC", text)
        case "none":
            pass
    if data.lowercase:
        text = text.lower()
    return " ".join(text.split()) if data.collapse_whitespace else text.strip()


def tokenised(
    tokenizer: Any, texts: Sequence[str], max_length: int, pairs: Sequence[str] | None = None, **options: Any
) -> tuple[list[list[int]], int]:
    """Token numbers of each text, or pair of texts, cut at `max_length`; and how many were cut."""
    rows: list[list[int]] = []
    cut = 0
    for start in range(0, len(texts), _CHUNK):
        both = [list(side[start : start + _CHUNK]) for side in (texts, pairs) if side is not None]
        found = tokenizer(*both, truncation=True, max_length=max_length + 1, return_attention_mask=False, **options)["input_ids"]
        cut_here = [at for at, row in enumerate(found) if len(row) > max_length]
        if cut_here:  # again, so that the special tokens at the end stay
            chosen = [[side[at] for at in cut_here] for side in both]
            shorter = tokenizer(*chosen, truncation=True, max_length=max_length, return_attention_mask=False, **options)[
                "input_ids"
            ]
            for at, row in zip(cut_here, shorter, strict=True):
                found[at] = row
        cut += len(cut_here)
        rows += found
    return rows, cut


def token_types(tokenizer: Any, texts: Sequence[str], pairs: Sequence[str], max_length: int) -> list[list[int]]:
    """Which text of a pair each of its tokens is of, as `tokenised` gives them."""
    types: list[list[int]] = []
    for start in range(0, len(texts), _CHUNK):
        both = [list(side[start : start + _CHUNK]) for side in (texts, pairs)]
        types += tokenizer(*both, truncation=True, max_length=max_length, return_token_type_ids=True)["token_type_ids"]
    return types


def augmented(
    ids: Array, augmentation: TextAugmentation, special: frozenset[int], mask_token: int | None, seed: Sequence[int]
) -> tuple[Array, Array]:
    """A text's tokens with some dropped and some hidden, and the positions in the text of those that are left.

    Special tokens stay, and at least one other. The same seed gives the same change.
    """
    kept = np.arange(len(ids))
    changeable = ~np.isin(ids, list(special))
    if augmentation.token_dropout and changeable.sum() > 1:
        random = np.random.default_rng([*seed, _TOKEN_DROPOUT])
        dropped = changeable & (random.random(len(ids)) < augmentation.token_dropout)
        if dropped[changeable].all():
            dropped[random.choice(np.flatnonzero(changeable))] = False
        kept = np.flatnonzero(~dropped)
    ids, changeable = ids[kept].copy(), changeable[kept]
    if augmentation.span_masking and mask_token is not None and changeable.any():
        random = np.random.default_rng([*seed, _SPAN_MASKING])
        wanted, places = round(augmentation.span_masking * int(changeable.sum())), np.flatnonzero(changeable)
        hidden = np.zeros(len(ids), dtype=bool)
        while hidden.sum() < wanted:
            start = int(random.integers(len(places)))
            length = min(int(random.geometric(1 / _SPAN)), wanted - int(hidden.sum()))
            hidden[places[start : start + length]] = True
        ids[hidden] = mask_token
    return ids, kept


def check_masking(augmentation: TextAugmentation, tokenizer: Any) -> None:
    """Raises TrainerError when spans are to be hidden, but the tokenizer has nothing to hide them with."""
    if augmentation.span_masking and tokenizer.mask_token_id is None:
        raise TrainerError("trainer_error", "The tokenizer has no mask token: leave out `span_masking`, or name another model.")


def label_key(label: str) -> tuple[int, int, str]:
    """Orders labels: whole numbers by value, before everything else by letters."""
    return (0, int(label), label) if label.isdecimal() and label.isascii() else (1, 0, label)
