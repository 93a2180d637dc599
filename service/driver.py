"""One running study: holds its lease, replays the store, and lets Ray Tune run attempts until there is nothing left to do.

    python -m service.driver STUDY_ID --ray 127.0.0.1:6379
    python -m service.driver --standby --ray 127.0.0.1:6379

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
from typing import TYPE_CHECKING

from service.catalog.catalog import open_catalog
from service.catalog.pinning import pin
from service.checkpoints.opening import open_checkpoints, patient_storage, quick_storage
from service.checkpoints.space import is_full, refusal
from service.clock import SystemClock
from service.domain.errors import LeaseLost, StorageAway, StoreAway
from service.domain.leadership import driver_name
from service.domain.ports import LocalSources, SharedSources, Store
from service.domain.study import Study, StudyState
from service.domain.trial import Trial
from service.execution.assignment import Assignment, assign, assign_afar
from service.execution.environment import reachable
from service.execution.interruption import Sign, SignAfar, Wish, wish_of
from service.execution.ledger import Ledger
from service.execution.standby import wait_for_study
from service.settings import Settings, service_name
from service.store.patience import insist, patient
from service.store.sql import open_store

if TYPE_CHECKING:
    from service.checkpoints.storage import Storage

_LOG = logging.getLogger("tuneyard.driver")
_FITS_WITHOUT_PROGRESS = 5
_POLL_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_CANCEL_SECONDS = 5.0
"""For the trials of a cancelled study to leave by themselves, before their processes are killed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.driver")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("study_id", nargs="?")
    which.add_argument("--standby", action="store_true", help="get ready, and wait for a study on standard input")
    parser.add_argument("--ray", required=True, help="address of the cluster's head")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    os.nice(5)  # many that start at once do not keep the API's clients waiting; what trains comes after it, at 15
    study_id = wait_for_study(arguments.ray) if arguments.standby else arguments.study_id
    if study_id is None:
        _leave(0, "no study came")
        return 0
    settings = Settings()
    store = open_store(settings.store_url)
    owner = driver_name(service_name(settings.layout), os.getpid(), time.time_ns())
    lease = _Lease(store, settings, study_id, owner)
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())

    def wait(seconds: float) -> None:
        if leaving.wait(seconds):
            _leave(0, "told to, while the database is away")

    if not insist(lease.take, wait):
        _LOG.error("study %s is driven by another process", study_id)
        return 3
    try:
        code = _drive(settings, patient(store, wait, lease.retake), lease, arguments.ray, leaving)
    except LeaseLost:
        _LOG.exception("the lease is another's now")
        code = 3
    except Exception:
        _LOG.exception("the study cannot be driven")
        code = 1
    lease.give_back()
    _leave(code, "done")
    return code


def _drive(settings: Settings, store: Store, lease: "_Lease", address: str, leaving: threading.Event) -> int:
    ledger = Ledger(store, SystemClock(), lease.study_id, lease.owner)
    sign = _open_sign(settings, lease.study_id)
    watch = threading.Thread(target=_watch, args=(settings, ledger, lease, address, leaving, sign), daemon=True)
    watch.start()
    folders = open_checkpoints(settings, patient_storage(settings))
    ledger.begin(lambda trial: folders.can_resume(trial.study_id, trial.number))
    while True:
        if ledger.study.state is StudyState.RUNNING:
            _search(settings, ledger, address)
        match ledger.refresh().state:
            case StudyState.STOPPING:
                ledger.finish()
            case StudyState.PAUSING:
                ledger.pause()
        _show(sign, ledger.study)
        if ledger.study.state is not StudyState.RUNNING:  # it was resumed on its way to the pause
            _LOG.info("study %s is %s: %s", ledger.study.id, ledger.study.state, ledger.study.reason)
            return 0


