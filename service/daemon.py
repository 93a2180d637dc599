"""The controller process: the reconciling loop, and beside it the thread that mirrors the store into MLflow.

Of several that use one database one leads. Exit code 3: it led, and does not any more; it is to be started again.

    python -m service.daemon --ray 127.0.0.1:6379 --mlflow http://127.0.0.1:5000/mlflow
"""

import argparse
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, cast

from service import lifeline
from service.analysis import pictures
from service.analysis.analyst import Analyst
from service.analysis.forecasts import Forecasts
from service.catalog.catalog import open_datasets
from service.checkpoints.opening import open_checkpoints, quick_storage
from service.clock import SystemClock
from service.controller.allocation import SharingRules
from service.controller.capacity import Asks, Bundles, CapacityWatch, Demand
from service.controller.drivers import Drivers, driver_arguments, standby_arguments
from service.controller.following import Follower
from service.controller.leadership import Claim, Leadership
from service.controller.leftovers import Leftovers
from service.controller.loop import Controller, DriverProcesses
from service.controller.quotas import ProjectQuotas
from service.controller.repairs import ProcessList, Reconciler, Sweep
from service.controller.room import Capacity
from service.controller.standby import Standby
from service.controller.survey import ProcessTable
from service.domain.errors import LeadershipLost, StoreAway
from service.domain.leadership import controller_name
from service.domain.ports import Store
from service.execution.environment import for_cluster, for_driver, reachable
from service.inherited import needed
from service.settings import Settings, service_name
from service.store.sql import open_store
from service.tracking.mirror import open_mirror
from service.tracking.mlflow import MlflowTracker
from service.tracking.tracker import Tracker

if TYPE_CHECKING:
    from service.checkpoints.storage import Storage

