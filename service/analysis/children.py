"""Processes of our own that compute something and end: in time, or not at all."""

import logging
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from service import lifeline
from service.domain.errors import AnalysisFailed, AnalysisTimedOut, NotReady
from service.inherited import needed

_LOG = logging.getLogger("tuneyard.analysis")
_LOG_TAIL = 2000
_WAITING = 8
"""Callers that may wait for another's child, such as a page that shows all figures: more would hold the API's threads."""
_WAIT_SECONDS = 20.0


class Turn:
    """The right to start a child: one caller has it at a time. `done` is what children do to studies, such as `analysed`.

    `wait_seconds` is how long a caller waits for another's child.
    """

    def __init__(self, done: str, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._done = done
        self._wait_seconds = wait_seconds
        self._at_work = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_WAITING)

    @contextmanager
    def soon(self) -> Iterator[None]:
        """Have it, or raise NotReady when others have it for too long."""
        if not self._waiting.acquire(blocking=False):
            raise NotReady(f"Other studies are being {self._done}: ask again in a few seconds.")
        try:
            if not self._at_work.acquire(timeout=self._wait_seconds):
                raise NotReady(f"Another study is being {self._done}: ask again in a few seconds.")
            try:
                yield
            finally:
                self._at_work.release()
        finally:
            self._waiting.release()

    @contextmanager
    def at_last(self) -> Iterator[None]:
        """Have it, however long others do: for the background."""
        with self._at_work:
            yield


def run_module(module: str, arguments: Sequence[str], *, given: bytes, seconds: float, doing: str) -> bytes:
    """What a module prints when it is given these bytes. Raises AnalysisFailed, AnalysisTimedOut; `doing` says what it was at."""
    command = lifeline.command(module, arguments)
    environment = {**needed(os.environ), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=seconds, env=environment)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        raise AnalysisTimedOut(f"{doing} was not done within {seconds:.0f} s: ask again when the machine is less busy.") from None
    if done.returncode:
        _LOG.warning("%s ended with code %d:\n%s", doing, done.returncode, done.stderr.decode(errors="replace")[-_LOG_TAIL:])
        raise AnalysisFailed(f"{doing} ended with code {done.returncode}; the service's log tells more. Ask again.")
    return done.stdout
