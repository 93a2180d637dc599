"""What runs and what the store says of it, where the two differ: what is found at a look, and when it is time to act on it. Pure.

A difference may be something in flight: a driver that has just started has no lease yet, and one that is about to leave still has
its process. So each kind of finding has to last for a while, look after look, before anything is done about it.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from service.domain.leadership import is_driver_elsewhere, is_driver_of
from service.domain.study import Study, StudyState

_DRIVEN = frozenset({StudyState.RUNNING, StudyState.PAUSING, StudyState.STOPPING, StudyState.QUEUED})
"""States in which a study may have a driver; a queued one while it starts."""


@dataclass(frozen=True)
class DeadLease:
    """A lease whose owner is a process that has ended."""

    study_id: str
    owner: str


@dataclass(frozen=True)
class OpenAttempts:
    """A study without a driver of which trials stand as running."""

    study_id: str


@dataclass(frozen=True)
class StrayDriver:
    """A driver of a study that has ended, is paused or is gone."""

    study_id: str
    pid: int


@dataclass(frozen=True)
class StrayWorker:
    """A worker while no driver lives, here or elsewhere, that it could work for."""

    pid: int


Finding = DeadLease | OpenAttempts | StrayDriver | StrayWorker


@dataclass(frozen=True)
class Graces:
    """How long a finding has to last. A process that has ended is no question of time: its lease is released at once."""

    dead_lease: timedelta = timedelta(0)
    open_attempts: timedelta = timedelta(seconds=30)
    stray: timedelta = timedelta(seconds=15)

    def of(self, finding: Finding) -> timedelta:
        """The grace of such a finding."""
        match finding:
            case DeadLease():
                return self.dead_lease
            case OpenAttempts():
                return self.open_attempts
            case StrayDriver() | StrayWorker():
                return self.stray


@dataclass(frozen=True)
class Processes:
    """Living processes of this home: the study of each driver by its number, and the numbers of workers."""

    drivers: Mapping[int, str] = field(default_factory=dict)
    workers: Collection[int] = ()


@dataclass(frozen=True)
class Surveyed:
    """One look. `studies` are those that have not ended, `leases` the owners of those that have not run out.

    `dead` are the numbers of recorded drivers that have ended, by study; `running` the studies with trials that stand as running.
    """

    studies: Mapping[str, Study]
    leases: Mapping[str, str]
    dead: Mapping[str, int]
    running: Collection[str] = ()
    processes: Processes = field(default_factory=Processes)
    home: str = ""
    """What this service is called: drivers of another one may have the same numbers."""


def findings(seen: Surveyed) -> list[Finding]:
    """Everything that differs now."""
    found: list[Finding] = []
    held = dict(seen.leases)
    for study_id, pid in seen.dead.items():
        owner = held.get(study_id)
        if owner is not None and is_driver_of(owner, seen.home, pid):
            found.append(DeadLease(study_id, owner))
            del held[study_id]
    driven = held.keys() | set(seen.processes.drivers.values())
    found += [OpenAttempts(study_id) for study_id in sorted(seen.running) if study_id not in driven]
    for pid, study_id in seen.processes.drivers.items():
        study = seen.studies.get(study_id)
        if study is None or study.state not in _DRIVEN:
            found.append(StrayDriver(study_id, pid))
    # On a cluster that several machines share they may work for a driver on another one.
    if not seen.processes.drivers and not any(is_driver_elsewhere(owner, seen.home) for owner in held.values()):
        found += [StrayWorker(pid) for pid in seen.processes.workers]
    return found


def due(
    found: Sequence[Finding], since: Mapping[Finding, datetime], now: datetime, graces: Graces
) -> tuple[list[Finding], Mapping[Finding, datetime]]:
    """The findings that have lasted long enough, and since when each of the others has been there."""
    seen_since = {finding: since.get(finding, now) for finding in found}
    ripe = [finding for finding, at in seen_since.items() if now - at >= graces.of(finding)]
    return ripe, {finding: at for finding, at in seen_since.items() if finding not in ripe}
