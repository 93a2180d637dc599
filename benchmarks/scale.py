"""What many workers ask of store and controller: `python -m benchmarks.scale`.

The store, the controller and the studies' ledgers are the real ones; what is made up are the workers, which train nothing and
report every so many seconds, and Ray between them and the ledgers. Ledgers share a few processes, each of which does for its
studies what their drivers would: it keeps their leases, looks for their slots twice a second, and records what comes.

For each number of workers: reports a second that are due and that were recorded, how late they were recorded, how long a turn
of the controller took, and what the database grew by for each report. Late reports mean that there are too many workers for
this machine and this database.
"""

import argparse
import heapq
import multiprocessing
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

from service.checkpoints.local import LocalCheckpointStore
from service.clock import SystemClock
from service.controller.allocation import SharingRules
from service.controller.decide import Launched
from service.controller.loop import Controller
from service.controller.room import Capacity
from service.domain.definition import parse_definition
from service.domain.ports import Store
from service.domain.study import Study, new_study_id
from service.domain.trial import Report, Trial
from service.execution.assignment import Progress
from service.execution.ledger import Ledger
from service.store.sql import open_store
from service.store.versions import upgrade

_LEASE = timedelta(seconds=10)
_HEARTBEAT_SECONDS = 2.0
_POLL_SECONDS = 0.5
_TURN_SECONDS = 0.5
_EPOCHS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--studies", type=int, default=20, help="that share them (%(default)s)")
    parser.add_argument("--every", type=float, default=30.0, help="seconds from report to report of a worker (%(default)s)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each measurement, after as many of warming up")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that the ledgers share (%(default)s)")
    parser.add_argument("--database", help="SQLAlchemy URL of an empty database; left out, a SQLite file")
    asked = parser.parse_args()
    print(f"{asked.studies} studies, a report every {asked.every:g} s of each worker, {asked.processes} processes of ledgers")
    names = ("due/s", "done/s", "late p50", "late p99", "turn p50", "turn p99", "bytes/report")
    print(f"{'workers':>8}" + "".join(f"{name:>14}" for name in names))
    for workers in asked.workers:
        with tempfile.TemporaryDirectory(prefix="bench-") as root:
            _measure(workers, asked, Path(root))


