"""A driver's wait for its study, with all done that takes long and needs no study: the imports, and joining the cluster."""

import json
import logging
import os
import sys
import threading

from service.execution.environment import reachable

_LOG = logging.getLogger("tuneyard.driver")
_LOOK_SECONDS = 2.0
_SOCKET = 0
"""Standard input is one end of a pair of sockets; the controller has the other."""


def wait_for_study(address: str) -> str | None:
    """Get ready, say so, and answer the study that the controller names; None once it is gone, or wants no driver any more.

    From then on this process writes to the study's log. It ends when the cluster does.
    """
    done = threading.Event()
    threading.Thread(target=_end_with_cluster, args=(address, done), daemon=True).start()
    from service.execution import cluster, searcher  # noqa: F401, PLC0415 - slow, which is what this process is for

    cluster.join(address)
    _LOG.info("waiting for a study")
    try:
        os.write(_SOCKET, b"ready\n")
        line = sys.stdin.readline()
    except OSError:
        line = ""
    done.set()
    if not line:
        return None
    asked = json.loads(line)
    log = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    return str(asked["study"])


def _end_with_cluster(address: str, done: threading.Event) -> None:
    while not done.wait(_LOOK_SECONDS):
        if not reachable(address) and not reachable(address):
            os._exit(4)
