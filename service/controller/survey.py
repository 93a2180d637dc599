"""Which processes of this home live: looked for by what they run and by the home that they were given."""

import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from service.controller.reconcile import Processes

_DRIVER = "service.driver"
_RAY = "ray::"
_NO_WORKERS = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")


class ProcessTable:
    """The operating system's list of processes, as far as it concerns one home.

    `recorded` are drivers by their numbers: the command line of one that waited for its study does not name it.
    """

    def __init__(self, home: Path, ray_token: Path, recorded: Callable[[], Mapping[int, str]] = dict) -> None:
        self._recorded = recorded
        self._marks = {_DRIVER: ("TUNEYARD_HOME", str(home)), _RAY: ("RAY_AUTH_TOKEN_PATH", str(ray_token))}

    def look(self) -> Processes:
        """The drivers and workers that live now."""
        drivers: dict[int, str] = dict(self._recorded())
        workers: list[int] = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                arguments = process.cmdline()
                study_id = driven_by(arguments)
                if study_id is not None and self._is_ours(process, _DRIVER):
                    drivers[process.pid] = study_id
                elif _is_worker(arguments) and self._is_ours(process, _RAY):
                    workers.append(process.pid)
        return Processes(drivers, workers)

    def end(self, pid: int) -> None:
        """Kill one that `look` has just found; all that matters is in the store."""
        with suppress(psutil.Error):
            psutil.Process(pid).send_signal(signal.SIGKILL)

    def _is_ours(self, process: psutil.Process, kind: str) -> bool:
        name, value = self._marks[kind]
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(name) == value


def driven_by(arguments: Sequence[str]) -> str | None:
    """The study of the driver with this command line; None for one of anything else, as a user may look for drivers."""
    if _DRIVER not in arguments or not Path(arguments[0]).name.startswith("python"):
        return None
    named = next(iter(arguments[arguments.index(_DRIVER) + 1 :]), None)
    return None if named is None or named.startswith("--") else named


def _is_worker(arguments: Sequence[str]) -> bool:
    """Whether a process with this command line holds one of our actors: Ray names it after what it runs."""
    return bool(arguments) and arguments[0].startswith(_RAY) and not arguments[0].startswith(_NO_WORKERS)
