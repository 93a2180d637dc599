"""The demo's own service: a child process that is started, waited for and always stopped."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from service.client.address import service_file
from service.demo.errors import DemoFailed

USUAL_PORT = 8080
START_SECONDS = 150.0
STOP_SECONDS = 75.0
_KEPT = frozenset({"TUNEYARD_OFFLINE", "TUNEYARD_MODEL_ROOTS", "TUNEYARD_CPUS", "TUNEYARD_GPUS"})


def child_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for the demo's processes: settings meant for another service are left out."""
    return {name: value for name, value in environment.items() if not name.startswith("TUNEYARD_") or name in _KEPT}


def serve_command(home: Path, port: int) -> list[str]:
    """The command line that runs the service."""
    return [sys.executable, "-m", "service.cli", "serve", "--home", str(home), "--host", "127.0.0.1", "--port", str(port)]


def pick_port(usual: int = USUAL_PORT) -> int:
    """The usual port where it is free, else 0: the service then takes any."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", usual))
        except OSError:
            return 0
    return usual


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A child in a session of its own, so that a Ctrl-C reaches it only through us; stopped at the end, whatever happens."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=child_environment(),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        stop(process)


def wait_until_ready(
    process: subprocess.Popen[bytes], home: Path, *, tick: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> str:
    """The service's address, once it answers; raises `DemoFailed` when it ends or takes too long."""
    end = clock() + START_SECONDS
    while clock() < end:
        if process.poll() is not None:
            raise DemoFailed(f"the service ended with code {process.returncode} while it started")
        url = announced(home, process.pid)
        if url:
            return url
        tick()
    raise DemoFailed(f"the service did not answer within {START_SECONDS:g} s")


def announced(home: Path, pid: int) -> str | None:
    """The address that this very process wrote down; an older one's is not meant."""
    try:
        written = json.loads(service_file(home).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return str(written["url"]) if isinstance(written, dict) and written.get("pid") == pid and "url" in written else None


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask a child to leave; end it and its group when it does not. A second Ctrl-C meanwhile ends it at once."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            process.wait(STOP_SECONDS)
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(log: Path, lines: int = 25) -> str:
    """The end of a log, for a person who has to find out what went wrong."""
    try:
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
