"""The real service as a child process, for tests that need all of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from service.client import Client
from service.lifeline import end_with_parent
from tests.tiny import make_tiny_encoder, write_intents

_START_SECONDS = 150.0
_STOP_SECONDS = 120.0
_ANSWER_SECONDS = 60.0


class RunningService:
    """`tuneyard serve` with its own home, a model root with a tiny encoder, and leases short enough for tests."""

    def __init__(self, root: Path, **environment: str) -> None:
        self.home = root / "home"
        self.models = root / "models"
        self.rows = root / "rows"
        if not self.models.exists():
            self.models.mkdir(parents=True)
            self.rows.mkdir()
            make_tiny_encoder(self.models / "tiny")
            write_intents(self.rows)
        self._log = root / "serve.log"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TUNEYARD_")},
            "TUNEYARD_MODEL_ROOTS": json.dumps([str(self.models)]),
            "TUNEYARD_OFFLINE": "true",
            "TUNEYARD_CPUS": "2",
            "TUNEYARD_GPUS": "0",
            "TUNEYARD_LEASE_SECONDS": "4",
            "TUNEYARD_HEARTBEAT_SECONDS": "0.5",
            "TUNEYARD_STANDBY": "false",  # which most tests do not wait for, and pay for
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def model(self) -> str:
        """What a study calls the tiny encoder."""
        return str(self.models / "tiny")

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    @property
    def url(self) -> str:
        return str(json.loads((self.home / "run" / "service.json").read_text())["url"])

    def log(self) -> str:
        return self._log.read_text()

    def client(self) -> Client:
        return Client(self.url, self.token)

    def http(self) -> httpx.Client:
        """Requests as they are; it waits longer for an answer than httpx does by itself."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=_ANSWER_SECONDS)

    def start(self) -> "RunningService":
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "service.cli", "serve", "--home", str(self.home), "--port", "0"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
                # The workers of pytest-xdist are killed when the tests are interrupted, and stop nothing.
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no other thread is at work meanwhile
            )
        wait_until(lambda: self._is_announced() or self._process_ended(), _START_SECONDS, "the service did not start")
        assert self._is_announced(), self.log()
        return self

    def stop(self) -> int:
        """Ask it to leave; its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """End the process as a power cut would end it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def driver_pid(self, study_id: str) -> int:
        return int(json.loads((self.home / "run" / "drivers" / f"{study_id}.json").read_text())["pid"])

    def processes(self) -> list[psutil.Process]:
        """Every living process that names this home, in its arguments or in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                said = " ".join(process.cmdline()) + " ".join(process.environ().values())
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            if str(self.home) in said and lives(process) and process.pid != os.getpid():
                found.append(process)
        return found

    def _is_announced(self) -> bool:
        """Whether this very process, and not one that was killed before it, has written where it listens."""
        try:
            written = json.loads((self.home / "run" / "service.json").read_text())
        except FileNotFoundError:
            return False
        return self._process is not None and written["pid"] == self._process.pid

    def _process_ended(self) -> bool:
        return self._process is not None and self._process.poll() is not None


def arguments_of(process: psutil.Process) -> list[str]:
    """Its command line; nothing of one that is gone meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def lives(process: psutil.Process) -> bool:
    """Whether this very process still runs."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:  # gone meanwhile
        return False


def wait_until(happened: Callable[[], Any], seconds: float, otherwise: str, look_seconds: float = 0.05) -> None:
    """Return once it is so; fail when it is not in time. What costs to look at is looked at less often."""
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(look_seconds)
