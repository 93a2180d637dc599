"""The driver processes on this machine. They outlive the controller, so what is known of them is on disk."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from service.controller.decide import Launched
from service.settings import write_private

_LOG = logging.getLogger("tuneyard.controller")
_LOG_TAIL_BYTES = 4000
_LEAVING_SECONDS = 5.0


@dataclass(frozen=True)
class _Record:
    pid: int
    created: float
    slots: int
    at: str
    reports: int
    fruitless: int


class Drivers:
    """Starts drivers and knows which of them live. `command` gives the arguments and environment of one."""

    def __init__(self, run: Path, logs: Path, command: Callable[[str, int], tuple[list[str], Mapping[str, str]]]) -> None:
        self._folder = run / "drivers"
        self._logs = logs / "drivers"
        self._command = command
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def launched(self) -> Mapping[str, Launched]:
        """Every driver that was started and not forgotten."""
        self._reap()
        return {
            study_id: Launched(_lives(record), record.slots, datetime.fromisoformat(record.at), record.fruitless)
            for study_id, record in self._records().items()
        }

    def start(self, study_id: str, slots: int, now: datetime, reports: int) -> None:
        """Start a driver; `reports` is how many its study has, to tell later whether this launch got anywhere."""
        before = self._records().get(study_id)
        fruitless = before.fruitless + 1 if before and before.reports == reports else 0
        self._logs.mkdir(parents=True, exist_ok=True)
        arguments, environment = self._command(study_id, slots)
        with self.log(study_id).open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # a signal to the controller's group is not one to its drivers
            )
        self._children[child.pid] = child
        record = _Record(child.pid, _created(child.pid), slots, now.isoformat(), reports, fruitless)
        write_private(self._folder / f"{study_id}.json", json.dumps(record.__dict__))

    def forget(self, study_id: str) -> None:
        """The study has ended: drop what is known of its driver."""
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{study_id}.json").unlink()

    def known(self) -> frozenset[str]:
        """Ids of studies that have a record."""
        return frozenset(self._records())

    def log(self, study_id: str) -> Path:
        """Where the study's drivers write their log."""
        return self._logs / f"{study_id}.log"

    def log_tail(self, study_id: str) -> str:
        """The end of that log."""
        try:
            return self.log(study_id).read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace")
        except FileNotFoundError:
            return ""

    def stop_all(self) -> None:
        """Ask every driver to leave, and end those that do not."""
        alive = [record for record in self._records().values() if _lives(record)]
        for record in alive:
            _signal(record, signal.SIGTERM)
        deadline = time.monotonic() + _LEAVING_SECONDS
        while any(_lives(record) for record in alive) and time.monotonic() < deadline:
            self._reap()
            time.sleep(0.05)
        for record in alive:
            if _lives(record):
                _signal(record, signal.SIGKILL)
        self._reap()
        for study_id in self.known():
            self.forget(study_id)

    def _records(self) -> dict[str, _Record]:
        found = {}
        for path in self._folder.glob("*.json") if self._folder.is_dir() else []:
            try:
                found[path.stem] = _read(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, TypeError) as error:
                # Left by a power cut. A driver that still lives holds its lease, so no second one is started.
                _LOG.warning("dropping the record %s, which cannot be read: %s", path, error)
                with contextlib.suppress(OSError):
                    path.unlink()
        return found

    def _reap(self) -> None:
        self._children = {pid: child for pid, child in self._children.items() if child.poll() is None}


def _read(path: Path) -> _Record:
    record = _Record(**json.loads(path.read_text()))
    datetime.fromisoformat(record.at)  # raises ValueError here, where it can be dealt with
    return record


def _created(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _lives(record: _Record) -> bool:
    """Whether this very process, and not a later one with its number, still runs."""
    try:
        process = psutil.Process(record.pid)
        return abs(process.create_time() - record.created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _signal(record: _Record, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, number)


def driver_arguments(study_id: str, slots: int, ray_address: str) -> list[str]:
    """The command line of a driver."""
    return [sys.executable, "-m", "service.driver", study_id, f"--slots={slots}", f"--ray={ray_address}"]
