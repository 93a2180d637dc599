"""Processes of our own that compute something and end: in time, or not at all."""

import logging
import os
import subprocess
import sys
from collections.abc import Sequence

from service.domain.errors import AnalysisFailed, AnalysisTimedOut

_LOG = logging.getLogger("tuneyard.analysis")
_LOG_TAIL = 2000


def run_module(module: str, arguments: Sequence[str], *, given: bytes, seconds: float, doing: str) -> bytes:
    """What a module prints when it is given these bytes. Raises AnalysisFailed, AnalysisTimedOut; `doing` says what it was at."""
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, input=given, capture_output=True, check=False, timeout=seconds, env=environment)  # noqa: S603 - ours
    except subprocess.TimeoutExpired:
        raise AnalysisTimedOut(f"{doing} was not done within {seconds:.0f} s: ask again when the machine is less busy.") from None
    if done.returncode:
        _LOG.warning("%s ended with code %d:\n%s", doing, done.returncode, done.stderr.decode(errors="replace")[-_LOG_TAIL:])
        raise AnalysisFailed(f"{doing} ended with code {done.returncode}; the service's log tells more. Ask again.")
    return done.stdout
