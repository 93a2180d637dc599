"""Folders and logs that nobody uses any more: which of them go is decided purely, from what lies there and how old it is."""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from service.folders import remove

_LOG = logging.getLogger("tuneyard.controller")
_UNUSED = timedelta(minutes=10)
"""How old something must be that looks as if nobody used it."""
_EVERY = timedelta(minutes=5)
_SESSIONS = 2
"""Sessions of Ray whose logs are kept, the present one among them."""
_LOG_BYTES = 200 * 1024**2
"""What the logs of all studies' drivers may take, those of studies that go on aside."""
_LATEST = "session_latest"


@dataclass(frozen=True)
class Entry:
    """A file or folder, when it last changed and how large it is."""

    name: str
    at: datetime
    bytes: int = 0


def unused_tune_folders(entries: Sequence[Entry], driven: Collection[str], now: datetime) -> list[str]:
    """Tune's folders of studies that no driver works on: one that was killed left them."""
    return [entry.name for entry in entries if entry.name not in driven and now - entry.at > _UNUSED]


def old_sessions(entries: Sequence[Entry], latest: str | None, now: datetime) -> list[str]:
    """Ray's folders of earlier starts, but for the newest; without knowing the present one nothing is."""
    if latest is None:
        return []
    others = sorted((one for one in entries if one.name != latest), key=lambda one: one.at, reverse=True)
    return [one.name for one in others[_SESSIONS - 1 :] if now - one.at > _UNUSED]


def old_logs(entries: Sequence[Entry], active: Collection[str], now: datetime) -> list[str]:
    """The oldest logs of drivers whose studies are over, as far as all of them take too much."""
    over = sorted((one for one in entries if one.name.partition(".")[0] not in active), key=lambda one: one.at)
    total, found = sum(one.bytes for one in over), []
    for one in over:
        if total <= _LOG_BYTES:
            break
        if now - one.at > _UNUSED:
            found.append(one.name)
            total -= one.bytes
    return found


def unfinished_records(entries: Sequence[Entry], now: datetime) -> list[str]:
    """What was being written to take a record's place when its writer was killed."""
    return [entry.name for entry in entries if entry.name.startswith(".") and now - entry.at > _UNUSED]


class Leftovers:
    """Sweeps what is not about checkpoints: below `ray`, `logs` and `run` of the home."""

    def __init__(self, ray: Path, logs: Path, run: Path) -> None:
        self._ray = ray
        self._logs = logs / "drivers"
        self._run = run
        self._swept_at: datetime | None = None

    def sweep(self, driven: Collection[str], active: Collection[str], now: datetime) -> list[str]:
        """Now and then, delete what is unused; answers the studies whose folders of Tune were. Never raises OSError."""
        if self._swept_at is not None and now - self._swept_at < _EVERY:
            return []
        self._swept_at = now
        tune = self._ray / "tune"
        left = unused_tune_folders(_entries(tune), driven, now)
        sessions = [entry for entry in _entries(self._ray) if entry.name.startswith("session_") and entry.name != _LATEST]
        fits = self._ray / _LATEST / "artifacts"  # Tune makes folders there for each fit and attempt, and deletes none
        gone = [
            *(tune / name for name in left),
            *(
                fits / fit.name / name
                for fit in _entries(fits)
                for name in unused_tune_folders(_entries(fits / fit.name), driven, now)
            ),
            *(self._ray / name for name in old_sessions(sessions, _target(self._ray / _LATEST), now)),
            *(self._logs / name for name in old_logs(_entries(self._logs), active, now)),
            *(
                folder / name
                for folder in (self._run, self._run / "drivers")
                for name in unfinished_records(_entries(folder), now)
            ),
        ]
        for path in gone:
            _LOG.info("%s is not used any more: it is deleted", path)
            _delete(path)
            with suppress(OSError):  # there is more in it
                if path.parent.parent == fits:
                    path.parent.rmdir()
        return left


def _entries(folder: Path) -> list[Entry]:
    found = []
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.lstat()
                found.append(Entry(path.name, datetime.fromtimestamp(status.st_mtime, UTC), status.st_size))
    return found


def _target(link: Path) -> str | None:
    try:
        return link.readlink().name
    except OSError:
        return None


def _delete(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            remove(path)
        else:
            path.unlink()
