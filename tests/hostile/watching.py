"""What an attack must leave as it was: memory, connections, threads and files; and what no process may be told."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from tests.running import RunningService, arguments_of, wait_until
from tests.walking import paths_below

_GROWTH_BYTES = 300 * 1024**2
"""Of the API process, over all attacks together."""
_PEAK_BYTES = 500 * 1024**2
"""Of the same while under one of them: one that gets through takes gigabytes, and the process may give them back after it."""
_FORGET_THE_PEAK = "5"
_MORE_DESCRIPTORS = 12
"""Connections to the database and to MLflow, which are kept."""
_MORE_THREADS = 48
"""Of the pool that routes run in, which never shrinks."""


def api_process(service: RunningService) -> psutil.Process:
    return next(one for one in service.processes() if "service.app" in arguments_of(one))


def peak_bytes(process: psutil.Process) -> int:
    """The most that it has taken since it was last asked."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    Path(f"/proc/{process.pid}/clear_refs").write_text(_FORGET_THE_PEAK)
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def files_outside(service: RunningService) -> frozenset[Path]:
    """Beside the home folder, and beside the temporary files of children that are at work."""
    root = service.home.parent
    ours = [service.home, root / "tmp", root / "serve.log"]
    return frozenset(path for path in paths_below(root) if not any(path.is_relative_to(one) for one in ours))


@dataclass(frozen=True)
class Footprint:
    """What the API process takes, and the files that were there before."""

    process: psutil.Process
    resident_bytes: int
    descriptors: int
    threads: int
    files: frozenset[Path]

    @staticmethod
    def of(service: RunningService) -> "Footprint":
        process = api_process(service)
        peak_bytes(process)
        return Footprint(
            process, process.memory_info().rss, process.num_fds(), process.num_threads(), files_outside(service)
        )  # fmt: skip

    def check(self, service: RunningService, connections: int = 0) -> None:
        """It is the same process, no larger than it may be, and nothing lies about. `connections` are still held open."""
        assert self.process.is_running(), "the API process ended"
        peak = peak_bytes(self.process) - self.resident_bytes
        assert peak < _PEAK_BYTES, f"the API process took {peak:,} bytes more meanwhile"
        grown = self.process.memory_info().rss - self.resident_bytes
        assert grown < _GROWTH_BYTES, f"the API process has grown by {grown:,} bytes"
        wait_until(
            lambda: self.process.num_fds() <= self.descriptors + _MORE_DESCRIPTORS + connections,
            60,
            f"{self.process.num_fds()} files are open, after {self.descriptors}",
        )
        assert self.process.num_threads() <= self.threads + _MORE_THREADS
        made = files_outside(service) - self.files
        assert not made, f"files were made outside the home folder: {sorted(made)}"


class Witness:
    """Writes down the command lines and the environments of all the service's processes, again and again."""

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.command_lines: set[str] = set()
        self.environments: dict[str, dict[str, str]] = {}
        """By the command line, of those that need no secret: Ray's, its workers', MLflow's."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._leaving.wait(0.5):
            for process in self._service.processes():
                try:
                    command, environment = " ".join(process.cmdline()), process.environ()
                except psutil.Error:
                    continue
                self.command_lines.add(command)
                if not command:  # it is about to become another program, of which the environment is known before the name
                    continue
                if not any(ours in command for ours in ("service.app", "service.daemon", "service.driver", "service.cli")):
                    self.environments[command] = environment
