"""Data sets that the service makes itself, at first use, from what is installed with it: no download, and no file to ship.

    CACHE/NAME-KEY/train.parquet, validation.parquet, test.parquet

KEY is of the recipe's version and of the versions of what it reads, so an upgrade makes the rows anew beside the old ones. What
the rows look like is known without making them.
"""

import csv
import gzip
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from service.catalog import api_docs
from service.catalog.locking import only_writer
from service.catalog.splitting import split_each
from service.domain.errors import DatasetNotFound, UnreadableDataset
from trainers.configs import BUILTIN_SPLITS

SCHEME = "builtin://"

Columns = Mapping[str, list[Any]]


@dataclass(frozen=True)
class Builtin:
    """A data set's recipe. `labels` are those of the column `label`; `made_from` names distributions.

    `images` are the columns that hold pictures, as lists or texts of grey values.
    """

    version: int
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    made_from: tuple[str, ...]
    make: Callable[[], Mapping[str, Columns]]
    images: tuple[str, ...] = ()


def _make_api_docs() -> Mapping[str, Columns]:
    splits = api_docs.make_rows()
    return {name: {"text": [row.text for row in rows], "label": [row.label for row in rows]} for name, rows in splits.items()}


def _make_digits() -> Mapping[str, Columns]:
    """scikit-learn's 1,797 digits of 8 by 8 grey values, 0 to 16 (Alpaydin and Kaynak, 1998), read from its own file."""
    spec = find_spec("sklearn")  # finds it without importing it
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("scikit-learn is not installed")
    with gzip.open(Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz", "rt", newline="") as lines:
        images = [[int(value) for value in line] for line in csv.reader(lines)]
    by_digit: defaultdict[int, list[list[int]]] = defaultdict(list)
    for image in sorted(images, key=_digest):
        by_digit[image[-1]].append(image)
    splits = split_each(by_digit.values(), validation_share=0.1, test_share=0.1)
    return {name: _digits(sorted(members, key=_digest)) for name, members in splits.items()}


def _digest(image: list[int]) -> str:
    return sha256(bytes(image)).hexdigest()


def _digits(images: list[list[int]]) -> Columns:
    return {
        "text": [" ".join(map(str, image[:-1])) for image in images],
        "pixels": [image[:-1] for image in images],
        "label": [str(image[-1]) for image in images],
    }


BUILTINS: Mapping[str, Builtin] = {
    "api-docs": Builtin(
        version=1,
        columns=("text", "label"),
        labels=tuple(api_docs.LIBRARIES),
        made_from=tuple(api_docs.LIBRARIES),
        make=_make_api_docs,
    ),
    "digits": Builtin(
        version=1,
        columns=("text", "pixels", "label"),
        labels=tuple("0123456789"),
        made_from=("scikit-learn",),
        make=_make_digits,
        images=("text", "pixels"),
    ),
}


def find_builtin(uri: str) -> tuple[str, str]:
    """The data set's name and the split of `builtin://NAME/SPLIT`. Raises DatasetNotFound."""
    name, _, split = uri.removeprefix(SCHEME).partition("/")
    if name not in BUILTINS:
        listed = ", ".join(f"{SCHEME}{one}" for one in BUILTINS)
        raise DatasetNotFound(f"there is no built-in data set {name!r}: there are {listed}")
    if split not in BUILTIN_SPLITS:
        listed = ", ".join(f"{SCHEME}{name}/{one}" for one in BUILTIN_SPLITS)
        raise DatasetNotFound(f"{uri!r} is no part of {SCHEME}{name}: name one of {listed}")
    return name, split


def fetch_builtin(uri: str, cache: Path) -> Path:
    """The file of `builtin://NAME/SPLIT`; makes all splits when they are not in `cache`, which takes up to ten seconds.

    Several processes may ask at once: one makes them, the others wait. Raises DatasetNotFound, UnreadableDataset.
    """
    name, split = find_builtin(uri)
    builtin = BUILTINS[name]
    try:
        folder = cache / f"{name}-{_key(builtin)}"
        if not folder.is_dir():
            with only_writer(cache):
                if not folder.is_dir():
                    _write(builtin.make(), folder)
    except (metadata.PackageNotFoundError, ModuleNotFoundError, OSError) as error:
        raise UnreadableDataset(f"{SCHEME}{name} cannot be made: {error}") from error
    return folder / f"{split}.parquet"


def _key(builtin: Builtin) -> str:
    versions = {name: metadata.version(name) for name in builtin.made_from}
    return sha256(json.dumps([builtin.version, versions], sort_keys=True).encode()).hexdigest()[:12]


def _write(splits: Mapping[str, Columns], folder: Path) -> None:
    temporary = folder.with_name(f".{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    for name, columns in splits.items():
        parquet.write_table(pa.table(dict(columns)), temporary / f"{name}.parquet")
    temporary.rename(folder)
