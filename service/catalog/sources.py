"""Rows by the names that studies call them: `dataset://NAME/FILE` and `builtin://NAME/SPLIT`."""

from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from service.catalog.builtin import BUILTINS, SCHEME, fetch_builtin, find_builtin
from service.domain.errors import DatasetNotFound, UnreadableDataset
from service.domain.ports import DatasetStore
from trainers.tables import TableError, read

_UPLOADED = "dataset://"
_MANY = 1_000_000
"""Rows that a built-in data set is taken to have of each label: enough for everything that is checked."""


class Sources:
    """Uploaded and built-in rows. `cache` is where the built-in ones are made."""

    def __init__(self, datasets: DatasetStore, cache: Path) -> None:
        self._datasets = datasets
        self._cache = cache

    def columns(self, uri: str) -> tuple[str, ...]:
        """The columns of a file. Raises DatasetNotFound."""
        if uri.startswith(SCHEME):
            name, _ = find_builtin(uri)
            return BUILTINS[name].columns
        return self._datasets.get(*self._uploaded(uri)).columns

    def labels(self, uri: str, column: str) -> Mapping[str, int] | None:
        """Rows of each label, without those that have none; None where that is not known yet.

        Raises DatasetNotFound, UnreadableDataset.
        """
        if uri.startswith(SCHEME):
            name, _ = find_builtin(uri)
            return dict.fromkeys(BUILTINS[name].labels, _MANY) if column == "label" else None
        try:
            path = self._datasets.path(*self._uploaded(uri))
            stat = path.stat()
            return _count_labels(path, stat.st_size, stat.st_mtime_ns, column)
        except TableError as error:
            raise UnreadableDataset(error.detail, column=error.column) from error
        except (OSError, ValueError) as error:
            raise UnreadableDataset(f"{uri} cannot be read: {error}") from error

    def fetch(self, uri: str) -> Path:
        """The file on this machine; a built-in one is made at first use. Raises DatasetNotFound, UnreadableDataset."""
        if uri.startswith(SCHEME):
            return fetch_builtin(uri, self._cache)
        return self._datasets.path(*self._uploaded(uri))

    def _uploaded(self, uri: str) -> tuple[str, str]:
        """Data set and file of a name of an upload, if there is one. Raises DatasetNotFound."""
        if not uri.startswith(_UPLOADED):
            raise DatasetNotFound(f"{uri!r} is no name of rows: use {_UPLOADED}NAME/FILE or {SCHEME}NAME")
        dataset, _, file = uri.removeprefix(_UPLOADED).partition("/")
        try:
            self._datasets.get(dataset, file)
        except DatasetNotFound as error:
            near = get_close_matches(uri, [stored.uri for stored in self._datasets.all()], n=3)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            how = f"`tuneyard dataset put {dataset or 'NAME'} {file or 'FILE'}` uploads it"
            raise DatasetNotFound(f"there is no {uri}: {meant}{how}") from error
        return dataset, file


@lru_cache(maxsize=32)
def _count_labels(path: Path, _size: int, _mtime_ns: int, column: str) -> Mapping[str, int]:
    """Read once per process while the file stays as it is."""
    labels = Counter((label or "").strip() for label in read(path, [column])[column])
    labels.pop("", None)
    return labels
