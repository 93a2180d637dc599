"""Uploaded data sets on this machine's disk.

    ROOT/NAME/FILE.json            what `DatasetFile` says; a file is there when this is
    ROOT/NAME/SHA256.csv           the content, under its own hash: never changed, and its ending tells the format
    ROOT/.incoming/                uploads under way
    ROOT/.projects/PROJECT/        the same for each project but `default`

Content comes first and the JSON file is renamed into its place last, so a kill at any moment leaves the old file or the new one.
Content that no JSON file names any more is deleted by whoever stores or deletes the next file of the data set.
"""

import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from service.catalog.locking import only_writer
from service.domain.access import DEFAULT_PROJECT, check_project_name
from service.domain.datasets import FORMATS, NO_LIMITS, Allowance, DatasetFile, check_dataset_name, over_allowance
from service.domain.errors import DatasetNotFound, NoSpace, TooManyFiles, UnreadableDataset, UnsafePath, UploadTooLarge
from service.folders import MARGIN_BYTES, Free, free_bytes
from service.settings import write_private
from trainers.images import look_images
from trainers.tables import Summary, TableError, look

_CHUNK_BYTES = 1024 * 1024
_PROJECTS = ".projects"


class LocalDatasetStore:
    """Files under one root; a file has at most `max_bytes`. `free` says what room its disk has."""

    def __init__(self, root: Path, max_bytes: int, free: Free = free_bytes) -> None:
        self._root = root
        self._max_bytes = max_bytes
        self._free = free

    def of(self, project: str) -> "LocalDatasetStore":
        root = self._root.parent.parent if self._root.parent.name == _PROJECTS else self._root
        own = root if project == DEFAULT_PROJECT else root / _PROJECTS / check_project_name(project)
        return LocalDatasetStore(own, self._max_bytes, self._free)

    def put(self, dataset: str, file: str, content: BinaryIO, now: datetime, allowance: Allowance = NO_LIMITS) -> DatasetFile:
        check_dataset_name(dataset)
        ending = _ending(check_dataset_name(file))
        with self._incoming() as temporary:
            size, sha256 = self._receive(content, temporary)
            summary = _summary(temporary, file)
            stored = DatasetFile(dataset, file, size, sha256, summary.rows, summary.columns, now)
            with only_writer(self._root):
                self._require(stored, allowance)
                folder = self._root / dataset
                folder.mkdir(exist_ok=True, mode=0o700)
                temporary.rename(folder / f"{sha256}{ending}")
                described = {**asdict(stored), "uploaded_at": now.isoformat()}
                write_private(folder / f"{file}.json", json.dumps(described, indent=1))
                _drop_unnamed(folder)
        return stored

    def get(self, dataset: str, file: str) -> DatasetFile:
        try:
            check_dataset_name(dataset)
            return _read(self._root / dataset / f"{check_dataset_name(file)}.json")
        except (FileNotFoundError, UnsafePath) as error:
            detail = f"There is no file {file!r} in a data set {dataset!r}: `GET /v1/datasets` lists those there are."
            raise DatasetNotFound(detail) from error

    def all(self) -> Sequence[DatasetFile]:
        found = []
        for path in self._paths():
            if path.suffix == ".json":
                with suppress(FileNotFoundError):  # deleted meanwhile
                    found.append(_read(path))
        return sorted(found, key=lambda stored: (stored.dataset, stored.file))

    def delete(self, dataset: str, file: str | None = None) -> Sequence[DatasetFile]:
        with only_writer(self._root):
            if file is not None:
                gone = [self.get(dataset, file)]
            else:
                gone = [stored for stored in self.all() if stored.dataset == dataset]
            if not gone:
                raise DatasetNotFound(f"There is no data set {dataset!r}: `GET /v1/datasets` lists those there are.")
            folder = self._root / dataset
            for stored in gone:
                (folder / f"{stored.file}.json").unlink()
            _drop_unnamed(folder)
            with suppress(OSError):  # other files of it are there
                folder.rmdir()
        return gone

    def size(self) -> int:
        total = 0
        for path in self._paths():
            if path.suffix != ".json":
                with suppress(FileNotFoundError):  # deleted meanwhile
                    total += path.stat().st_size
        return total

    def _paths(self) -> Iterator[Path]:
        """Everything in the data sets' folders, of which one may be deleted meanwhile."""
        for folder in self._root.glob("[!.]*"):
            with suppress(FileNotFoundError, NotADirectoryError):
                yield from [path for path in folder.iterdir() if not path.name.startswith(".")]

    def require_room(self, more: int) -> None:
        free = self._free(self._root)
        if free < more + MARGIN_BYTES:
            raise NoSpace(str(self._root), more + MARGIN_BYTES, free)

    def path(self, dataset: str, file: str) -> Path:
        stored = self.get(dataset, file)
        return self._root / dataset / f"{stored.sha256}{_ending(file)}"

    def _require(self, new: DatasetFile, allowance: Allowance) -> None:
        """Under the lock, so that uploads that end together do not both take the last place. Raises TooManyFiles, QuotaSpent."""
        files = self.all()
        replaced = next((one for one in files if (one.dataset, one.file) == (new.dataset, new.file)), None)
        if allowance.files is not None and replaced is None and len(files) >= allowance.files:
            raise TooManyFiles(
                f"The project has {len(files)} files, and may have {allowance.files}: replace one of them, or delete some."
            )
        if allowance.bytes is not None:
            held = self.size() + new.bytes - (replaced.bytes if replaced else 0)
            if held > allowance.bytes:
                raise over_allowance(held, allowance.bytes)

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A new file for an upload; it is gone at the end, unless it was renamed. Clears what killed writers left."""
        folder = self._root / ".incoming"
        with only_writer(self._root):
            folder.mkdir(exist_ok=True, mode=0o700)
            for path in folder.iterdir():
                _drop_abandoned(path)
            descriptor, name = tempfile.mkstemp(dir=folder)
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # says that its writer lives
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(descriptor)

    def _receive(self, content: BinaryIO, target: Path) -> tuple[int, str]:
        size, digest = 0, hashlib.sha256()
        with target.open("wb") as file:
            while chunk := content.read(_CHUNK_BYTES):
                size += len(chunk)
                if size > self._max_bytes:
                    raise UploadTooLarge(f"A file has at most {self._max_bytes} bytes: upload it in parts, as several files.")
                self.require_room(len(chunk))
                digest.update(chunk)
                file.write(chunk)
        return size, digest.hexdigest()


def _ending(file: str) -> str:
    """The file name's ending, which tells its format, in lower case. Raises UnreadableDataset."""
    ending = Path(file).suffix.lower()
    if ending.removeprefix(".") not in FORMATS:
        listed = ", ".join(f".{one}" for one in FORMATS)
        raise UnreadableDataset(f"{file!r} is not a format read here: its name has to end in one of {listed}.")
    return ending


