"""The right moment for a kill, found from outside.

The processes are stopped and looked at, and let go on where it was the wrong one.
"""

import os
import signal
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.chaos.journal import phase, read_journal
from tests.chaos.kills import send
from tests.chaos.schedule import Moment
from tests.walking import paths_below

_LOOK_SECONDS = 0.001
_PATIENCE_SECONDS = 5.0
_HELD_SECONDS = 0.1
"""A database that is still locked after this long is so by somebody who is stopped: all transactions are shorter."""
_BUSY = {"start", "training"}
_SAVING = {"save", "export"}


class Scene:
    """Where a service leaves traces of what it is at."""

    def __init__(self, home: Path, journal: Path) -> None:
        self._home = home
        self.journal = journal

    @property
    def store(self) -> Path:
        return self._home / "tuneyard.db"

    @property
    def checkpoints(self) -> Path:
        return self._home / "checkpoints"

    @property
    def mlflow(self) -> Path:
        return self._home / "mlflow" / "mlflow.db"

    def stop_at(self, moment: Moment, dying: Sequence[psutil.Process], workers: Sequence[int]) -> set[str]:
        """Stop them in that moment, or at last in any, and answer all that they were in the middle of.

        `workers` are the processes whose attempts end with this kill.
        """
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            self._await(moment, workers, deadline)
            send(dying, signal.SIGSTOP)
            found = self._in_the_middle_of(moment, workers)
            if moment is Moment.ANY or moment in found or time.monotonic() > deadline:
                return found
            send(dying, signal.SIGCONT)

    def _await(self, moment: Moment, workers: Sequence[int], deadline: float) -> None:
        """Return when something says that the moment may be now."""
        match moment:
            case Moment.ANY:
                return
            case Moment.SAVE:
                while not self._staging(workers) and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS)
            case Moment.STORE_WRITE | Moment.MIRROR_WRITE:
                database = self.store if moment is Moment.STORE_WRITE else self.mlflow
                before = _traces(database)
                while _traces(database) == before and time.monotonic() < deadline:
                    time.sleep(_LOOK_SECONDS)

    def _staging(self, workers: Sequence[int]) -> bool:
        """Whether one of these has a half-written checkpoint."""
        return any(int(path.suffix[1:]) in workers for path in paths_below(self.checkpoints) if path.match(".[re]*-*.*"))

    def _in_the_middle_of(self, moment: Moment, workers: Sequence[int]) -> set[str]:
        lines = read_journal(self.journal)
        phases = {phase(lines, pid) for pid in workers}
        found = {"attempt"} if phases & _BUSY else set()
        if phases & _SAVING:
            found |= {"attempt", Moment.SAVE.value}
        if moment is not Moment.SAVE:
            found |= {Moment.MIRROR_WRITE.value} if _is_locked(self.mlflow, 0.0) else set()  # nobody else writes there
            found |= {Moment.STORE_WRITE.value} if _is_locked(self.store, _HELD_SECONDS) else set()
        return found


def _traces(database: Path) -> tuple[tuple[int, int], ...]:
    """Sizes and times of a SQLite database's files."""
    found = []
    for suffix in ("", "-wal", "-journal"):
        try:
            stat = os.stat(f"{database}{suffix}")  # noqa: PTH116 - each look counts
        except FileNotFoundError:
            continue
        found.append((stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def _is_locked(database: Path, seconds: float) -> bool:
    """Whether somebody is in the middle of a transaction that writes, and is still so after these seconds."""
    if not database.exists():
        return False
    deadline = time.monotonic() + seconds
    while True:
        connection = sqlite3.connect(database, timeout=0, isolation_level=None)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                return True
            time.sleep(_LOOK_SECONDS)
        else:
            return False
        finally:
            connection.close()
