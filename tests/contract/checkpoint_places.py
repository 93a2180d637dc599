"""Where the contract of checkpoints is held: on a disk, and in object storage as workers on different nodes write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from service.checkpoints.cached import CachedTrialFolder
from service.checkpoints.local import LocalCheckpointStore, TrialFolder
from service.checkpoints.objects import ObjectCheckpointStore
from service.checkpoints.storage import Storage
from service.checkpoints.trial_objects import TrialObjects
from service.domain.ports import CheckpointStore
from service.execution.place import Folder

STUDY = "intents-abc123"


class Place(Protocol):
    """A store, those who write to it, and what lies there behind everybody's back."""

    copies_with: str
    """What is called for each file or folder that a fork takes over."""

    @property
    def store(self) -> CheckpointStore: ...

    def trial(self, number: int, study_id: str = STUDY, attempt: int = 1) -> Folder:
        """A worker's view of a trial, on a node of its own where that makes a difference; 0 writes as earlier releases did."""
        ...

    def files(self) -> Mapping[str, int]:
        """Sizes of all that lies there, by study and so on."""
        ...

    def leave(self, name: str, content: bytes) -> None:
        """Put something there."""
        ...

    def lose(self, name: str) -> None:
        """Take it away."""
        ...


class OnDisk:
    copies_with = "service.checkpoints.local.shutil.copytree"

    def __init__(self, root: Path) -> None:
        self.root = root / "checkpoints"
        self.store = LocalCheckpointStore(self.root)

    def trial(self, number: int, study_id: str = STUDY, attempt: int = 1) -> TrialFolder:
        return TrialFolder(self.root, study_id, number, attempt=attempt)

    def files(self) -> Mapping[str, int]:
        return {path.relative_to(self.root).as_posix(): path.stat().st_size for path in self.root.rglob("*") if path.is_file()}

    def leave(self, name: str, content: bytes) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_bytes(content)

    def lose(self, name: str) -> None:
        (self.root / name).unlink()


class InStorage:
    copies_with = "service.checkpoints.storage.obstore.copy"

    def __init__(self, storage: Storage, root: Path) -> None:
        self.storage = storage
        self.store = ObjectCheckpointStore(storage, root / "home")
        self._root = root
        self._nodes = 0

    def trial(self, number: int, study_id: str = STUDY, attempt: int = 1) -> CachedTrialFolder:
        self._nodes += 1
        here = TrialFolder(self._root / f"node-{self._nodes}", study_id, number, attempt=attempt)
        return CachedTrialFolder(here, TrialObjects(self.storage, study_id, number), lambda: None)

    def files(self) -> Mapping[str, int]:
        return {entry.key.removeprefix("checkpoints/"): entry.bytes for entry in self.storage.list("checkpoints")}

    def leave(self, name: str, content: bytes) -> None:
        self.storage.put(f"checkpoints/{name}", content)

    def lose(self, name: str) -> None:
        self.storage.delete([f"checkpoints/{name}"])
