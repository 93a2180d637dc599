"""The checkpoints of one trial in object storage, under the same names as on a disk.

    checkpoints/STUDY/TRIAL/resume-000003-a1/state/...       what the trainer goes on from
                                             reports.json    the reports, and the files of `state` with size and SHA-256
    checkpoints/STUDY/TRIAL/export-000002-a1/model/...       what a user pulls
                                             analysis.json
                                             manifest.json   the files of `model` with size and SHA-256

Objects cannot be renamed together as folders can: the last of each is its marker, without which nobody sees a checkpoint there.
It is written last, once all the others are seen to be there, and deleted first. The state before the last one is kept: only
who fetches a state finds out that the storage has damaged it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from service.checkpoints.files import fetch_files, send_files
from service.checkpoints.manifests import manifest_of, no_checkpoint
from service.checkpoints.names import MARKERS, CheckpointName, export_of, exports_replaced, name_of, states_replaced
from service.checkpoints.storage import Entry, Storage
from service.domain.checkpoint import CheckpointFile, Manifest
from service.domain.errors import DamagedObject

_LOG = logging.getLogger("tuneyard.checkpoints")
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class StateObject:
    """What a trial goes on from: `files` is None when it has nothing left to train."""

    name: CheckpointName
    reports: Sequence[Mapping[str, Any]]
    files: Sequence[CheckpointFile] | None


@dataclass(frozen=True)
class ExportObject:
    """Where an export is, below the storage's address, and what it consists of."""

    place: str
    manifest: Manifest


