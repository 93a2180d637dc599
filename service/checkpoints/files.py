"""Files on their way to object storage and back: sent some at once, fetched and verified."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from service.checkpoints.storage import Storage
from service.domain.checkpoint import CheckpointFile
from service.domain.errors import DamagedObject

_AT_ONCE = 3
"""Each is sent in parts, of which some are in memory."""


def send_files(storage: Storage, folder: Path, files: Sequence[CheckpointFile], prefix: str) -> None:
    """Put them below `prefix`; those that are there whole, since an earlier try that was killed, are not sent again.

    What else lies there is deleted. Raises StorageAway.
    """
    there = {entry.key: entry.bytes for entry in storage.list(prefix)}

    def send(file: CheckpointFile) -> None:
        key = f"{prefix}/{file.path}"
        if there.get(key) != file.bytes or storage.hash_of(key) != file.sha256:
            storage.send(key, folder / file.path, file.sha256)

    storage.delete(sorted(there.keys() - {f"{prefix}/{file.path}" for file in files}))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(send, files):
            pass


def fetch_files(storage: Storage, prefix: str, files: Sequence[CheckpointFile], folder: Path) -> None:
    """Have them in `folder`. Raises DamagedObject, for one that is gone too, and StorageAway."""

    def fetch(file: CheckpointFile) -> None:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        key = f"{prefix}/{file.path}"
        try:
            storage.fetch(key, path, file.bytes, file.sha256)
        except FileNotFoundError as error:
            raise DamagedObject(key, "it is gone") from error

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(fetch, files):
            pass
