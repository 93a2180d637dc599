"""Checkpoints on a local (or shared) disk.

    ROOT/STUDY/TRIAL/resume-000003-a1/reports.json     every report up to 3, so that none is lost with a driver; of a trial that
                                                       began as a copy its parent's too
                                      state/           what the trainer goes on from; absent when report 3 was the last one
    ROOT/STUDY/TRIAL/resume-000003-2/                  the same in the middle of the way to report 4, where attempt 2 left
    ROOT/STUDY/TRIAL/export-000002-a1/manifest.json    files, bytes and SHA-256 of the best report's export
                                      analysis.json    where that report's validation rows went wrong
                                      model/           what a user pulls

A folder is written under a temporary name, brought to the disk and renamed: there is never half of one.
While a trial runs, the export of its best report so far stands beside the one before it: which of the two the store knows as
the best is only certain once the newer report is recorded.
"""

import contextlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from service.checkpoints import listing
from service.checkpoints.manifests import file_of, files_in, manifest_of, no_analysis, no_checkpoint, replaced
from service.checkpoints.names import CheckpointName, export_of, exports_replaced, name_of, states_replaced
from service.checkpoints.space import Free, Room, free_bytes, has_room
from service.domain.checkpoint import CheckpointFile, Manifest, may_leave
from service.domain.stored import Freed, Stored
from service.folders import remove

_LOG = logging.getLogger("tuneyard.checkpoints")
_STUDY = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True)
class Resume:
    """Where a trial stands on disk, in the folder `name`: `state` is None when it has nothing left to train."""

    name: CheckpointName
    number: int
    reports: Sequence[Mapping[str, Any]]
    state: Path | None


@dataclass(frozen=True)
class State:
    """What a trial may go on from after its report `number`: the folder with that state and the reports up to it."""

    number: int
    folder: Path


