"""What lies below a study's folder, how large it is, and how it is deleted: never half of it under its own name."""

import os
import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from service.checkpoints.names import name_of
from service.domain.stored import Stored, StoredKind
from service.folders import sizes_in

_TRIAL = re.compile(r"\d{6,}")


def stored_in(study: Path) -> list[Stored]:
    """Every checkpoint of the study, and what writers are at or have left, by trial and name."""
    found = []
    for trial in sorted(_folders(study), key=lambda entry: entry.name):
        if _TRIAL.fullmatch(trial.name):
            found += [_stored(int(trial.name), entry) for entry in sorted(_folders(trial), key=lambda entry: entry.name)]
    return [one for one in found if one is not None]


def drop(study: Path, stored: Stored) -> None:
    """Delete one of them, and its trial's folder with the last; nothing happens when it is gone."""
    path = study / stored.name
    gone = path.with_name(f".gone-{path.name.lstrip('.')}.{os.getpid()}")
    with suppress(FileNotFoundError):
        # A reader, or a crash half through, must not find half a checkpoint under a name that promises a whole one.
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):  # there is more in it
        path.parent.rmdir()


def _stored(trial: int, entry: "os.DirEntry[str]") -> Stored | None:
    name = name_of(entry.name)
    try:
        at = datetime.fromtimestamp(entry.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None  # replaced this moment
    return Stored(
        trial=trial,
        kind=StoredKind(name.kind) if name else StoredKind.UNFINISHED,
        report=name.report if name else 0,
        bytes=sum(sizes_in(Path(entry.path))),
        at=at,
        name=f"{trial:06d}/{entry.name}",
        attempt=name.attempt if name else 0,
    )


def _folders(folder: "Path | os.DirEntry[str]") -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []
