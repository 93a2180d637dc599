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

from service.analysis import pictures
from service.analysis.analyst import Analyst
from service.checkpoints.local import LocalCheckpointStore
from service.clock import SystemClock
from service.controller.allocation import Capacity
from service.controller.drivers import Drivers, driver_arguments
from service.controller.loop import Controller
from service.execution.environment import for_cluster, for_driver, reachable
from service.settings import Settings, write_private
from service.store.sql import open_store
from service.tracking.mirror import open_mirror

_LOG = logging.getLogger("tuneyard.controller")
_TURN_SECONDS = 0.5
_CAPACITY_SECONDS = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.daemon")
    parser.add_argument("--ray", required=True, help="address of the cluster's head")
    parser.add_argument("--mlflow", required=True, help="address of the tracking server")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings()
    layout = settings.layout
    store, checkpoints = open_store(settings.store_url), LocalCheckpointStore(layout.checkpoints)

    def command(study_id: str, slots: int) -> tuple[list[str], dict[str, str]]:
        return driver_arguments(study_id, slots, arguments.ray), dict(for_driver(layout.ray_token, slots))

    drivers = Drivers(layout.run, layout.logs, command)
    capacity = CapacityWatch(arguments.ray, for_cluster(layout.ray_token), layout.run / "capacity.json")
    controller = Controller(store, checkpoints, SystemClock(), drivers, capacity, prepared=layout.cache / "prepared")
    mirror = open_mirror(store, checkpoints, arguments.mlflow, pictures.begin, Analyst(store).begin)
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    threads = [
        threading.Thread(target=_repeat, args=(capacity.look, _CAPACITY_SECONDS, leaving), daemon=True),
        threading.Thread(target=_repeat, args=(mirror.sync_once, _TURN_SECONDS, leaving), daemon=True),
    ]
    for thread in threads:
        thread.start()
    _repeat(controller.turn, _TURN_SECONDS, leaving)
    drivers.stop_all()
    return 0


def _repeat(act: Callable[[], object], seconds: float, leaving: threading.Event) -> None:
    """Do it again and again; after a failure wait longer, up to half a minute."""
    pause = seconds
    while not leaving.is_set():
        try:
            act()
            pause = seconds
        except Exception:
            _LOG.exception("will try again in %.0f s", pause)
            pause = min(30.0, pause * 2)
        leaving.wait(pause)


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
            [sys.executable, "-m", "service.execution.capacity", self._ray_address],
            env={**os.environ, **self._environment},
            capture_output=True,
            check=False,
            timeout=60,
        )
        if answer.returncode:
            raise RuntimeError(f"Ray does not say what it holds:\n{answer.stderr.decode(errors='replace')[-2000:]}")
        return Capacity(**json.loads(answer.stdout.decode().splitlines()[-1]))


if __name__ == "__main__":
    sys.exit(main())
