"""Child processes that end with their parent, however it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

from service.lifeline import end_with_parent
from service.settings import write_private

_LOG_BYTES = 20 * 1024**2


@dataclass
class Child:
    """A command that should run; `stop_seconds` is how long it may take to leave when asked.

    `environment` is added to what it has `inherited`, or to all of this process's environment.
    `orphaned` is the signal that it gets when its supervisor is killed, and nobody is left to see that it leaves.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    inherited: Mapping[str, str] | None = None
    pass_fds: Sequence[int] = ()
    stop_seconds: float = 10.0
    orphaned: signal.Signals = signal.SIGTERM
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0


class Children:
    """The children of a supervisor: started in order, started again when they end, stopped in reverse order.

    Their sessions are written down, so that the next supervisor can end what a killed one left.
    """

    def __init__(self, logs: Path, record: Path) -> None:
        self._logs = logs
        self._record = record
        self._children: list[Child] = []
        self._recorded: list[int] = []
        self._complained: set[str] = set()
        self.end_leftovers()

    def start(self, child: Child) -> None:
        """Start it and keep it running. Raises OSError where that cannot be done, as on a full disk."""
        self._children.append(child)
        self._spawn(child)
        self._write_down()

    def tend(self) -> None:
        """Start again what has ended, later each time it does so at once; what cannot be done now, at a later call."""
        for child in self._children:
            with self._complaining():
                self._tend(child)
        with self._complaining():
            self._write_down()

    def _tend(self, child: Child) -> None:
        if child.process is None or child.process.poll() is None:
            return
        _end_session(child.process.pid)
        lived = time.monotonic() - child.started
        child.failures = 0 if lived > 60 else child.failures + 1  # noqa: PLR2004 - a minute is not "at once"
        if lived < min(30.0, 2.0**child.failures - 1):
            child.failures -= 1  # not yet: counted again at the next look
            return
        self._spawn(child)

    @contextlib.contextmanager
    def _complaining(self) -> Iterator[None]:
        """The disk may be full, or the machine have no process left: that passes, and the service stays. Says so once."""
        try:
            yield
        except OSError as error:
            if str(error) not in self._complained:
                self._complained.add(str(error))
                with contextlib.suppress(OSError):  # which may be a file on the very disk that is full
                    sys.stderr.write(f"{error}: the service's processes are not all looked after until that is mended.\n")
                    sys.stderr.flush()

    def stop(self) -> None:
        """Ask each to leave, the last started first, and end those that do not."""
        for child in reversed(self._children):
            if child.process is None:
                continue
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.process.wait(child.stop_seconds)
            _end_session(child.process.pid)
            child.process.wait()
        self._children.clear()
        self._record.unlink(missing_ok=True)

    def log(self, name: str) -> Path:
        """Where a child writes."""
        return self._logs / f"{name}.log"

    def end_leftovers(self) -> None:
        """End the sessions that a supervisor left behind when it was killed."""
        try:
            sessions = json.loads(self._record.read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return
        for session in sessions:
            if _is_same(session["pid"], session["created"]):
                _end_session(session["pid"])
        self._record.unlink(missing_ok=True)

    def _spawn(self, child: Child) -> None:
        with self._open_log(child.name) as log:
            child.process = subprocess.Popen(  # noqa: S603 - our own commands
                child.arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**(os.environ if child.inherited is None else child.inherited), **child.environment},
                pass_fds=child.pass_fds,
                start_new_session=True,  # Ctrl-C goes to the supervisor, which stops them in order
                preexec_fn=lambda: end_with_parent(child.orphaned),  # noqa: PLW1509 - the supervisor has one thread
            )
        child.started = time.monotonic()

    def _write_down(self) -> None:
        running = [item.process.pid for item in self._children if item.process is not None]
        if running != self._recorded:
            write_private(self._record, json.dumps([{"pid": pid, "created": _created(pid)} for pid in running]))
            self._recorded = running

    def _open_log(self, name: str) -> IO[bytes]:
        self._logs.mkdir(parents=True, exist_ok=True)
        path = self.log(name)
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.replace(path.with_suffix(".log.1"))
        return path.open("ab")


def _end_session(leader: int) -> None:
    """Kill a child and all that it has started: Ray gives each of its workers a process group of its own, but no session."""
    for pid in psutil.pids():
        if _session(pid) == leader:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _created(pid: int) -> float:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.NoSuchProcess:
        return 0.0


def _is_same(pid: int, created: float) -> bool:
    """Whether a session is still the one that was written down; its leader may be gone while its members live."""
    try:
        return abs(psutil.Process(pid).create_time() - created) < 1
    except psutil.NoSuchProcess:
        # A number is not given to a new process while a session bears it.
        return any(_session(process.pid) == pid and process.create_time() > created - 1 for process in psutil.process_iter())


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