def _search(settings: Settings, ledger: Ledger, address: str) -> None:
    from service.execution import cluster  # noqa: PLC0415 - a study that is only to be ended needs no Ray
    from service.execution.searcher import open_ledger  # noqa: PLC0415

    study, layout = ledger.study, settings.layout
    storage = patient_storage(settings)
    checkpoints = open_checkpoints(settings, storage)
    prepared = layout.cache / "prepared" / study.id
    try:
        sources = pin(open_catalog(settings).of(study.project).fetch(study.definition), prepared / "rows")
    except Exception as error:
        if not is_full(error):
            raise
        ledger.lack_room(refusal(layout.checkpoints / study.id, error, layout.cache).detail)
        return
    shared = None if storage is None else _published(storage, ledger, sources)
    if storage is not None and shared is None:
        return

    def assign_trial(trial: Trial) -> Assignment:
        if trial.parent is not None:  # nothing else starts meanwhile, so the parent has not gone on
            ledger.note_beginning(trial, checkpoints.fork(study.id, trial.parent, trial.number, trial.parent_report))
        if storage is not None and shared is not None:
            return assign_afar(ledger.study, trial, shared, storage.url)
        return assign(ledger.study, trial, sources, layout.checkpoints, prepared / "texts")

    open_ledger(ledger, assign_trial)
    cluster.join(address)
    fruitless = 0
    while ledger.study.state is StudyState.RUNNING:
        barred = ledger.place()
        if ledger.is_held():  # never inside Tune, which would hold on to its workers
            time.sleep(_POLL_SECONDS)
            ledger.poll()
            continue
        before = ledger.history
        cluster.run_attempts(ledger, layout.ray / "tune" / study.id, barred)
        ledger.refresh()
        fruitless = 0 if ledger.is_held() or ledger.history != before else fruitless + 1
        if fruitless >= _FITS_WITHOUT_PROGRESS:
            raise RuntimeError("Ray Tune ends at once without having run anything")


def _published(storage: "Storage", ledger: Ledger, sources: LocalSources) -> SharedSources | None:
    """What the sources are called in storage, once they are there; None when the study is to do something else meanwhile."""
    from service.checkpoints.shared_sources import publish  # noqa: PLC0415 - see `opening`

    pause = _POLL_SECONDS
    while ledger.refresh().state is StudyState.RUNNING:
        try:
            return publish(storage, ledger.study.id, sources)
        except StorageAway as error:
            _LOG.warning("rows and models cannot be put into storage now: %s", error.cause)
            time.sleep(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
    return None


def _open_sign(settings: Settings, study_id: str) -> Sign | SignAfar:
    storage = quick_storage(settings)
    if storage is None:
        return Sign(settings.layout.checkpoints, study_id)
    from service.checkpoints.signs import ObjectSigns  # noqa: PLC0415 - see `opening`

    return SignAfar(ObjectSigns(storage, study_id))


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

    def retake(self) -> None:
        """Make sure of it after the database was away, and nobody could renew it. Raises LeaseLost."""
        if not self.take():
            raise LeaseLost(f"Study {self.study_id!r} was taken by another process while the database was away.")

    def give_back(self) -> None:
        with self._lock, contextlib.suppress(Exception):  # it runs out by itself
            self._given_back = True
            self._store.leases.release(self.study_id, self.owner)


def _watch(
    settings: Settings, ledger: Ledger, lease: _Lease, address: str, leaving: threading.Event, sign: Sign | SignAfar
) -> None:
    """Keep the lease; end the process when it is lost, when the cluster is gone, or when the study is cancelled."""
    last_beat = time.monotonic()
    cancelled_at: float | None = None
    while True:
        if leaving.wait(min(_POLL_SECONDS, settings.heartbeat_seconds)):
            # At once, as if killed, but without making the next driver wait for the lease.
            lease.give_back()
            _leave(0, "told to")
        try:
            study = ledger.poll()
            if time.monotonic() - last_beat >= settings.heartbeat_seconds:
                if not lease.take():
                    _leave(3, "the lease is another's now")
                last_beat = time.monotonic()
                if not reachable(address) and not reachable(address):
                    lease.give_back()
                    _leave(4, "the Ray cluster is gone")
                study = ledger.refresh()
            _show(sign, study)
            cancelled_at = _cancelling(ledger, lease, study, cancelled_at)
        except StoreAway as error:  # then nobody else can take the lease either
            _LOG.warning("cannot renew the lease now: %s", error.cause)
        except Exception as error:
            _LOG.exception("cannot go on")
            _leave(3 if isinstance(error, LeaseLost) else 1, "see above")


def _cancelling(ledger: Ledger, lease: _Lease, study: Study, since: float | None) -> float | None:
    """When the study was first seen to be cancelled, if it is; ends this process once its trials have left, or should have."""
    if wish_of(study) is not Wish.CANCEL:
        return None
    now = time.monotonic()
    if ledger.is_idle or now - (since or now) > _CANCEL_SECONDS:
        ledger.finish()
        lease.give_back()
        _leave(0, f"study {study.id} is cancelled")  # Ray kills the workers of a driver that is gone, whatever they are at
    return since or now


def _show(sign: Sign | SignAfar, study: Study) -> None:
    try:
        sign.show(wish_of(study))
    except StorageAway as error:
        _LOG.warning("cannot ask the trials to leave: %s", error.cause)
    except OSError as error:  # a full disk: trials leave at their next reports, or are killed
        _LOG.warning("cannot ask the trials to leave: %s", error)


def _leave(code: int, why: str) -> None:
    _LOG.info("leaving: %s", why)
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
