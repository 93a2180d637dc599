"""Checkpoints on a local (or shared) disk.

    ROOT/STUDY/TRIAL/resume-000003/reports.json     every report up to 3, so that none is lost with a driver
                                   state/           what the trainer goes on from; absent when report 3 was the last one
    ROOT/STUDY/TRIAL/export-000002/manifest.json    files, bytes and SHA-256 of the best report's export
                                   model/           what a user pulls

A folder is written under a temporary name and renamed: there is never half of one.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from service.domain.checkpoint import CheckpointFile, Manifest, may_leave
from service.domain.errors import CheckpointNotFound, FileNotInCheckpoint

_NUMBERED = re.compile(r"(resume|export)-(\d{6,})")


@dataclass(frozen=True)
class Resume:
    """Where a trial stands on disk: `state` is None when it has nothing left to train."""

    number: int
    reports: Sequence[Mapping[str, Any]]
    state: Path | None


class TrialFolder:
    """The folder of one trial; one worker writes it at a time."""

    def __init__(self, root: Path, study_id: str, trial: int) -> None:
        self._study_id = study_id
        self._trial = trial
        self._path = root / study_id / f"{trial:06d}"

    def save_resume(self, reports: Sequence[Mapping[str, Any]], write_state: Callable[[Path], None] | None) -> None:
        """Replace what the trial resumes from; `write_state` fills an empty folder, None means that the trial is at its end."""
        number = len(reports)
        with _Staging(self._path, f"resume-{number:06d}") as staging:
            (staging / "reports.json").write_text(json.dumps(list(reports), allow_nan=True))
            if write_state is not None:
                (staging / "state").mkdir()
                write_state(staging / "state")
        self._drop("resume", but=number)

    def resume(self) -> Resume | None:
        """The furthest state there is, or None for a trial that starts from nothing. Clears what a killed writer left."""
        for path in _entries(self._path):
            if path.name.startswith("."):
                shutil.rmtree(path, ignore_errors=True)
        numbers = self._numbers("resume")
        if not numbers:
            return None
        folder = self._path / f"resume-{max(numbers):06d}"
        state = folder / "state"
        reports = json.loads((folder / "reports.json").read_text())
        return Resume(number=max(numbers), reports=reports, state=state if state.is_dir() else None)

    def drop_resume(self) -> None:
        """Forget where the trial stood: it will not go on."""
        self._drop("resume", but=None)

    def drop_export(self) -> None:
        """Forget the export: the trial is not among the best."""
        self._drop("export", but=None)

    def save_export(self, report: int, write_model: Callable[[Path], None]) -> Manifest:
        """Replace the trial's export; `write_model` fills an empty folder. Raises ValueError for files that may not leave."""
        with _Staging(self._path, f"export-{report:06d}") as staging:
            (staging / "model").mkdir()
            write_model(staging / "model")
            manifest = Manifest(self._study_id, self._trial, report, tuple(_listed(staging / "model")))
            (staging / "manifest.json").write_text(json.dumps(asdict(manifest), indent=1))
        self._drop("export", but=report)
        return manifest

    def manifest(self) -> Manifest:
        """The newest export. Raises CheckpointNotFound."""
        for number in sorted(self._numbers("export"), reverse=True):
            try:
                stored = json.loads((self._path / f"export-{number:06d}" / "manifest.json").read_text())
            except FileNotFoundError:
                continue  # replaced by a newer one between listing and reading
            return Manifest(**{**stored, "files": tuple(CheckpointFile(**file) for file in stored["files"])})
        raise CheckpointNotFound(
            f"Trial {self._trial} of study {self._study_id!r} has no checkpoint: it has not reported yet, or it was not "
            f"among the best that `checkpoints.keep` keeps. `GET /v1/studies/{self._study_id}/best` names the best trial."
        )

    def open(self, path: str) -> BinaryIO:
        """A file of the newest export. Raises CheckpointNotFound, FileNotInCheckpoint."""
        manifest = self.manifest()
        if manifest.file(path) is None or not may_leave(path):
            raise FileNotInCheckpoint(f"The checkpoint has no file {path!r}: its manifest lists those it has.")
        try:
            return (self._path / f"export-{manifest.report:06d}" / "model" / path).open("rb")
        except FileNotFoundError as error:
            raise CheckpointNotFound("A better checkpoint has just replaced this one: read the manifest again.") from error

    def _numbers(self, kind: str) -> list[int]:
        matches = [_NUMBERED.fullmatch(path.name) for path in _entries(self._path)]
        return [int(match[2]) for match in matches if match and match[1] == kind]

    def _drop(self, kind: str, but: int | None) -> None:
        for number in self._numbers(kind):
            if number != but:
                shutil.rmtree(self._path / f"{kind}-{number:06d}", ignore_errors=True)


class LocalCheckpointStore:
    """The exports of all trials under one root."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def manifest(self, study_id: str, trial: int) -> Manifest:
        return TrialFolder(self._root, study_id, trial).manifest()

    def open(self, study_id: str, trial: int, path: str) -> BinaryIO:
        return TrialFolder(self._root, study_id, trial).open(path)

    def keep_only(self, study_id: str, exports: frozenset[int], resumable: frozenset[int]) -> None:
        for path in _entries(self._root / study_id):
            if not path.name.isdigit():
                continue
            number = int(path.name)
            if number not in exports | resumable:
                shutil.rmtree(path, ignore_errors=True)
            elif number not in resumable:
                TrialFolder(self._root, study_id, number).drop_resume()
            elif number not in exports:
                TrialFolder(self._root, study_id, number).drop_export()

    def delete(self, study_id: str) -> None:
        shutil.rmtree(self._root / study_id, ignore_errors=True)


class _Staging:
    """A folder that appears under its name when the block ends well, and not at all otherwise."""

    def __init__(self, parent: Path, name: str) -> None:
        self._final = parent / name
        self._temporary = parent / f".{name}.{os.getpid()}"

    def __enter__(self) -> Path:
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True)
        return self._temporary

    def __exit__(self, failure: object, *_: object) -> None:
        if failure is None:
            # A retried attempt writes a report again that was already there, with the same content.
            shutil.rmtree(self._final, ignore_errors=True)
            self._temporary.rename(self._final)
        else:
            shutil.rmtree(self._temporary, ignore_errors=True)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []


def _listed(folder: Path) -> list[CheckpointFile]:
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not may_leave(name):
            raise ValueError(f"an export may hold only safetensors, JSON and text, not {name!r}")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(CheckpointFile(path=name, bytes=path.stat().st_size, sha256=digest))
    return found
