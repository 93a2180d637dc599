"""Rows by the names that studies call them: `dataset://NAME/FILE`, `hub://OWNER/NAME/SPLIT` and `builtin://NAME/SPLIT`."""

from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

from service.catalog import hub_datasets
from service.catalog.builtin import BUILTINS, SCHEME, Builtin, fetch_builtin, find_builtin
from service.catalog.contents import Contents, are_numbers, read_contents
from service.catalog.hub_datasets import HubDatasets
from service.domain.errors import DatasetNotFound, UnreadableDataset
from service.domain.ports import DatasetStore
from trainers.configs import LabelledImages, LabelledText, Splits, TaggedWords
from trainers.tables import TableError, look

_UPLOADED = "dataset://"
_MANY = 1_000_000
"""Rows that a built-in data set is taken to have of each label: enough for everything that is checked."""


class Sources:
    """Uploaded rows, rows of the hub, and built-in ones. `cache` is where the built-in ones are made."""

    def __init__(self, datasets: DatasetStore, cache: Path, hub: HubDatasets | None = None) -> None:
        self._datasets = datasets
        self._cache = cache
        self._hub = hub or HubDatasets(cache, None)

    def of(self, project: str) -> "Sources":
        """The same, with the uploads of another project."""
        return Sources(self._datasets.of(project), self._cache, self._hub)

    def columns(self, uri: str) -> tuple[str, ...] | None:
        """The columns of a file; None where they are not known yet. Returns within seconds.

        Raises DatasetNotFound, UnreadableDataset.
        """
        if uri.startswith(SCHEME):
            name, _ = find_builtin(uri)
            return BUILTINS[name].columns
        if uri.startswith(hub_datasets.SCHEME):
            self._hub.look(uri)
            found = self._hub.find(uri)
            return None if found is None else _columns(found)
        return self._datasets.get(*self._uploaded(uri)).columns

    def contents(self, uri: str, data: Splits, problem: str | None) -> Contents | None:
        """What a file holds, read as `data` says; None where that is not known yet. `problem` is that of a text classification.

        Raises DatasetNotFound, and UnreadableDataset, which names a column where one is to blame.
        """
        if uri.startswith(SCHEME):
            name, _ = find_builtin(uri)
            return _built_in(uri, BUILTINS[name], data, problem)
        try:
            is_remote = uri.startswith(hub_datasets.SCHEME)
            path = self._hub.find(uri) if is_remote else self._datasets.path(*self._uploaded(uri))
            return None if path is None else read_contents(path, data, problem)
        except TableError as error:
            raise UnreadableDataset(f"{uri}: {error.detail}", column=error.column) from error
        except (OSError, ValueError) as error:
            raise UnreadableDataset(f"{uri} cannot be read: {error}") from error

    def fetch(self, uri: str) -> Path:
        """The file on this machine; a built-in one is made at first use, and one of the hub is downloaded.

        Raises DatasetNotFound, UnreadableDataset.
        """
        if uri.startswith(SCHEME):
            return fetch_builtin(uri, self._cache)
        if uri.startswith(hub_datasets.SCHEME):
            return self._hub.fetch(uri)
        return self._datasets.path(*self._uploaded(uri))

    def _uploaded(self, uri: str) -> tuple[str, str]:
        """Data set and file of a name of an upload, if there is one. Raises DatasetNotFound."""
        if not uri.startswith(_UPLOADED):
            raise DatasetNotFound(
                f"{uri!r} is no name of rows: use {_UPLOADED}NAME/FILE, {hub_datasets.SCHEME}OWNER/NAME/SPLIT or {SCHEME}NAME"
            )
        dataset, _, file = uri.removeprefix(_UPLOADED).partition("/")
        try:
            self._datasets.get(dataset, file)
        except DatasetNotFound as error:
            near = get_close_matches(uri, [stored.uri for stored in self._datasets.all()], n=3)
            meant = f"did you mean {' or '.join(near)}? " if near else ""
            how = f"`tuneyard dataset put {dataset or 'NAME'} {file or 'FILE'}` uploads it"
            raise DatasetNotFound(f"there is no {uri}: {meant}{how}") from error
        return dataset, file


def _built_in(uri: str, builtin: Builtin, data: Splits, problem: str | None) -> Contents | None:
    """What is known of its rows without making them."""
    match data:
        case TaggedWords():
            raise UnreadableDataset(f"{uri} has no tagged words: name other rows")
        case LabelledImages() if data.image not in builtin.images:
            listed = " or ".join(f"`{column}`" for column in builtin.images)
            detail = f"{uri} has no images in `{data.image}`: name {listed or 'other rows'}"
            raise UnreadableDataset(detail, column=data.image)
        case LabelledText() if problem == "regression" and data.label == "label" and not are_numbers(builtin.labels):
            raise UnreadableDataset(f"{uri} has no numbers in `label`: regression learns numbers", column="label")
        case LabelledText() | LabelledImages() if data.label == "label":
            labels = {} if problem == "regression" else dict.fromkeys(builtin.labels, _MANY)
            return Contents(_MANY * len(builtin.labels), labels)
        case _:
            return None


def _columns(path: Path) -> tuple[str, ...]:
    return _looked(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _looked(path: Path, _mtime_ns: int) -> tuple[str, ...]:
    """Read once per process while the file stays as it is."""
    return look(path).columns