def _summary(path: Path, file: str) -> Summary:
    try:
        summary = look_images(path) if _ending(file) == ".zip" else look(path, file)
        "".join(summary.columns).encode()  # half a surrogate pair, which JSON can spell, could never be sent to anybody
    except TableError as error:
        raise UnreadableDataset(f"{file!r} cannot be read: {error.detail}.", column=error.column) from error
    except (OSError, ValueError) as error:  # Arrow's for some broken Parquet files, and for text that is no UTF-8
        raise UnreadableDataset(f"{file!r} cannot be read: {error}.") from error
    if summary.rows == 0:
        raise UnreadableDataset(f"{file!r} has no rows: upload a file with some.")
    return summary


def _read(path: Path) -> DatasetFile:
    stored = json.loads(path.read_bytes())
    times = {"uploaded_at": datetime.fromisoformat(stored["uploaded_at"])}
    return DatasetFile(**{**stored, **times, "columns": tuple(stored["columns"])})


def _drop_unnamed(folder: Path) -> None:
    named = {f"{stored.sha256}{_ending(stored.file)}" for stored in map(_read, folder.glob("[!.]*.json"))}
    for path in folder.iterdir():
        if path.suffix != ".json" and path.name not in named:
            path.unlink()


def _drop_abandoned(path: Path) -> None:
    with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:  # its writer drops it itself, or is at work
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
