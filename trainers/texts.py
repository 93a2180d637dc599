"""Labelled texts for classification: cleaned, split and tokenised once, then memory-mapped by every trial that needs them."""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from trainers import tables
from trainers.configs import TextData
from trainers.contract import TrainerError

_VERSION = 1
"""Raised when what is prepared changes, so that older caches are left alone."""
_CHUNK = 1000
_GROUP_BATCHES = 50

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Texts with their labels, as text; the same positions belong together."""

    texts: tuple[str, ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def at(self, positions: Sequence[int]) -> "Rows":
        """The rows at these positions, in this order."""
        return Rows(tuple(self.texts[at] for at in positions), tuple(self.labels[at] for at in positions))


@dataclass(frozen=True)
class Tokens:
    """Tokenised texts: text i is `ids[offsets[i]:offsets[i + 1]]`; `labels[i]` is its label's number. Arrays may be on disk."""

    ids: npt.NDArray[np.int32]
    offsets: Ints
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def lengths(self) -> Ints:
        """Tokens of each text."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class PreparedTexts:
    """What a trial trains and validates on. `facts` says how it came about, for the model card."""

    labels: tuple[str, ...]
    train: Tokens
    validation: Tokens
    facts: Mapping[str, Any]


def prepare(
    rows: TextData, max_length: int, tokenizer: Any, tokenizer_folder: Path, sources: Mapping[str, Path], cache: Path
) -> PreparedTexts:
    """Clean, split and tokenise the rows, or map what an earlier trial left in `cache`.

    `sources` maps the names in `rows` to files. Texts are cut at `max_length` tokens. Several processes may prepare the same
    at once: the first to be ready wins. Raises TrainerError for rows that cannot be used.
    """
    files = {split: _file(name, sources) for split, name in _named(rows).items()}
    hashes = {split: _sha256(path) for split, path in files.items()}
    settings = {
        "version": _VERSION,
        "files": hashes,
        "columns": [rows.text, rows.label],
        "split": [rows.validation_fraction, rows.split_seed] if rows.validation is None else None,
        "max_length": max_length,
        "tokenizer": _folder_sha256(tokenizer_folder),
    }
    folder = cache / hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:32]
    if not folder.is_dir():
        _make(folder, rows, files, hashes, tokenizer, max_length)
    return _map(folder)


def padded_batches(tokens: Tokens, batch_size: int, order: Sequence[Sequence[int]] | None = None) -> Iterator[tuple[Ints, Ints]]:
    """Token ids, padded with -1 to the longest of their batch, shape (rows, longest), and labels, shape (rows,).

    `order` lists the rows of each batch; left out, all rows come once, the shortest first.
    """
    if order is None:
        by_length = np.argsort(tokens.lengths, kind="stable")
        order = [by_length[start : start + batch_size].tolist() for start in range(0, len(by_length), batch_size)]
    lengths = tokens.lengths
    for batch in order:
        ids = np.full((len(batch), int(lengths[batch].max())), -1, dtype=np.int64)
        for place, row in enumerate(batch):
            ids[place, : lengths[row]] = tokens.ids[tokens.offsets[row] : tokens.offsets[row + 1]]
        yield ids, tokens.labels[batch]


def epoch_order(tokens: Tokens, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The rows of each batch of an epoch: every row once, texts of similar length together, the rest by chance.

    Depends on its arguments alone, so that a resumed epoch goes on with the batches it had left.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(tokens))
    lengths = tokens.lengths
    batches = []
    group = batch_size * _GROUP_BATCHES
    for start in range(0, len(shuffled), group):
        members = shuffled[start : start + group]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[at : at + batch_size].tolist() for at in range(0, len(members), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]


def _named(rows: TextData) -> dict[str, str]:
    named = {"train": rows.train, "validation": rows.validation, "test": rows.test}
    return {split: name for split, name in named.items() if name is not None}


def _file(name: str, sources: Mapping[str, Path]) -> Path:
    path = sources.get(name, Path(name))
    if not path.is_file():
        raise TrainerError("trainer_error", f"There is no file for the rows {name!r}: upload it, or name a file that is there.")
    return path


def _make(
    folder: Path, rows: TextData, files: Mapping[str, Path], hashes: Mapping[str, str], tokenizer: Any, max_length: int
) -> None:
    kept, facts = _split(rows, {split: _read(path, rows) for split, path in files.items()})
    labels = tuple(sorted(set(kept["train"].labels), key=_label_key))
    if len(labels) < 2:  # noqa: PLR2004 - one label leaves nothing to learn
        raise TrainerError("trainer_error", f"The training rows have only the label {labels[:1]}: classification needs two.")
    unknown = sorted(set(kept["validation"].labels) - set(labels))
    if unknown:
        raise TrainerError("trainer_error", f"Validation rows have labels that no training row has, such as {unknown[0]!r}.")
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for split in ("train", "validation"):
        _save(temporary, split, _tokenise(kept[split], labels, tokenizer, max_length))
    (temporary / "prepared.json").write_text(json.dumps({"labels": labels, "facts": {**facts, "sha256": dict(hashes)}}))
    try:
        temporary.rename(folder)
    except OSError:  # another process was faster, with the same content
        shutil.rmtree(temporary)


@dataclass
class _Dropped:
    empty: int = 0
    duplicate: int = 0
    in_other_split: int = 0


def _split(rows: TextData, read: Mapping[str, Rows]) -> tuple[dict[str, Rows], dict[str, Any]]:
    """Training and validation rows, clean, without a text in common, and without one that is a test row's."""
    dropped = _Dropped()
    clean = {split: _without_empty(each, dropped) for split, each in read.items()}
    tested = set(clean["test"].texts) if "test" in clean else set()
    validation = _without(clean["validation"], tested, dropped) if "validation" in clean else None
    elsewhere = tested | set(validation.texts if validation else ())
    train = _without_duplicates(_without(clean["train"], elsewhere, dropped), dropped)
    if validation is None:
        train, validation = _hold_back(train, rows)
    for name, split in (("training", train), ("validation", validation)):
        if not len(split):
            raise TrainerError("trainer_error", f"No {name} rows are left after empty and repeated ones were dropped: add rows.")
    counts = {"train": len(train), "validation": len(validation)}
    if "test" in clean:
        counts["test"] = len(clean["test"])
    return {"train": train, "validation": validation}, {"rows": counts, "dropped": asdict(dropped)}


