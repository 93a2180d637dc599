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
from service.controller.standby import Standby
from service.settings import write_private

_LOG = logging.getLogger("tuneyard.controller")
_LOG_TAIL_BYTES = 4000
_LOG_BYTES = 20 * 1024**2
_LEAVING_SECONDS = 5.0


@dataclass(frozen=True)
class _Record:
    pid: int
    created: float
    at: str
    reports: int
    fruitless: int


class Drivers:
    """Starts drivers and knows which of them live. `command` gives the arguments and environment of one."""

    def __init__(
        self,
        run: Path,
        logs: Path,
        command: Callable[[str], tuple[list[str], Mapping[str, str]]],
        standby: Standby | None = None,
    ) -> None:
        self._folder = run / "drivers"
        self._logs = logs / "drivers"
        self._command = command
        self._standby = standby
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def launched(self) -> Mapping[str, Launched]:
        """Every driver that was started and not forgotten."""
        self._reap()
        return {
            study_id: Launched(_lives(record), datetime.fromisoformat(record.at), record.fruitless)
            for study_id, record in self._records().items()
        }

    def start(self, study_id: str, now: datetime, reports: int) -> None:
        """Start a driver; `reports` is how many its study has, to tell later whether this launch got anywhere."""
        before = self._records().get(study_id)
        fruitless = before.fruitless + 1 if before and before.reports == reports else 0
        self._logs.mkdir(parents=True, exist_ok=True)
        if self.log(study_id).exists() and self.log(study_id).stat().st_size > _LOG_BYTES:
            self.log(study_id).replace(self.log(study_id).with_suffix(".log.1"))

        def record(child: subprocess.Popen[bytes]) -> None:
            self._children[child.pid] = child
            found = _Record(child.pid, _created(child.pid), now.isoformat(), reports, fruitless)
            try:
                write_private(self._folder / f"{study_id}.json", json.dumps(found.__dict__))
            except OSError:  # on a full disk: nobody would know of it, and start another one at the next turn
                child.kill()
                raise

        waiting = self._standby.take() if self._standby else None
        if waiting is not None:
            record(waiting.process)  # first: should this process die now, that one does, and is known to have
            if waiting.drive(study_id, self.log(study_id)):
                return
        record(self._spawn(study_id))

    def _spawn(self, study_id: str) -> subprocess.Popen[bytes]:
        arguments, environment = self._command(study_id)
        with self.log(study_id).open("ab") as log:
            return subprocess.Popen(  # noqa: S603 - our own interpreter and module
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # a signal to the controller's group is not one to its drivers
            )

    def forget(self, study_id: str) -> None:
        """The study has ended: drop what is known of its driver, once that has left."""
        record = self._records().get(study_id)
        if record is None or _lives(record):
            return
        with contextlib.suppress(FileNotFoundError):
            (self._folder / f"{study_id}.json").unlink()

    def known(self) -> frozenset[str]:
        """Ids of studies that have a record."""
        return frozenset(self._records())

    def dead(self) -> Mapping[str, int]:
        """The numbers of recorded drivers that have ended, by study."""
        self._reap()
        return {study_id: record.pid for study_id, record in self._records().items() if not _lives(record)}

    def by_process(self) -> Mapping[int, str]:
        """The study of each recorded driver that lives, by the driver's number."""
        return {record.pid: study_id for study_id, record in self._records().items() if _lives(record)}

    def log(self, study_id: str) -> Path:
        """Where the study's drivers write their log."""
        return self._logs / f"{study_id}.log"

    def log_tail(self, study_id: str) -> str:
        """The end of that log, in whole lines."""
        try:
            content = self.log(study_id).read_bytes()
        except FileNotFoundError:
            return ""
        tail = content[-_LOG_TAIL_BYTES:]
        return (tail if len(tail) == len(content) else tail[tail.find(b"\n") + 1 :]).decode(errors="replace")

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


def driver_arguments(study_id: str, ray_address: str) -> list[str]:
    """The command line of a driver."""
    return [sys.executable, "-m", "service.driver", study_id, f"--ray={ray_address}"]


def standby_arguments(ray_address: str) -> list[str]:
    """The command line of a driver that waits for its study."""
    return [sys.executable, "-m", "service.driver", "--standby", f"--ray={ray_address}"]
