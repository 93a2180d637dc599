"""Manifests and what they say of files, and what is said where something of a checkpoint is not there."""

import hashlib
import json
from pathlib import Path

from service.domain.checkpoint import CheckpointFile, Manifest, may_leave
from service.domain.errors import CheckpointNotFound, FileNotInCheckpoint


def files_in(folder: Path) -> list[CheckpointFile]:
    """Every file below it, with its size and SHA-256; links are followed."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(CheckpointFile(path.relative_to(folder).as_posix(), path.stat().st_size, digest))
    return found


def manifest_of(stored: bytes) -> Manifest:
    """A manifest, read. Raises ValueError for what is none."""
    read = json.loads(stored)
    return Manifest(**{**read, "files": tuple(CheckpointFile(**file) for file in read["files"])})


def file_of(manifest: Manifest, path: str) -> CheckpointFile:
    """What the manifest says of a file that may be handed out. Raises FileNotInCheckpoint."""
    file = manifest.file(path)
    if file is None or not may_leave(path):
        raise FileNotInCheckpoint(f"The checkpoint has no file {path!r}: its manifest lists those it has.")
    return file


def no_checkpoint(study_id: str, trial: int, report: int) -> CheckpointNotFound:
    """What is said where a trial has no export of that report."""
    return CheckpointNotFound(
        f"Trial {trial} of study {study_id!r} has no checkpoint of report {report}: a better one has "
        "just replaced it, or the trial is not among the best that `checkpoints.keep` and `checkpoints.max_total_gb` "
        "keep, or its files were taken from the disk; the study's events tell. "
        f"`GET /v1/studies/{study_id}/best` names the best trial."
    )


def no_analysis(trial: int, report: int) -> CheckpointNotFound:
    """What is said where an export has no analysis."""
    return CheckpointNotFound(
        f"The checkpoint of report {report} of trial {trial} has no analysis: a better one has just replaced it, "
        "or it was exported by an earlier version of the service."
    )


def replaced() -> CheckpointNotFound:
    """What is said where a checkpoint went between its manifest and its files."""
    return CheckpointNotFound("A better checkpoint has just replaced this one: read the manifest again.")