def _read(path: Path, rows: TextData) -> Rows:
    try:
        columns = tables.read(path, [rows.text, rows.label])
    except tables.TableError as error:
        raise TrainerError("trainer_error", f"{path.name}: {error.detail}.") from error
    texts = tuple((text or "").strip() for text in columns[rows.text])
    return Rows(texts, tuple((label or "").strip() for label in columns[rows.label]))


def _without_empty(rows: Rows, dropped: _Dropped) -> Rows:
    whole = [at for at in range(len(rows)) if rows.texts[at] and rows.labels[at]]
    dropped.empty += len(rows) - len(whole)
    return rows.at(whole)


def _without(rows: Rows, elsewhere: set[str], dropped: _Dropped) -> Rows:
    """The rows whose texts are not in another split."""
    kept = [at for at, text in enumerate(rows.texts) if text not in elsewhere]
    dropped.in_other_split += len(rows) - len(kept)
    return rows.at(kept)


def _without_duplicates(rows: Rows, dropped: _Dropped) -> Rows:
    """Each text once, the first of them."""
    first = {text: at for at, text in reversed(list(enumerate(rows.texts)))}
    dropped.duplicate += len(rows) - len(first)
    return rows.at(sorted(first.values()))


def _hold_back(rows: Rows, data: TextData) -> tuple[Rows, Rows]:
    """Training and validation rows, each label in the same proportion."""
    by_label: defaultdict[str, list[int]] = defaultdict(list)
    for at, label in enumerate(rows.labels):
        by_label[label].append(at)
    random = np.random.default_rng(data.split_seed)
    held: list[int] = []
    for label, count in data.held_back({label: len(members) for label, members in by_label.items()}).items():
        held += random.permutation(by_label[label])[:count].tolist()
    kept = sorted(set(range(len(rows))) - set(held))
    return rows.at(kept), rows.at(sorted(held))


def _label_key(label: str) -> tuple[int, int, str]:
    """Whole numbers by value, before everything else by letters."""
    return (0, int(label), label) if label.isdecimal() and label.isascii() else (1, 0, label)


def _tokenise(rows: Rows, labels: Sequence[str], tokenizer: Any, max_length: int) -> Tokens:
    numbers = {label: number for number, label in enumerate(labels)}
    ids: list[npt.NDArray[np.int32]] = []
    for start in range(0, len(rows), _CHUNK):
        encoded = tokenizer(
            list(rows.texts[start : start + _CHUNK]), truncation=True, max_length=max_length, return_attention_mask=False
        )
        ids += [np.asarray(one, dtype=np.int32) for one in encoded["input_ids"]]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ids])]).astype(np.int64)
    return Tokens(np.concatenate(ids), offsets, np.asarray([numbers[label] for label in rows.labels], dtype=np.int64))


def _save(folder: Path, split: str, tokens: Tokens) -> None:
    for name, array in (("ids", tokens.ids), ("offsets", tokens.offsets), ("labels", tokens.labels)):
        np.save(folder / f"{split}-{name}.npy", array, allow_pickle=False)


def _map(folder: Path) -> PreparedTexts:
    stored = json.loads((folder / "prepared.json").read_text())
    return PreparedTexts(
        labels=tuple(stored["labels"]),
        train=_mapped(folder, "train"),
        validation=_mapped(folder, "validation"),
        facts=stored["facts"],
    )


def _mapped(folder: Path, split: str) -> Tokens:
    arrays = [np.load(folder / f"{split}-{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("ids", "offsets", "labels")]
    return Tokens(*arrays)


def _folder_sha256(folder: Path) -> str:
    """Of the files that a tokenizer is made from: all but weights, by name and content."""
    small = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".txt", ".model"} and path.is_file())
    return hashlib.sha256("".join(f"{path.name}:{_sha256(path)}\n" for path in small).encode()).hexdigest()


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _known_sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _known_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    """Read once per process while the file stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