class TrialObjects:
    """The checkpoints of one trial; nothing here is harmed by a writer that was given up. Everything raises StorageAway."""

    def __init__(self, storage: Storage, study_id: str, trial: int) -> None:
        self._storage = storage
        self._study_id = study_id
        self._trial = trial
        self.prefix = f"{CHECKPOINTS}/{study_id}/{trial:06d}"

    def whole(self, kind: str) -> list[CheckpointName]:
        """Names of the whole checkpoints of this kind, the last one last."""
        found = [name for name, entries in self._folders().items() if is_whole(str(name), entries)]
        return sorted((name for name in found if name.kind == kind), key=lambda name: name.order)

    def state(self, name: CheckpointName) -> StateObject | None:
        """One of them, read; None, with a warning, where it cannot be."""
        try:
            stored = json.loads(self._storage.get(f"{self.prefix}/{name}/{name.marker}") or b"")
            files = None if stored["state"] is None else [CheckpointFile(**file) for file in stored["state"]]
            return StateObject(name, stored["reports"], files)
        except (ValueError, TypeError, KeyError) as error:
            _LOG.warning("%s/%s cannot be read, going on from before it: %s", self.prefix, name, error)
            return None

    def last(self) -> StateObject | None:
        """The last readable state."""
        states = (self.state(name) for name in reversed(self.whole("resume")))
        return next((state for state in states if state is not None), None)

    def send_state(
        self, name: CheckpointName, reports: Sequence[Mapping[str, Any]], state: Path | None, files: Sequence[CheckpointFile]
    ) -> None:
        """Put a state, and then drop those before it but the last of them. Raises DamagedObject."""
        listed = None if state is None else [asdict(file) for file in files]
        marker = json.dumps({"reports": list(reports), "state": listed}, allow_nan=True)
        self._unmark(name)
        if state is not None:
            send_files(self._storage, state, files, f"{self.prefix}/{name}/state")
        folders = self._folders()
        self._require(name, "state", files, folders)
        self._storage.put(f"{self.prefix}/{name}/{name.marker}", marker.encode())
        replaced = states_replaced(name, folders)
        kept = [one for one in replaced if is_whole(str(one), folders[one])][-1:]
        self._drop(folders, [one for one in replaced if one not in kept])

    def fetch_state(self, state: StateObject, folder: Path) -> None:
        """Have the files of a state, and its reports, in an empty folder, as on a disk. Raises DamagedObject."""
        (folder / "reports.json").write_text(json.dumps(list(state.reports), allow_nan=True))
        if state.files is not None:
            (folder / "state").mkdir()
            fetch_files(self._storage, f"{self.prefix}/{state.name}/state", state.files, folder / "state")

    def send_export(self, name: CheckpointName, folder: Path, files: Sequence[CheckpointFile], before: int | None) -> None:
        """Put an export beside that of report `before`, and then drop other older ones. Raises DamagedObject."""
        self._unmark(name)
        send_files(self._storage, folder / "model", files, f"{self.prefix}/{name}/model")
        folders = self._folders()
        self._require(name, "model", files, folders)
        for file in ("analysis.json", name.marker):
            if (folder / file).is_file():
                self._storage.put(f"{self.prefix}/{name}/{file}", (folder / file).read_bytes())
        self._drop(folders, exports_replaced(name, before, folders))

    def fetch_export(self, report: int, folder: Path) -> None:
        """Have that report's export in an empty folder, as on a disk. Raises CheckpointNotFound, DamagedObject."""
        export = self.export(report)
        (folder / "model").mkdir()
        fetch_files(self._storage, f"{export.place}/model", export.manifest.files, folder / "model")
        (folder / MARKERS["export"]).write_text(json.dumps(asdict(export.manifest), indent=1))

    def export(self, report: int) -> ExportObject:
        """The export of that report. Raises CheckpointNotFound."""
        name = export_of(report, self.whole("export"))
        if name is None:
            raise no_checkpoint(self._study_id, self._trial, report)
        place = f"{self.prefix}/{name}"
        try:
            return ExportObject(place, manifest_of(self._storage.get(f"{place}/{name.marker}") or b""))
        except ValueError as error:
            raise no_checkpoint(self._study_id, self._trial, report) from error

    def take_over(self, parent: "TrialObjects", state: StateObject) -> None:
        """Copy a state of the parent's within the storage; attempts of this trial have nothing to do with the parent's."""
        source, target = f"{parent.prefix}/{state.name}", f"{self.prefix}/{CheckpointName('resume', state.name.report)}"
        for file in state.files or ():
            self._storage.copy(f"{source}/state/{file.path}", f"{target}/state/{file.path}", file.bytes)
        marker = self._storage.get(f"{source}/{state.name.marker}")
        if marker is None:
            raise FileNotFoundError(f"{source} was deleted while it was copied")
        self._storage.put(f"{target}/{state.name.marker}", marker)

    def _unmark(self, name: CheckpointName) -> None:
        """From here on nobody sees what is there under this name, until it is whole again."""
        self._storage.delete([f"{self.prefix}/{name}/{name.marker}"])

    def _require(
        self, name: CheckpointName, part: str, files: Sequence[CheckpointFile], folders: Mapping[CheckpointName, Sequence[Entry]]
    ) -> None:
        """Go on only where all is there that the marker will promise: a later attempt may drop it. Raises DamagedObject."""
        there = {entry.key: entry.bytes for entry in folders.get(name, ())}
        for file in files:
            key = f"{self.prefix}/{name}/{part}/{file.path}"
            if there.get(key) != file.bytes:
                raise DamagedObject(key, f"{there[key]} bytes instead of {file.bytes}" if key in there else "it is gone")

    def _drop(self, folders: Mapping[CheckpointName, Sequence[Entry]], names: Sequence[CheckpointName]) -> None:
        for name in names:
            drop_folder(self._storage, [entry.key for entry in folders[name]])

    def _folders(self) -> dict[CheckpointName, list[Entry]]:
        found = {name_of(folder): entries for folder, entries in grouped(self._storage.list(self.prefix), self.prefix).items()}
        return {name: entries for name, entries in found.items() if name is not None}


def grouped(entries: Sequence[Entry], prefix: str) -> dict[str, list[Entry]]:
    """Objects by the folder right below the prefix that they are in."""
    folders: dict[str, list[Entry]] = {}
    for entry in entries:
        below = PurePosixPath(entry.key).relative_to(prefix).parts
        if len(below) > 1:
            folders.setdefault(below[0], []).append(entry)
    return folders


def drop_folder(storage: Storage, keys: Sequence[str]) -> None:
    """Delete the objects of one checkpoint, its marker first: a reader must not find half of one that promises to be whole."""
    markers = [key for key in keys if PurePosixPath(key).name in _MARKERS and len(PurePosixPath(key).parts) == _MARKER_DEPTH]
    storage.delete(markers)
    storage.delete([key for key in keys if key not in markers])


def is_whole(folder: str, entries: Sequence[Entry]) -> bool:
    """Whether a folder is a checkpoint, and has its marker."""
    name = name_of(folder)
    return name is not None and any(entry.key.endswith(f"/{folder}/{name.marker}") for entry in entries)


_MARKERS = frozenset(MARKERS.values())
_MARKER_DEPTH = 5
"""`checkpoints/STUDY/TRIAL/NAME/MARKER`"""
