"""A driver that waits for a study: its imports are done and it is in the cluster, so that the next study starts seconds sooner.

It costs memory, so it is let go when no study has come for a while. Its death never matters: then a driver starts as any other.
It ends with the controller: what it reads its study from is closed then.
"""

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

_LOG = logging.getLogger("tuneyard.controller")
_PAUSE_SECONDS = 15.0
"""After a study got a driver, or one that waited has gone, before the next one starts: the study needs the processors first."""
_LEAVING_SECONDS = 2.0
_LOG_BYTES = 1024**2


@dataclass
class Waiting:
    """The process that waits, and the line to it."""

    process: subprocess.Popen[bytes]
    line: socket.socket
    is_ready: bool = False

    def look(self) -> bool:
        """Whether it waits for a study by now: it says so once it is in the cluster."""
        if not self.is_ready:
            with contextlib.suppress(OSError):  # it has not said so yet, or is gone
                self.is_ready = bool(self.line.recv(64))
        return self.is_ready and self.process.poll() is None

    def drive(self, study_id: str, log: Path) -> bool:
        """Give it a study, and the log to write to; False when it has just died."""
        try:
            self.line.sendall(json.dumps({"study": study_id, "log": str(log)}).encode() + b"\n")
        except OSError:
            return False
        finally:
            self.line.close()
        return True


class Standby:
    """Keeps one driver waiting. `command` gives the arguments and the environment of one. Not thread-safe."""

    def __init__(
        self,
        log: Path,
        idle_seconds: float,
        command: Callable[[], tuple[list[str], Mapping[str, str]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._idle_seconds = idle_seconds
        self._command = command
        self._clock = clock
        self._waiting: Waiting | None = None
        self._used_at = clock()
        self._not_before = clock()

    def tend(self, *, is_cluster_up: bool) -> None:
        """Start a driver where none waits, and let it go when no study has come for long. Raises nothing when none can start."""
        now = self._clock()
        if self._waiting is not None and self._waiting.process.poll() is not None:
            self._let_go(now)
        if now - self._used_at > self._idle_seconds:
            self._let_go(now)
        elif self._waiting is None and is_cluster_up and now >= self._not_before:
            try:
                self._waiting = self._start()
            except OSError as error:
                self._not_before = now + _PAUSE_SECONDS
                _LOG.warning("no driver waits for the next study, which will take longer to begin: %s", error)

    def take(self) -> Waiting | None:
        """The driver that waits, which is the caller's from now on; None when none does."""
        self._used_at = now = self._clock()
        self._not_before = now + _PAUSE_SECONDS
        if self._waiting is None or not self._waiting.look():
            return None
        taken, self._waiting = self._waiting, None
        return taken

    def stop(self) -> None:
        """Let it go for good."""
        self._let_go(self._clock())
        self._used_at = float("-inf")

    def _start(self) -> Waiting:
        arguments, environment = self._command()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        is_long = self._log.exists() and self._log.stat().st_size > _LOG_BYTES
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            with theirs, self._log.open("wb" if is_long else "ab") as log:
                process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    arguments,
                    stdin=theirs.fileno(),
                    stdout=log,
                    stderr=log,
                    env={**os.environ, **environment},
                    start_new_session=True,
                )
        except OSError:
            ours.close()
            raise
        return Waiting(process, ours)

    def _let_go(self, now: float) -> None:
        if self._waiting is None:
            return
        waiting, self._waiting, self._not_before = self._waiting, None, now + _PAUSE_SECONDS
        waiting.line.close()
        if waiting.process.poll() is None:
            _LOG.info("the driver that waited for a study is let go")
            waiting.process.send_signal(signal.SIGTERM)
        try:
            waiting.process.wait(_LEAVING_SECONDS)
        except subprocess.TimeoutExpired:
            waiting.process.kill()
            waiting.process.wait()
