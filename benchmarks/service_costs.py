"""What trials and reports cost a whole service, for `benchmarks.service`: processor time by process, and bytes by table.

Two studies of trials that train nothing, one with a report a trial and one with many. What a report costs is the difference
between both; what a trial costs is the rest.
"""

import argparse
import contextlib
import sqlite3
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from service.client import Client
from service.store.sql import open_store
from tests.running import RunningService, wait_until

Services = Callable[..., AbstractContextManager[tuple[RunningService, Client]]]

_MANY = 11
_LOOK_SECONDS = 0.1


def costs(asked: argparse.Namespace, a_service: Services) -> None:
    """Processor milliseconds of each process and bytes of each database, by trial and by report."""
    with a_service(TUNEYARD_STANDBY="false") as (service, client):
        files = {"store": service.home / "tuneyard.db", "MLflow": service.home / "mlflow" / "mlflow.db"}
        _run(service, client, trials=2, reports=_MANY)  # workers start, tables are made, caches fill
        sizes = [_sizes(files)]
        spent = []
        for reports in (1, _MANY):
            with _watched(service) as seconds:
                _run(service, client, trials=asked.trials, reports=reports)
            spent.append(dict(seconds))
            sizes.append(_sizes(files))
    _show("processor ms", [{name: 1000 * value for name, value in one.items()} for one in spent], asked.trials)
    grown = [{name: after[name] - before.get(name, 0) for name in after} for before, after in pairwise(sizes)]
    _show("bytes", grown, asked.trials)


def _show(what: str, of_both: list[dict[str, float]], trials: int) -> None:
    """A table of two studies' costs, the dearest first."""
    few, many = of_both
    rows = {}
    for name in {name for name in {*few, *many} if few.get(name) or many.get(name)}:
        report = (many.get(name, 0.0) - few.get(name, 0.0)) / (trials * (_MANY - 1))
        rows[name] = (few.get(name, 0.0) / trials - report, report)
    print(f"{what:42}{'a trial':>12}{'a report':>12}")
    shown = sorted(rows.items(), key=lambda row: -(row[1][0] + row[1][1] * _MANY))
    for name, (trial, report) in [*shown, ("all", tuple(map(sum, zip(*rows.values(), strict=True))))]:
        print(f"{name:42}{trial:12.1f}{report:12.2f}", flush=True)


def _run(service: RunningService, client: Client, trials: int, reports: int) -> None:
    """A study from its POST until it is mirrored."""
    store = open_store(f"sqlite:///{service.home}/tuneyard.db")
    study = client.wait(client.apply(_a_study(trials, reports)).id, timeout=3600)
    if study.trials != {"completed": trials}:
        raise SystemExit(f"the study is {study.state}, its trials {study.trials}: {study.detail}")
    wait_until(lambda: study.id not in store.mirror.behind(), 3600, "the mirror does not get there", look_seconds=0.5)


@contextmanager
def _watched(service: RunningService) -> Iterator[Mapping[str, float]]:
    """Processor seconds by the name of a process meanwhile, those that end on the way among them."""
    spent: defaultdict[str, float] = defaultdict(float)
    known = {process: _seconds(process) for process in service.processes()}
    over = threading.Event()

    def look() -> None:
        looked_for = time.monotonic()
        while not over.wait(_LOOK_SECONDS):
            if time.monotonic() - looked_for > 1:  # whom it has started meanwhile; this takes a while itself
                for process in service.processes():
                    known.setdefault(process, 0.0)
                looked_for = time.monotonic()
            count()

    def count() -> None:
        for process, before in list(known.items()):
            with contextlib.suppress(psutil.Error):
                known[process] = now = _seconds(process)
                spent[_name(process)] += now - before

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield spent
    finally:
        over.set()
        watching.join()
        count()


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _name(process: psutil.Process) -> str:
    """What a process is for."""
    arguments = process.cmdline()
    line = " ".join(arguments)
    if arguments and arguments[0].startswith("ray::"):
        return "workers"
    names = {
        "service.app": "API",
        "service.daemon": "controller, mirror",
        "service.tracking": "MLflow",
        "service.driver": "driver",
        "gcs_server": "Ray: GCS",
        "raylet": "Ray: raylet",
    }
    return next((name for word, name in names.items() if word in line), "others")


def _sizes(files: Mapping[str, Path]) -> dict[str, float]:
    """Bytes of each table with its indices."""
    found: defaultdict[str, float] = defaultdict(float)
    for name, path in files.items():
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
            tables = dict(database.execute("SELECT name, tbl_name FROM sqlite_schema WHERE type IN ('table', 'index')"))
            for part, size in database.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"):
                found[f"{name}: {tables.get(part, part)}"] += size
    return dict(found)


def _a_study(trials: int, reports: int) -> dict[str, Any]:
    axis = {"kind": "float", "low": 0.0, "high": 1.0}
    metrics = {"validation/loss": "(x - 0.3) ** 2 + 1 / epoch"}
    return {
        "name": "costs",
        "trainer": {"kind": "simulated", "metrics": metrics, "values": {"x": 0.5}, "epochs": reports},
        "space": {"values.x": axis},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": trials},
        "resources": {"max_concurrent_trials": 2},
    }
