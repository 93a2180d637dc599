"""The processes of a running service by their kinds, and how each kind is killed: as the kernel would, without a word."""

import contextlib
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import psutil

from tests.running import RunningService


class Kind(StrEnum):
    """What is killed. `ray` is a whole cluster, `serve` the supervisor alone, `everything` a power cut."""

    API = "api"
    CONTROLLER = "controller"
    DRIVER = "driver"
    WORKER = "worker"
    MLFLOW = "mlflow"
    RAYLET = "raylet"
    GCS = "gcs"
    RAY = "ray"
    SERVE = "serve"
    EVERYTHING = "everything"


ENDS_CLUSTER = frozenset({Kind.RAYLET, Kind.GCS, Kind.RAY, Kind.SERVE, Kind.EVERYTHING})
"""Kinds with which every driver and worker goes."""
ENDS_SERVICE = frozenset({Kind.SERVE, Kind.EVERYTHING})
"""Kinds after which `tuneyard serve` has to be started again."""

_MODULES = {
    "service.app": Kind.API,
    "service.daemon": Kind.CONTROLLER,
    "service.driver": Kind.DRIVER,
    "service.tracking.server": Kind.MLFLOW,
    "ray.scripts.scripts": Kind.RAY,
    "service.cli": Kind.SERVE,
}
_PROGRAMS = {"raylet": Kind.RAYLET, "gcs_server": Kind.GCS}
_WORKERS = ("ray::AttemptTrainable", "ray::ResourceTrainable")
"""What Ray calls a worker between two answers, and while it trains."""


@dataclass(frozen=True)
class Victim:
    """A living process of the service. `study` is what a driver drives."""

    kind: Kind
    process: psutil.Process
    study: str | None = None


def victims(service: RunningService) -> list[Victim]:
    """Every process of the service that has a kind."""
    found = []
    for process in service.processes():
        with contextlib.suppress(psutil.Error):
            victim = _victim(process, process.cmdline())
            if victim is not None:
                found.append(victim)
    return found


def of_kind(found: Iterable[Victim], kind: Kind) -> list[Victim]:
    """Those of one kind; for a power cut the supervisor stands for all of them."""
    wanted = Kind.SERVE if kind is Kind.EVERYTHING else kind
    return sorted((one for one in found if one.kind is wanted), key=lambda one: (one.study or "", one.process.pid))


def targets(service: RunningService, kind: Kind, victim: Victim) -> list[psutil.Process]:
    """All that dies with such a kill."""
    match kind:
        case Kind.EVERYTHING:
            return service.processes()
        case Kind.RAY | Kind.MLFLOW:
            return with_children(victim.process)
        case _:
            return [victim.process]


def send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    """A signal to each of them that still lives."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def kill(service: RunningService, kind: Kind, dying: Sequence[psutil.Process]) -> None:
    """Kill these, which were stopped before, so that nobody has time to notice that another one is gone."""
    send(dying, signal.SIGKILL)
    if kind is Kind.EVERYTHING:
        while left := service.processes():  # what was born meanwhile
            send(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=2)
    if kind in ENDS_SERVICE:
        service.kill()


def with_children(process: psutil.Process) -> list[psutil.Process]:
    """The process and all that it has started, directly or not."""
    with contextlib.suppress(psutil.Error):
        return [process, *process.children(recursive=True)]
    return []


def dependents(found: Sequence[Victim], kind: Kind, victim: Victim, workers: Mapping[int, str]) -> list[psutil.Process]:
    """Processes that must end soon once the victim is gone: what it started, its cluster, and the workers of a driver.

    `workers` says which study each worker last worked for. Drivers outlive the controller on purpose, but no cluster.
    """
    if kind in ENDS_SERVICE:
        return []  # looked after by the next start, which has to find everything gone
    drivers = [one for one in found if one.kind is Kind.DRIVER]
    owned = [one for one in with_children(victim.process) if one != victim.process]
    if kind is Kind.CONTROLLER:
        kept = {each.pid for one in drivers for each in with_children(one.process)}
        owned = [one for one in owned if one.pid not in kept]
    if kind is Kind.DRIVER:
        owned += [one.process for one in found if one.kind is Kind.WORKER and workers.get(one.process.pid) == victim.study]
    if kind in ENDS_CLUSTER:
        clusters = [one for one in found if one.kind is Kind.RAY]
        owned += [each for one in clusters for each in with_children(one.process)]
        owned += [one.process for one in drivers]
    return [one for one in dict.fromkeys(owned) if one.pid != victim.process.pid]


def _victim(process: psutil.Process, arguments: Sequence[str]) -> Victim | None:
    for place, argument in enumerate(arguments[:4]):
        kind = _MODULES.get(argument)
        if kind is not None and arguments[place - 1] == "-m":
            return Victim(kind, process, arguments[place + 1] if kind is Kind.DRIVER else None)
    if arguments and arguments[0].startswith(_WORKERS):
        return Victim(Kind.WORKER, process)
    program = arguments[0].rsplit("/", 1)[-1] if arguments else ""
    return Victim(_PROGRAMS[program], process) if program in _PROGRAMS else None
