"""The controller process: the reconciling loop, and beside it the thread that mirrors the store into MLflow.

python -m service.daemon --ray 127.0.0.1:6379 --mlflow http://127.0.0.1:5000/mlflow
"""

import argparse
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from service import lifeline
from service.analysis import pictures
from service.analysis.analyst import Analyst
from service.analysis.forecasts import Forecasts
from service.checkpoints.local import LocalCheckpointStore
from service.clock import SystemClock
from service.controller.allocation import Capacity, SharingRules
from service.controller.drivers import Drivers, driver_arguments, standby_arguments
from service.controller.leftovers import Leftovers
from service.controller.loop import Controller
from service.controller.repairs import Reconciler
from service.controller.standby import Standby
from service.controller.survey import ProcessTable
from service.domain.errors import StoreAway
from service.execution.environment import for_cluster, for_driver, reachable
from service.inherited import needed
from service.settings import Settings, write_private
from service.store.sql import open_store
from service.tracking.mirror import open_mirror

_LOG = logging.getLogger("tuneyard.controller")
_TURN_SECONDS = 0.5
_CAPACITY_SECONDS = 60.0
_FORECAST_SECONDS = 2.0
_SOON_SECONDS = 1.0
"""Pause after a first failure: a cluster that died while it was asked is there again within seconds."""
_LONGEST_SECONDS = 30.0
_AWAY_SECONDS = 5.0
"""Longest pause between two looks whether the database is back."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.daemon")
    parser.add_argument("--ray", required=True, help="address of the cluster's head")
    parser.add_argument("--mlflow", required=True, help="address of the tracking server")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings()
    layout = settings.layout
    store, checkpoints = open_store(settings.store_url), LocalCheckpointStore(layout.checkpoints)

    def command(study_id: str) -> tuple[list[str], dict[str, str]]:
        return driver_arguments(study_id, arguments.ray), dict(for_driver(layout.ray_token))

    standby = None
    if settings.standby:
        waiting = standby_arguments(arguments.ray), for_driver(layout.ray_token)
        standby = Standby(layout.logs / "standby.log", settings.idle_seconds, lambda: waiting)
    drivers = Drivers(layout.run, layout.logs, command, standby)
    capacity = CapacityWatch(arguments.ray, for_cluster(layout.ray_token), layout.run / "capacity.json")
    rules = SharingRules(
        quantum_seconds=settings.share_quantum_seconds,
        most_running=settings.max_running_studies,
        most_running_of_a_user=settings.max_running_studies_per_user,
        most_slots_of_a_user=settings.max_slots_per_user,
    )
    processes = ProcessTable(layout.root, layout.ray_token, drivers.by_process)
    leftovers = Leftovers(layout.ray, layout.logs, layout.run)
    reconciler = Reconciler(store, SystemClock(), processes, drivers.dead, sweep=leftovers.sweep)
    controller = Controller(
        store, checkpoints, SystemClock(), drivers, capacity, layout.cache / "prepared", rules, reconciler
    )  # fmt: skip
    mirror = open_mirror(store, checkpoints, arguments.mlflow, pictures.begin, Analyst(store).begin)
    forecasts = Forecasts(store, checkpoints, SystemClock())
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    threads = [
        threading.Thread(target=_repeat, args=(capacity.look, _CAPACITY_SECONDS, leaving), daemon=True),
        threading.Thread(target=_repeat, args=(mirror.sync_once, _TURN_SECONDS, leaving), daemon=True),
        threading.Thread(target=_repeat, args=(forecasts.watch, _FORECAST_SECONDS, leaving), daemon=True),
    ]
    for thread in threads:
        thread.start()

    def turn() -> None:
        controller.turn()
        if standby is not None:
            standby.tend(is_cluster_up=capacity() is not None)

    _repeat(turn, _TURN_SECONDS, leaving)
    if standby is not None:
        standby.stop()
    drivers.stop_all()
    return 0


def _repeat(act: Callable[[], object], seconds: float, leaving: threading.Event) -> None:
    """Do it again and again; after a failure soon, and later each time it fails again, up to half a minute."""
    soon, pause = min(seconds, _SOON_SECONDS), 0.0
    while not leaving.is_set():
        try:
            act()
            pause = 0.0
        except StoreAway as error:
            pause = min(_AWAY_SECONDS, pause * 2 or soon)
            _LOG.warning("the database is away (%s): will try again in %.1f s", error.cause, pause)
        except Exception:
            pause = min(_LONGEST_SECONDS, pause * 2 or soon)
            _LOG.exception("will try again in %.0f s", pause)
        leaving.wait(pause or seconds)


class CapacityWatch:
    """What the cluster holds, asked of a child process, as this one has no Ray. The API reads it from `path`."""

    def __init__(self, ray_address: str, environment: Mapping[str, str], path: Path) -> None:
        self._ray_address = ray_address
        self._environment = environment
        self._path = path
        self._capacity: Capacity | None = None

    def __call__(self) -> Capacity | None:
        """The last answer; None until the first, and while nothing listens at the cluster's address."""
        return self._capacity if self._capacity and reachable(self._ray_address) else None

    def look(self) -> None:
        """Ask again. Raises when the cluster does not answer; nothing starts then until it does."""
        try:
            self._capacity = self._ask()
        except Exception:
            self._capacity = None
            raise
        write_private(self._path, json.dumps(self._capacity.__dict__))

    def _ask(self) -> Capacity:
        answer = subprocess.run(  # noqa: S603 - our own interpreter and module
            lifeline.command("service.execution.capacity", [self._ray_address]),
            env={**needed(os.environ), **self._environment},
            capture_output=True,
            check=False,
            timeout=60,
        )
        if answer.returncode:
            raise RuntimeError(f"Ray does not say what it holds:\n{answer.stderr.decode(errors='replace')[-2000:]}")
        return Capacity(**json.loads(answer.stdout.decode().splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
