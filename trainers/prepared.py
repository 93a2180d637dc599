"""What is made of a study's rows once, kept on disk by a hash of all it depends on, and mapped into memory by every trial."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

_GROUP_BATCHES = 50
_LEFT_AFTER_SECONDS = 24 * 60 * 60

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths: row i is `values[offsets[i]:offsets[i + 1]]`. The arrays may be on disk."""

    values: Array
    offsets: Ints

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Array:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> Ints:
        """Values in each row."""
        return np.diff(self.offsets)

    def padded(self, rows: Sequence[int], fill: float) -> Array:
        """Shape (rows, longest of them): each row, then `fill`."""
        longest = max((int(self.offsets[row + 1] - self.offsets[row]) for row in rows), default=0)
        return padded([self[row] for row in rows], longest, fill)


@dataclass(frozen=True)
class Prepared:
    """A folder of arrays, and `facts` (JSON) of how they came about."""

    folder: Path
    facts: Mapping[str, Any]

    def array(self, name: str) -> Array:
        """An array by its name, mapped."""
        array: Array = np.load(self.folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
        return array

    def ragged(self, name: str) -> Ragged:
        """Rows of different lengths by their name, mapped."""
        return Ragged(self.array(name), self.array(f"{name}-offsets"))

    def texts(self, name: str) -> list[str]:
        """Texts by their name, read."""
        texts: list[str] = json.loads((self.folder / f"{name}.json").read_bytes())
        return texts


def prepared(cache: Path, depends_on: Mapping[str, Any], make: Callable[[Path], Mapping[str, Any]]) -> Prepared:
    """What `make` writes into an empty folder, or what an earlier trial left; `make` answers the facts.

    Several processes may prepare the same at once: the first to be ready wins, and a kill leaves nothing half-written.
    """
    folder = cache / _key(depends_on)
    if not (folder / "facts.json").is_file():
        _remove_left(cache)
        temporary = cache / f".{folder.name}.{uuid4().hex}"  # containers with a process of the same number may share the cache
        temporary.mkdir(parents=True)
        try:
            (temporary / "facts.json").write_text(json.dumps(make(temporary)))
            temporary.rename(folder)
        except OSError:
            if not (folder / "facts.json").is_file():  # else another process was faster, with the same content
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return Prepared(folder, json.loads((folder / "facts.json").read_bytes()))


def is_prepared(cache: Path, depends_on: Mapping[str, Any]) -> bool:
    """Whether an earlier trial left what `prepared` would otherwise make."""
    return (cache / _key(depends_on) / "facts.json").is_file()


def _key(depends_on: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]


def _remove_left(cache: Path) -> None:
    """Remove what a process that was killed while preparing left half-made."""
    for left in cache.glob(".*.*"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - left.stat().st_mtime > _LEFT_AFTER_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def save_array(folder: Path, name: str, array: Array) -> None:
    """Write an array that `Prepared.array` maps."""
    np.save(folder / f"{name}.npy", array, allow_pickle=False)


def save_ragged(folder: Path, name: str, rows: Sequence[Sequence[int]], dtype: npt.DTypeLike = np.int32) -> None:
    """Write rows that `Prepared.ragged` maps."""
    arrays = [np.asarray(row, dtype=dtype) for row in rows]
    save_array(folder, name, np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype))
    save_array(folder, f"{name}-offsets", np.concatenate([[0], np.cumsum([len(row) for row in arrays])]).astype(np.int64))


def save_texts(folder: Path, name: str, texts: Iterable[str]) -> None:
    """Write texts that `Prepared.texts` reads."""
    (folder / f"{name}.json").write_text(json.dumps(list(texts)))


def padded(rows: Sequence[Array], longest: int, fill: float) -> Array:
    """Shape (rows, longest): each row, then `fill`."""
    dtype = np.int64 if not rows or np.issubdtype(rows[0].dtype, np.integer) else rows[0].dtype
    table = np.full((len(rows), longest), fill, dtype=dtype)
    for place, row in enumerate(rows):
        table[place, : len(row)] = row
    return table


def epoch_order(lengths: Ints, batch_size: int, seed: int, epoch: int, *, group_by_length: bool) -> list[list[int]]:
    """The rows of each batch of an epoch, every row once; grouped, those of similar length together, the rest by chance.

    Depends on its arguments alone, so that a resumed epoch goes on with the batches it had left.
    """
    random = np.random.default_rng([seed, epoch])
    shuffled = random.permutation(len(lengths))
    if not group_by_length:
        return [shuffled[at : at + batch_size].tolist() for at in range(0, len(shuffled), batch_size)]
    batches = []
    group = batch_size * _GROUP_BATCHES
    for start in range(0, len(shuffled), group):
        members = shuffled[start : start + group]
        members = members[np.argsort(lengths[members], kind="stable")]
        batches += [members[at : at + batch_size].tolist() for at in range(0, len(members), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]


def by_length(lengths: Ints) -> list[int]:
    """All rows, the shortest first: evaluated in this order, they need the least padding."""
    order: list[int] = np.argsort(lengths, kind="stable").tolist()
    return order


def file_sha256(path: Path) -> str:
    """Of a file's content; read once per process while the file stays as it is."""
    stat = path.stat()
    return _known_sha256(path, stat.st_size, stat.st_mtime_ns)


def tokenizer_sha256(folder: Path) -> str:
    """Of the files that a tokenizer or an image processor is made from: all but weights, by name and content."""
    small = sorted(path for path in folder.iterdir() if path.suffix in {".json", ".txt", ".model", ".jinja"} and path.is_file())
    return hashlib.sha256("".join(f"{path.name}:{file_sha256(path)}\n" for path in small).encode()).hexdigest()


def weights_sha256(folder: Path) -> str:
    """Of a model's weights and configuration, by name and content."""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("config.json")])
    return hashlib.sha256("".join(f"{path.name}:{file_sha256(path)}\n" for path in files).encode()).hexdigest()


@lru_cache(maxsize=256)
def _known_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