_LOG = logging.getLogger("tuneyard.controller")
_TURN_SECONDS = 0.5
_CAPACITY_SECONDS = 60.0
_FORECAST_SECONDS = 2.0
_SOON_SECONDS = 1.0
"""Pause after a first failure: a cluster that died while it was asked is there again within seconds."""
_LONGEST_SECONDS = 30.0
_NO_LEADER = 3
_AWAY_SECONDS = 5.0
"""Longest pause between two looks whether the database is back."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.daemon")
    parser.add_argument("--ray", required=True, help="address of the cluster's head")
    parser.add_argument("--mlflow", required=True, help="address of the tracking server")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings()
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    home, clock = service_name(settings.layout), SystemClock()
    claim = Claim(controller_name(home, os.getpid(), time.time_ns()), home, settings.lease_seconds, settings.heartbeat_seconds)
    store = open_store(settings.store_url, leader=claim.owner)
    leadership = Leadership(store.leadership, clock, claim, _leave)
    _work(settings, arguments, store, leadership, home, leaving)
    return 0


def _work(
    settings: Settings, arguments: argparse.Namespace, store: Store, leadership: Leadership, home: str, leaving: threading.Event
) -> None:
    """Lead while this process has the lead, else look after this machine, until it is told to leave."""
    layout, clock, storage = settings.layout, SystemClock(), quick_storage(settings)
    standby = _a_standby(settings, arguments.ray)
    drivers = Drivers(
        layout.run, layout.logs, lambda it: (driver_arguments(it, arguments.ray), for_driver(layout.ray_token)), standby
    )
    # A Ray of our own has what this machine has.
    rules, quotas = _rules(settings), ProjectQuotas(store.projects, open_datasets(settings))
    demand = Demand(store, clock, rules, quotas) if settings.ray_address else None
    ask = _asking(arguments.ray, for_cluster(layout.ray_token))
    capacity = CapacityWatch(ask, lambda: reachable(arguments.ray), layout.run / "capacity.json", demand)
    leftovers = Leftovers(layout.ray, layout.logs, layout.run)
    sweep = leftovers.sweep if storage is None else _with_sources(storage, leadership, leftovers.sweep)
    # The store refuses by itself what a controller writes that does not lead.
    processes = leadership.guarded(cast("ProcessList", ProcessTable(layout.root, layout.ray_token, drivers.by_process)))
    reconciler = Reconciler(store, clock, processes, drivers.dead, sweep=sweep, home=home)
    checkpoints = leadership.guarded(open_checkpoints(settings, storage))
    tracker = leadership.guarded(cast("Tracker", MlflowTracker(arguments.mlflow)))
    prepared = layout.cache / "prepared"
    led_drivers = leadership.guarded(cast("DriverProcesses", drivers))
    controller = Controller(store, checkpoints, clock, led_drivers, capacity, prepared, rules, reconciler, quotas)
    mirror = open_mirror(store, checkpoints, tracker, pictures.begin, Analyst(store).begin)
    forecasts = Forecasts(store, checkpoints, clock)
    follower = Follower(store, clock, drivers, prepared, leftovers.sweep)

    def turn() -> None:
        if not leadership.is_held():
            follower.turn()
            return
        controller.turn()
        if standby is not None:
            standby.tend(is_cluster_up=capacity() is not None)

    def led(act: Callable[[], object]) -> Callable[[], object]:
        return lambda: act() if leadership.is_held() else None

    for act, seconds in (
        (leadership.keep, min(_TURN_SECONDS, settings.heartbeat_seconds)),
        (capacity.look, _CAPACITY_SECONDS),
        (led(mirror.sync_once), _TURN_SECONDS),
        (led(forecasts.watch), _FORECAST_SECONDS),
    ):
        threading.Thread(target=_repeat, args=(act, seconds, leaving), daemon=True).start()
    _repeat(turn, _TURN_SECONDS, leaving)
    if standby is not None:
        standby.stop()
    if leadership.was_taken:  # before another one leads, which asks for room of its own
        capacity.withdraw()
    with contextlib.suppress(StoreAway):  # it runs out by itself
        leadership.give_back()
    drivers.stop_all()


def _a_standby(settings: Settings, ray_address: str) -> Standby | None:
    layout = settings.layout
    if not settings.standby:
        return None
    waiting = standby_arguments(ray_address), for_driver(layout.ray_token)
    return Standby(layout.logs / "standby.log", settings.idle_seconds, lambda: waiting)


def _rules(settings: Settings) -> SharingRules:
    return SharingRules(
        quantum_seconds=settings.share_quantum_seconds,
        most_running=settings.max_running_studies,
        most_running_of_a_user=settings.max_running_studies_per_user,
        most_slots_of_a_user=settings.max_slots_per_user,
    )


def _leave(why: str) -> None:
    """End this process at once, whatever its threads are at; its drivers go on."""
    _LOG.warning("leaving: %s", why)
    logging.shutdown()
    os._exit(_NO_LEADER)


def _with_sources(storage: "Storage", leadership: Leadership, sweep: Sweep) -> Sweep:
    """Sweep the rows and models in storage too, that no study needs which goes on, while this controller leads."""
    from service.checkpoints.shared_sources import SourceSweep  # noqa: PLC0415 - see `opening`

    sources = SourceSweep(leadership.guarded(storage))

    def sweep_both(driven: Collection[str], active: Collection[str], now: datetime) -> Sequence[str]:
        sources.sweep(active, now)
        return sweep(driven, active, now)

    return sweep_both


def _repeat(act: Callable[[], object], seconds: float, leaving: threading.Event) -> None:
    """Do it again and again; after a failure soon, and later each time it fails again, up to half a minute."""
    soon, pause = min(seconds, _SOON_SECONDS), 0.0
    while not leaving.is_set():
        try:
            act()
            pause = 0.0
        except LeadershipLost as error:
            _LOG.info("%s", error.detail)
        except StoreAway as error:
            pause = min(_AWAY_SECONDS, pause * 2 or soon)
            _LOG.warning("the database is away (%s): will try again in %.1f s", error.cause, pause)
        except Exception:
            pause = min(_LONGEST_SECONDS, pause * 2 or soon)
            _LOG.exception("will try again in %.0f s", pause)
        leaving.wait(pause or seconds)


def _asking(ray_address: str, environment: Mapping[str, str]) -> Asks:
    """Ask a child process, as this one has no Ray."""

    def ask(bundles: Bundles | None, timeout_seconds: float) -> Capacity:
        demand = [] if bundles is None else [json.dumps(bundles)]
        answer = subprocess.run(  # noqa: S603 - our own interpreter and module
            lifeline.command("service.execution.capacity", [ray_address, *demand]),
            env={**needed(os.environ), **environment},
            capture_output=True,
            check=False,
            timeout=timeout_seconds,
        )
        if answer.returncode:
            raise RuntimeError(f"Ray does not say what it holds:\n{answer.stderr.decode(errors='replace')[-2000:]}")
        return Capacity.of(json.loads(answer.stdout.decode().splitlines()[-1]))

    return ask


if __name__ == "__main__":
    sys.exit(main())
