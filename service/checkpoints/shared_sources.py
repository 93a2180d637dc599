"""Rows and base models in object storage, for workers that share no disk with the service.

    sources/SHA256/files/...      what one data file, or one model's folder, consists of
                   index.json     these files with size and SHA-256, written last; its own SHA-256 is the folder's name
    used/STUDY.json               the sources that a study's workers may ask for

Each is put there once, whoever uses it, and dropped once no study that goes on does.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath

from service.checkpoints.cache import WorkerCache
from service.checkpoints.files import fetch_files, send_files
from service.checkpoints.manifests import files_in
from service.checkpoints.storage import Entry, Storage
from service.checkpoints.trial_objects import grouped
from service.domain.checkpoint import CheckpointFile
from service.domain.errors import DamagedObject, StorageAway
from service.domain.ports import LocalSources, SharedSources

_LOG = logging.getLogger("tuneyard.storage")
_SOURCES, _USED = "sources", "used"
_EVERY = timedelta(minutes=5)
UNUSED = timedelta(hours=1)
"""How old a source must be that no study uses, and how long what a study asked for stays: a driver may be about to name it,
and who sweeps need not know of its study yet."""


def publish(storage: Storage, study_id: str, sources: LocalSources) -> SharedSources:
    """Have them all in storage, and say what they are called there. Raises StorageAway."""
    models = {name: _Source.of_folder(folder) for name, folder in sources.models.items()}
    rows = {uri: _Source.of_file(path) for uri, path in sources.sources.items()}
    used = {source.digest: source for source in (*models.values(), *rows.values())}
    storage.put(f"{_USED}/{study_id}.json", json.dumps(sorted(used)).encode())  # first: from now on nobody drops them
    for source in (*used.values(), *used.values()):  # again, as a sweep that had not heard of it may have been at work
        _put(storage, source)
    return SharedSources(
        models={name: source.digest for name, source in models.items()},
        sources={uri: f"{source.digest}/{source.files[0].path}" for uri, source in rows.items()},
    )


def fetch(storage: Storage, cache: WorkerCache, shared: SharedSources) -> LocalSources:
    """Have them all in a worker's cache, each fetched once by whichever worker is first. Raises DamagedObject, StorageAway."""
    return LocalSources(
        models={name: _fetched(storage, cache, called) for name, called in shared.models.items()},
        sources={uri: _fetched(storage, cache, called) for uri, called in shared.sources.items()},
    )


class SourceSweep:
    """Drops sources that no study needs; never raises, as nothing waits for it."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._swept_at: datetime | None = None

    def sweep(self, active: Collection[str], now: datetime) -> None:
        """Now and then, given the studies that have not ended."""
        if self._swept_at is not None and now - self._swept_at < _EVERY:
            return
        self._swept_at = now
        try:
            self._drop_unused(active, now)
        except StorageAway as error:
            _LOG.warning("sources are not looked through now: %s", error.cause)

    def _drop_unused(self, active: Collection[str], now: datetime) -> None:
        there = grouped(self._storage.list(_SOURCES), _SOURCES)  # before what is used: what comes meanwhile is not dropped
        needed: set[str] = set()
        for entry in self._storage.list(_USED):
            if PurePosixPath(entry.key).stem in active or now - entry.at <= UNUSED:
                needed.update(json.loads(self._storage.get(entry.key) or b"[]"))
            else:
                self._storage.delete([entry.key])
        for digest in unused(there, needed, now):
            again = {digest: self._storage.list(f"{_SOURCES}/{digest}")}
            if not again[digest] or not unused(again, needed, now):  # a driver has asked for it since
                continue
            _LOG.info("no study needs source %s any more: it is dropped", digest)
            index = f"{_SOURCES}/{digest}/index.json"
            self._storage.delete([index])
            self._storage.delete([entry.key for entry in there[digest] if entry.key != index])


def unused(there: Mapping[str, Sequence[Entry]], needed: Collection[str], now: datetime) -> list[str]:
    """Sources that no study needs, and that nobody has put there or asked for lately."""
    return [
        digest for digest, entries in there.items() if digest not in needed and now - max(entry.at for entry in entries) > UNUSED
    ]


@dataclass(frozen=True)
class _Source:
    """One data file, or one model's folder, on this machine."""

    folder: Path
    files: Sequence[CheckpointFile]

    @classmethod
    def of_folder(cls, folder: Path) -> "_Source":
        return cls(folder, files_in(folder))

    @classmethod
    def of_file(cls, path: Path) -> "_Source":
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(path.parent, [CheckpointFile(path.name, path.stat().st_size, digest)])

    @property
    def index(self) -> bytes:
        return json.dumps([asdict(file) for file in self.files], sort_keys=True).encode()

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.index).hexdigest()


def _put(storage: Storage, source: _Source) -> None:
    place = f"{_SOURCES}/{source.digest}"
    there = {entry.key: entry.bytes for entry in storage.list(place)}
    files = {f"{place}/files/{file.path}": file.bytes for file in source.files}
    if f"{place}/index.json" not in there or not files.items() <= there.items():
        send_files(storage, source.folder, source.files, f"{place}/files")
    storage.put(f"{place}/index.json", source.index)  # also where it was there: it is as good as new for the sweep


def _fetched(storage: Storage, cache: WorkerCache, called: str) -> Path:
    """Where a source is in the cache: a model's folder, or a data file."""
    digest, _, file = called.partition("/")

    def fill(folder: Path) -> None:
        index = storage.get(f"{_SOURCES}/{digest}/index.json")
        if index is None or hashlib.sha256(index).hexdigest() != digest:
            raise DamagedObject(f"{_SOURCES}/{digest}", "it is gone" if index is None else "its index differs")
        files = [CheckpointFile(**file) for file in json.loads(index)]
        (folder / "files").mkdir()
        fetch_files(storage, f"{_SOURCES}/{digest}/files", files, folder / "files")

    folder = cache.filled(f"{_SOURCES}/{digest}", fill) / "files"
    return folder / file if file else folder
