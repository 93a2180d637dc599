"""The exports of all trials in object storage, as the API, the controller and drivers read them."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from service.checkpoints.manifests import file_of, no_analysis, replaced
from service.checkpoints.names import name_of
from service.checkpoints.reader import ObjectReader
from service.checkpoints.space import Free, free_bytes, has_room
from service.checkpoints.storage import Entry, Storage
from service.checkpoints.trial_objects import CHECKPOINTS, TrialObjects, drop_folder, grouped, is_whole
from service.domain.checkpoint import Manifest
from service.domain.stored import Freed, Stored, StoredKind

_LINK_LASTS = timedelta(minutes=5)
_SMALL_BYTES = 256 * 1024
"""What is no larger is read at once when it is opened, with one request instead of two."""


class ObjectCheckpointStore:
    """Checkpoints below one address. Everything raises StorageAway when that does not answer.

    `home` is where a study's driver notes what its own disk had no room for.
    """

    def __init__(self, storage: Storage, home: Path, free: Free = free_bytes) -> None:
        self._storage = storage
        self._home = home
        self._free = free

    def studies(self) -> Mapping[str, datetime]:
        folders = grouped(self._storage.list(CHECKPOINTS), CHECKPOINTS)
        return {study_id: max(entry.at for entry in entries) for study_id, entries in folders.items()}

    def manifest(self, study_id: str, trial: int, report: int) -> Manifest:
        return self._trial(study_id, trial).export(report).manifest

    def analysis(self, study_id: str, trial: int, report: int) -> Mapping[str, Any]:
        export = self._trial(study_id, trial).export(report)
        try:
            stored: Mapping[str, Any] = json.loads(self._storage.get(f"{export.place}/analysis.json") or b"")
        except ValueError as error:
            raise no_analysis(trial, report) from error
        return stored

    def open(self, study_id: str, trial: int, report: int, path: str) -> BinaryIO:
        export = self._trial(study_id, trial).export(report)
        file, key = file_of(export.manifest, path), f"{export.place}/model/{path}"
        if file.bytes <= _SMALL_BYTES:
            content = self._storage.get(key)
            if content is None:
                raise replaced()
            return io.BytesIO(content)
        tag = self._storage.tag(key)
        if tag is None:
            raise replaced()
        return cast("BinaryIO", ObjectReader(self._storage, key, file.bytes, tag))

    def link(self, study_id: str, trial: int, report: int, path: str) -> str | None:
        export = self._trial(study_id, trial).export(report)
        file_of(export.manifest, path)
        return self._storage.link(f"{export.place}/model/{path}", _LINK_LASTS)

    def can_resume(self, study_id: str, trial: int) -> bool:
        known = self._trial(study_id, trial).last()
        return known is not None and known.files is not None

    def has_room(self, study_id: str) -> bool:
        return has_room(self._home / study_id, self._free)

    def fork(self, study_id: str, parent: int, child: int, report: int) -> int:
        of, whence = self._trial(study_id, child), self._trial(study_id, parent)
        known = of.last()
        if known is not None:
            return len(known.reports)
        for name in reversed(whence.whole("resume")):
            if name.midway or name.report > report:
                continue
            state = whence.state(name)
            if state is not None and state.files is not None:
                of.take_over(whence, state)
                return name.report
        return 0

    def stored(self, study_id: str) -> Sequence[Stored]:
        prefix = f"{CHECKPOINTS}/{study_id}"
        found = []
        for trial, entries in sorted(grouped(self._storage.list(prefix), prefix).items()):
            folders = grouped(entries, f"{prefix}/{trial}") if trial.isdigit() else {}
            found += [_stored(int(trial), folder, inside) for folder, inside in sorted(folders.items())]
        return found

    def drop(self, study_id: str, stored: Sequence[Stored]) -> None:
        for one in stored:
            entries = self._storage.list(f"{CHECKPOINTS}/{study_id}/{one.name}")
            drop_folder(self._storage, [entry.key for entry in entries])

    def delete(self, study_id: str) -> Freed:
        entries = self._storage.list(f"{CHECKPOINTS}/{study_id}")
        drop_folder(self._storage, [entry.key for entry in entries])
        return Freed(len(entries), sum(entry.bytes for entry in entries))

    def _trial(self, study_id: str, trial: int) -> TrialObjects:
        return TrialObjects(self._storage, study_id, trial)


def _stored(trial: int, folder: str, entries: Sequence[Entry]) -> Stored:
    name = name_of(folder)
    kind = StoredKind(name.kind) if name is not None and is_whole(folder, entries) else StoredKind.UNFINISHED
    return Stored(
        trial=trial,
        kind=kind,
        report=0 if name is None else name.report,
        bytes=sum(entry.bytes for entry in entries),
        at=max((entry.at for entry in entries), default=datetime.fromtimestamp(0, UTC)),
        name=f"{trial:06d}/{folder}",
        attempt=0 if name is None else name.attempt,
    )
