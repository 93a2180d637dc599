"""One running study: holds its lease, replays the store, and lets Ray Tune run attempts until there is nothing left to do.

    python -m service.driver STUDY_ID --slots 2 --ray 127.0.0.1:6379

It can be killed at any moment: the controller starts another, which goes on from the store. Exit codes: 0 the study has ended
or the driver was told to leave; 3 the lease is another's; 4 the cluster is gone; 1 anything else.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from datetime import timedelta

from service.catalog.catalog import open_catalog
from service.catalog.pinning import pin
from service.checkpoints.local import LocalCheckpointStore
from service.clock import SystemClock
from service.domain.errors import LeaseLost, TuneyardError
from service.domain.ports import Store
from service.domain.study import StudyReason, StudyState
from service.domain.trial import Trial
from service.execution.assignment import Assignment, assign
from service.execution.environment import reachable
from service.execution.ledger import Ledger
from service.settings import Settings
from service.store.sql import open_store

_LOG = logging.getLogger("tuneyard.driver")
_FITS_WITHOUT_PROGRESS = 5


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.driver")
    parser.add_argument("study_id")
    parser.add_argument("--slots", type=int, required=True, help="attempts that may run at once")
    parser.add_argument("--ray", required=True, help="address of the cluster's head")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    settings = Settings()
    store = open_store(settings.store_url)
    owner = f"driver-{os.getpid()}-{time.time_ns()}"
    lease = _Lease(store, settings, arguments.study_id, owner)
    if not lease.take():
        _LOG.error("study %s is driven by another process", arguments.study_id)
        return 3
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    try:
        code = _drive(settings, store, lease, arguments.ray, arguments.slots, leaving)
    except LeaseLost:
        _LOG.exception("the lease is another's now")
        code = 3
    except Exception:
        _LOG.exception("the study cannot be driven")
        code = 1
    lease.give_back()
    _leave(code, "done")
    return code


def _drive(settings: Settings, store: Store, lease: "_Lease", address: str, slots: int, leaving: threading.Event) -> int:
    ledger = Ledger(store, SystemClock(), lease.study_id, lease.owner, slots)
    watch = threading.Thread(target=_watch, args=(settings, ledger, lease, address, leaving), daemon=True)
    watch.start()
    ledger.begin()
    if ledger.study.state is StudyState.RUNNING:
        _search(settings, ledger, address)
    if ledger.refresh().state is StudyState.STOPPING:
        study = ledger.finish()
        _LOG.info("study %s is %s: %s", study.id, study.state, study.reason)
    return 0


def _search(settings: Settings, ledger: Ledger, address: str) -> None:
    from service.execution import cluster  # noqa: PLC0415 - a study that is only to be ended needs no Ray
    from service.execution.searcher import open_ledger  # noqa: PLC0415

    study, layout = ledger.study, settings.layout
    checkpoints = LocalCheckpointStore(layout.checkpoints)
    prepared = layout.cache / "prepared" / study.id
    sources = pin(open_catalog(settings).fetch(study.definition), prepared / "rows")

    def assign_trial(trial: Trial) -> Assignment:
        if trial.parent is not None:  # nothing else starts meanwhile, so the parent has not gone on
            ledger.note_beginning(trial, checkpoints.fork(study.id, trial.parent, trial.number, trial.parent_report))
        return assign(study, trial, sources, layout.checkpoints, prepared / "texts")

    open_ledger(ledger, assign_trial)
    cluster.join(address)
    fruitless = 0
    while ledger.study.state is StudyState.RUNNING:
        before = ledger.history
        cluster.run_attempts(ledger, layout.ray / "tune" / study.id)
        ledger.refresh()
        fruitless = 0 if ledger.history != before else fruitless + 1
        if fruitless >= _FITS_WITHOUT_PROGRESS:
            raise RuntimeError("Ray Tune ends at once without having run anything")


class _Lease:
    """This process's claim on its study."""

    def __init__(self, store: Store, settings: Settings, study_id: str, owner: str) -> None:
        self._store = store
        self._lasting = timedelta(seconds=settings.lease_seconds)
        self._clock = SystemClock()
        self._lock = threading.Lock()
        self._given_back = False
        self.study_id = study_id
        self.owner = owner

    def take(self) -> bool:
        """Take or renew it; False when another process holds it."""
        with self._lock:
            if self._given_back:
                return True
            return self._store.leases.acquire(self.study_id, self.owner, self._clock.now(), self._lasting)

    def give_back(self) -> None:
        with self._lock, contextlib.suppress(Exception):  # it runs out by itself
            self._given_back = True
            self._store.leases.release(self.study_id, self.owner)


def _watch(settings: Settings, ledger: Ledger, lease: _Lease, address: str, leaving: threading.Event) -> None:
    """Keep the lease; end the process when it is lost, when the cluster is gone, or when the study is cancelled."""
    last_beat = time.monotonic()
    while True:
        if leaving.wait(settings.heartbeat_seconds):
            # At once, as if killed, but without making the next driver wait for the lease.
            lease.give_back()
            _leave(0, "told to")
        try:
            if not lease.take():
                _leave(3, "the lease is another's now")
            last_beat = time.monotonic()
            if not reachable(address) and not reachable(address):
                lease.give_back()
                _leave(4, "the Ray cluster is gone")
            study = ledger.refresh()
            if study.state is StudyState.STOPPING and study.reason is StudyReason.CANCEL_REQUESTED:
                ledger.finish()
                lease.give_back()
                _leave(0, f"study {study.id} is cancelled")  # Ray ends the workers of a driver that is gone
        except TuneyardError:
            _LOG.exception("cannot go on")
            _leave(1, "see above")
        except Exception:  # a database that is away comes back, or the lease runs out
            _LOG.exception("the store does not answer")
            if time.monotonic() - last_beat > settings.lease_seconds:
                _leave(1, "the store has not answered for as long as the lease lasts")


def _leave(code: int, why: str) -> None:
    _LOG.info("leaving: %s", why)
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