class TrialFolder:
    """The folder of one trial, for that attempt of it. What writes raises NoSpace before the disk is full."""

    def __init__(self, root: Path, study_id: str, trial: int, free: Free = free_bytes, attempt: int = 0) -> None:
        self._study_id = study_id
        self._trial = trial
        self._attempt = attempt
        self._path = root / study_id / f"{trial:06d}"
        self._room = Room(self._path, free)

    def save_resume(
        self, reports: Sequence[Mapping[str, Any]], write_state: Callable[[Path], None] | None, *, midway: bool = False
    ) -> None:
        """Replace what the trial resumes from; `write_state` fills an empty folder, None means that the trial is at its end.

        `midway` is what has trained on since the last of the reports.
        """
        name = self.resume_name(len(reports), midway=midway)
        with self._staging(name) as staging:
            (staging / "reports.json").write_text(json.dumps(list(reports), allow_nan=True))
            if write_state is not None:
                (staging / "state").mkdir()
                write_state(staging / "state")
        self.drop_before(name)

    def resume(self) -> Resume | None:
        """The last readable state, or None for a trial that starts from nothing. Clears what a killed writer left."""
        for path in _entries(self._path):
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)
        for name in self._last_first():
            folder = self.path(name)
            try:
                reports = json.loads((folder / "reports.json").read_text())
            except (OSError, ValueError) as error:
                _LOG.warning("%s cannot be read, going on from before it: %s", folder, error)
                continue
            state = folder / "state"
            return Resume(name=name, number=len(reports), reports=reports, state=state if state.is_dir() else None)
        return None

    def take(self, name: CheckpointName, fill: Callable[[Path], None]) -> Path:
        """Have a checkpoint that was written elsewhere: `fill` writes all of it into an empty folder."""
        with self._staging(name) as staging:
            fill(staging)
        return self.path(name)

    def path(self, name: CheckpointName) -> Path:
        """The folder of that name."""
        return self._path / str(name)

    def resume_name(self, report: int, *, midway: bool = False) -> CheckpointName:
        """What this attempt's state after that report is called."""
        return CheckpointName("resume", report, self._attempt, midway)

    def export_name(self, report: int) -> CheckpointName:
        """What this attempt's export of that report is called."""
        return CheckpointName("export", report, self._attempt)

    def drop_before(self, name: CheckpointName) -> None:
        """Drop the states before that one."""
        self._drop(states_replaced(name, self._names("resume")))

    def begin_as(self, parent: "TrialFolder", report: int) -> int:
        """Take over the parent's furthest state up to `report`, unless there is one here; answers its report, 0 for none.

        A state is never written into, so that both may hold the same files.
        """
        known = self.resume()
        if known is not None:
            return known.number
        found = parent.furthest(report)
        if found is None:
            return 0
        with self._staging(CheckpointName("resume", found.number)) as staging:
            shutil.copytree(found.folder, staging, copy_function=_shared, dirs_exist_ok=True)
        return found.number

    def furthest(self, report: int) -> "State | None":
        """The state of that report or, where it is gone, the last one before it."""
        for name in (one for one in self._last_first() if one.report <= report and not one.midway):
            folder = self.path(name)
            if (folder / "state").is_dir() and _is_readable(folder / "reports.json"):
                return State(name.report, folder)
        return None

    def save_export(
        self,
        report: int,
        write_model: Callable[[Path], None],
        before: int | None = None,
        analysis: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Add an export beside that of report `before`, and drop other older ones; `write_model` fills an empty folder.

        Raises ValueError for files that may not leave.
        """
        name = self.export_name(report)
        with self._staging(name) as staging:
            (staging / "model").mkdir()
            write_model(staging / "model")
            if analysis is not None:
                (staging / "analysis.json").write_text(json.dumps(dict(analysis), allow_nan=False))
            manifest = Manifest(self._study_id, self._trial, report, _exported(staging / "model"))
            (staging / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1))
        self._drop(exports_replaced(name, before, self._names("export")))
        return manifest

    def manifest(self, report: int) -> Manifest:
        """The export of that report. Raises CheckpointNotFound."""
        try:
            return manifest_of((self._export(report) / "manifest.json").read_bytes())
        except (FileNotFoundError, ValueError) as error:
            raise no_checkpoint(self._study_id, self._trial, report) from error

    def model(self, report: int) -> Path:
        """The folder with that report's export."""
        return self._export(report) / "model"

    def analysis(self, report: int) -> Mapping[str, Any]:
        """The analysis kept with that report's export. Raises CheckpointNotFound."""
        self.manifest(report)
        try:
            stored: Mapping[str, Any] = json.loads((self._export(report) / "analysis.json").read_text())
        except (FileNotFoundError, ValueError) as error:
            raise no_analysis(self._trial, report) from error
        return stored

    def open(self, report: int, path: str) -> BinaryIO:
        """A file of that export. Raises CheckpointNotFound, FileNotInCheckpoint."""
        file_of(self.manifest(report), path)
        try:
            return (self.model(report) / path).open("rb")
        except FileNotFoundError as error:
            raise replaced() from error

    def _export(self, report: int) -> Path:
        return self.path(export_of(report, self._names("export")) or self.export_name(report))

    def _drop(self, names: Sequence[CheckpointName]) -> None:
        for name in names:
            shutil.rmtree(self.path(name), ignore_errors=True)

    def _staging(self, name: CheckpointName) -> "_Staging":
        return _Staging(self.path(name), self._room)

    def _last_first(self) -> list[CheckpointName]:
        """What the trial may resume from."""
        return sorted(self._names("resume"), key=lambda name: name.order, reverse=True)

    def _names(self, kind: str) -> list[CheckpointName]:
        names = [name_of(path.name) for path in _entries(self._path)]
        return [name for name in names if name is not None and name.kind == kind]


class LocalCheckpointStore:
    """The exports of all trials under one root."""

    def __init__(self, root: Path, free: Free = free_bytes) -> None:
        self._root = root
        self._free = free

    def studies(self) -> Mapping[str, datetime]:
        return {path.name: _last_change(path) for path in _entries(self._root) if _STUDY.fullmatch(path.name)}

    def manifest(self, study_id: str, trial: int, report: int) -> Manifest:
        return TrialFolder(self._root, study_id, trial).manifest(report)

    def analysis(self, study_id: str, trial: int, report: int) -> Mapping[str, Any]:
        return TrialFolder(self._root, study_id, trial).analysis(report)

    def open(self, study_id: str, trial: int, report: int, path: str) -> BinaryIO:
        return TrialFolder(self._root, study_id, trial).open(report, path)

    def link(self, study_id: str, trial: int, report: int, path: str) -> str | None:
        file_of(self.manifest(study_id, trial, report), path)
        return None

    def can_resume(self, study_id: str, trial: int) -> bool:
        known = TrialFolder(self._root, study_id, trial).resume()
        return known is not None and known.state is not None

    def has_room(self, study_id: str) -> bool:
        return has_room(self._root / study_id, self._free)

    def fork(self, study_id: str, parent: int, child: int, report: int) -> int:
        return TrialFolder(self._root, study_id, child, self._free).begin_as(TrialFolder(self._root, study_id, parent), report)

    def stored(self, study_id: str) -> Sequence[Stored]:
        return listing.stored_in(self._root / study_id)

    def drop(self, study_id: str, stored: Sequence[Stored]) -> None:
        for one in stored:
            listing.drop(self._root / study_id, one)

    def delete(self, study_id: str) -> Freed:
        return remove(self._root / study_id)


class _Staging:
    """A folder that appears under its name when the block ends well, and not at all otherwise. Raises NoSpace."""

    def __init__(self, final: Path, room: Room) -> None:
        self._final = final
        self._temporary = final.with_name(f".{final.name}.{os.getpid()}")
        self._room = room

    def __enter__(self) -> Path:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._room.require(self._final.name.partition("-")[0])
        self._temporary.mkdir(parents=True)
        return self._temporary

    def __exit__(self, _: object, failure: BaseException | None, *__: object) -> None:
        try:
            if failure is not None:
                raise failure  # noqa: TRY301 - one way out for both
            self._reveal()  # some disks only find out that they are full when they are asked to have it all
        except BaseException as error:
            full = self._room.missing(error, written=remove(self._temporary).bytes)
            if full is not None:
                raise full from error
            if error is not failure:
                raise

    def _reveal(self) -> None:
        for path in (*self._temporary.rglob("*"), self._temporary):
            _to_disk(path)  # a power cut after the rename would leave empty files under a name that promises whole ones
        # A retried attempt writes a report again that was already there, with the same content.
        shutil.rmtree(self._final, ignore_errors=True)
        self._temporary.rename(self._final)
        _to_disk(self._final.parent)


def _shared(source: str, target: str) -> None:
    """The same file under another name, or a copy where the disk cannot do that."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_readable(path: Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _last_change(study: Path) -> datetime:
    """When a trial's folder was last added, or something in one written or dropped."""
    times = []
    for path in (study, *_entries(study)):
        with contextlib.suppress(FileNotFoundError):
            times.append(path.stat().st_mtime)
    return datetime.fromtimestamp(max(times, default=0.0), UTC)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _exported(model: Path) -> tuple[CheckpointFile, ...]:
    files = files_in(model)
    for file in files:
        if not may_leave(file.path):
            raise ValueError(f"an export may hold only safetensors, JSON and text, not {file.path!r}")
    return tuple(files)