def _measure(workers: int, asked: argparse.Namespace, root: Path) -> None:
    url = asked.database or f"sqlite:///{root / 'tuneyard.db'}"
    upgrade(url)
    store = open_store(url)
    studies = [_a_study(max(1, workers // asked.studies)) for _ in range(min(asked.studies, workers))]
    for study in studies:
        store.studies.add(study)
    drivers = _Drivers()
    rules = SharingRules(most_running=len(studies))
    checkpoints = LocalCheckpointStore(root / "checkpoints")
    capacity = Capacity(cpus=workers, gpus=0)
    controller = Controller(store, checkpoints, SystemClock(), drivers, lambda: capacity, root / "prepared", rules)
    controller.turn()  # every study gets a driver, and its slots
    context, answers = multiprocessing.get_context("spawn"), multiprocessing.get_context("spawn").SimpleQueue()
    begins = time.time() + 5
    ends = begins + 2 * asked.seconds
    mine = [[study.id for study in studies[at :: asked.processes]] for at in range(asked.processes)]
    children = [context.Process(target=_drive, args=(url, ids, asked.every, begins, ends, answers)) for ids in mine if ids]
    for child in children:
        child.start()
    turns: list[float] = []
    measured_from, size = begins + asked.seconds, 0
    while time.time() < ends:
        at = time.perf_counter()
        controller.turn()
        took = time.perf_counter() - at
        if time.time() >= measured_from:
            size = size or _size(root)
            turns.append(took)
        time.sleep(max(0.0, _TURN_SECONDS - took))
    grown = _size(root) - size
    late = sorted(seconds for _ in children for seconds in answers.get())
    for child in children:
        child.join()
    if not late:
        print(f"{workers:>8}  no report was recorded in {asked.seconds:g} s")
        return
    done = len(late) / asked.seconds
    turns.sort()
    milliseconds = [f"{1000 * value:.0f} ms" for value in (median(late), _p99(late), median(turns), _p99(turns))]
    row = [f"{workers / asked.every:.1f}", f"{done:.1f}", *milliseconds, f"{grown / len(late):.0f}"]
    print(f"{workers:>8}" + "".join(f"{value:>14}" for value in row))


class _Drivers:
    """Stands for the drivers' processes: all of them live, as the leases say."""

    def __init__(self) -> None:
        self._launched: dict[str, Launched] = {}

    def launched(self) -> Mapping[str, Launched]:
        return self._launched

    def start(self, study_id: str, now: datetime, reports: int) -> None:  # noqa: ARG002 - as the real one
        self._launched[study_id] = Launched(alive=True, at=now)

    def forget(self, study_id: str) -> None:
        self._launched.pop(study_id, None)

    def known(self) -> frozenset[str]:
        return frozenset(self._launched)

    def log_tail(self, study_id: str) -> str:  # noqa: ARG002 - as the real one
        return ""


@dataclass
class _Course:
    """One study in a process of ledgers, and when it is next looked after."""

    ledger: Ledger
    owner: str
    poll_at: float
    heartbeat_at: float
    running: set[int] = field(default_factory=set)


def _drive(url: str, ids: Sequence[str], every: float, begins: float, ends: float, answers: Any) -> None:
    """Be the drivers of these studies until `ends`, and answer how late each report of the second half was recorded."""
    store, clock = open_store(url), SystemClock()
    courses = [_begun(store, study_id, begins, at / len(ids)) for at, study_id in enumerate(ids)]
    due: list[tuple[float, int, int, Trial]] = []
    late: list[float] = []
    while (now := time.time()) < ends:
        for at, course in enumerate(courses):
            if now >= course.heartbeat_at:
                store.leases.acquire(course.ledger.study.id, course.owner, clock.now(), _LEASE)
                course.heartbeat_at += _HEARTBEAT_SECONDS
            if now >= course.poll_at:
                course.ledger.poll()
                course.poll_at += _POLL_SECONDS
                _start(course, at, due, every, now)
        while due and due[0][0] <= time.time():
            moment, at, number, trial = heapq.heappop(due)
            course = courses[at]
            goes_on = course.ledger.record(_report(trial, number, clock.now(), every))
            if moment >= (begins + ends) / 2:
                late.append(time.time() - moment)
            if goes_on and number < _EPOCHS:
                heapq.heappush(due, (moment + every, at, number + 1, trial))
            else:
                course.running.discard(trial.number)
                _start(course, at, due, every, time.time())
        time.sleep(0.01)
    answers.put(late)


def _begun(store: Store, study_id: str, begins: float, share: float) -> _Course:
    owner = f"bench-{os.getpid()}"
    store.leases.acquire(study_id, owner, datetime.now(UTC), _LEASE)
    ledger = Ledger(store, SystemClock(), study_id, owner)
    ledger.begin()
    return _Course(ledger, owner, poll_at=begins + share * _POLL_SECONDS, heartbeat_at=begins + share * _HEARTBEAT_SECONDS)


def _start(course: _Course, at: int, due: list[tuple[float, int, int, Trial]], every: float, now: float) -> None:
    """Let workers begin as many trials as there are slots; their reports are spread over the time between two."""
    while isinstance(trial := course.ledger.next(), Trial):
        course.running.add(trial.number)
        spread = every * ((trial.number * 0.618) % 1.0) if trial.number < course.ledger.slots else every
        heapq.heappush(due, (now + spread, at, 1, trial))


def _report(trial: Trial, number: int, at: datetime, seconds: float) -> Progress:
    loss = float(str(trial.parameters["values.rate"])) / number
    metrics = {"validation/loss": loss, "train/loss": loss, "train/learning_rate": 0.0}
    report = Report(number, float(number), number, metrics, seconds, trial.attempts, "bench:1", at)
    return Progress(trial.number, trial.attempts, "bench:1", [report], "done" if number >= _EPOCHS else None)


def _a_study(workers: int) -> Study:
    definition = parse_definition(
        {
            "name": "scale",
            "trainer": {"kind": "simulated", "metrics": {"validation/loss": "rate / epoch"}, "epochs": _EPOCHS},
            "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
            "objective": {"metric": "validation/loss", "direction": "minimize"},
            "strategy": {"kind": "random"},
            "budget": {"trials": 100_000},
            "resources": {"max_concurrent_trials": workers},
        }
    )
    return Study(id=new_study_id("scale"), definition=definition, created_at=datetime.now(UTC))


def _size(root: Path) -> int:
    """Bytes of a SQLite database with its journal; 0 for another one."""
    return sum(path.stat().st_size for path in root.glob("tuneyard.db*"))


def _p99(values: Sequence[float]) -> float:
    return values[min(len(values) - 1, int(0.99 * len(values)))]


if __name__ == "__main__":
    main()
