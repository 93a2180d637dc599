"""One running study: holds its lease, replays the store, and lets Ray Tune run attempts until there is nothing left to do.

    python -m service.driver STUDY_ID --ray 127.0.0.1:6379
    python -m service.driver --standby --ray 127.0.0.1:6379

It can be killed at any moment: the controller starts another, which goes on from the store. Exit codes: 0 the study has ended
or the driver was told to leave; 3 the lease is another's; 4 the cluster is gone; 1 anything else.
"""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from service.catalog.catalog import open_catalog
from service.catalog.pinning import pin
from service.checkpoints.opening import open_checkpoints, patient_storage, quick_storage
from service.checkpoints.space import is_full, refusal
from service.clock import SystemClock
from service.controller.leadership import seconds_up
from service.domain.errors import LeaseLost, StorageAway, StoreAway, TuneyardError
from service.domain.leadership import driver_name
from service.domain.ports import LocalSources, SharedSources, Signs, Store
from service.domain.study import Study, StudyState
from service.domain.trial import Trial
from service.execution.assignment import Assignment, assign, assign_afar
from service.execution.environment import reachable
from service.execution.interruption import INTERRUPT, FileSigns, Sign, SignAfar, Wish, wish_of
from service.execution.ledger import Ledger
from service.execution.standby import wait_for_study
from service.execution.tenure import NAMEPLATE, Nameplate, Tenure
from service.settings import Settings, service_name
from service.store.patience import insist, patient
from service.store.sql import open_store

if TYPE_CHECKING:
    from service.checkpoints.storage import Storage

_LOG = logging.getLogger("tuneyard.driver")
_FITS_WITHOUT_PROGRESS = 5
_POLL_SECONDS = 0.5
_REST_SECONDS = 2.0
"""Until something is tried again beside the checkpoints that was refused."""
_LONGEST_PAUSE_SECONDS = 30.0
_GOING_ON = frozenset({StudyState.QUEUED, StudyState.RUNNING})
_CANCEL_SECONDS = 5.0
"""For the trials of a cancelled study to leave by themselves, before their processes are killed."""

T = TypeVar("T")
_FOLLOWED = "the database is away, and another driver is at work"


def main() -> int:
    parser = argparse.ArgumentParser(prog="service.driver")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("study_id", nargs="?")
    which.add_argument("--standby", action="store_true", help="get ready, and wait for a study on standard input")
    parser.add_argument("--ray", required=True, help="address of the cluster's head")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    study_id = wait_for_study(arguments.ray) if arguments.standby else arguments.study_id
    if study_id is None:
        _leave(0, "no study came")
        return 0
    settings = Settings()
    store = open_store(settings.store_url)
    owner = driver_name(service_name(settings.layout), os.getpid(), time.time_ns())
    lease = Tenure(store.leases, SystemClock(), study_id, owner, settings.lease_seconds, seconds_up)
    nameplate = _nameplate(settings, study_id, owner)
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())

    def wait(seconds: float) -> None:
        if leaving.wait(seconds):
            _leave(0, "told to, while the database is away")
        if lease.is_followed(nameplate):
            _leave(3, _FOLLOWED)

    if not insist(lease.take, wait):
        _LOG.error("study %s is driven by another process", study_id)
        return 3
    try:
        code = _drive(settings, patient(store, wait, lease.retake), lease, nameplate, arguments.ray, leaving)
    except LeaseLost:
        _LOG.exception("the lease is another's now")
        code = 3
    except TuneyardError as error:  # it says what to do; this line is what the study's detail shows
        _LOG.error("the study cannot be driven: %s", error.detail)
        code = 1
    except Exception:
        _LOG.exception("the study cannot be driven")
        code = 1
    lease.give_back()
    _leave(code, "done")
    return code


def _drive(settings: Settings, store: Store, lease: Tenure, nameplate: Nameplate, address: str, leaving: threading.Event) -> int:
    ledger = Ledger(store, SystemClock(), lease.study_id, lease.owner)
    signs = _Signs(_open_sign(settings, lease.study_id), nameplate)
    # Each by itself: the lease is renewed also while the storage does not answer.
    threading.Thread(target=_watch, args=(settings, ledger, lease, address, leaving, nameplate), daemon=True).start()
    threading.Thread(target=_say, args=(ledger, signs), daemon=True).start()

    def begin() -> None:
        # Quick, as the watch cannot renew the lease meanwhile.
        folders = open_checkpoints(settings, quick_storage(settings))
        ledger.begin(lambda trial: folders.can_resume(trial.study_id, trial.number))

    once_it_answers(ledger, begin)
    while True:
        if ledger.study.state is StudyState.RUNNING:
            _search(settings, ledger, address)
        match ledger.refresh().state:
            case StudyState.STOPPING:
                ledger.finish()
            case StudyState.PAUSING:
                ledger.pause()
        signs.show(ledger.study)
        if ledger.study.state is not StudyState.RUNNING:  # it was resumed on its way to the pause
            _LOG.info("study %s is %s: %s", ledger.study.id, ledger.study.state, ledger.study.reason)
            return 0


def _search(settings: Settings, ledger: Ledger, address: str) -> None:
    from service.execution import cluster  # noqa: PLC0415 - a study that is only to be ended needs no Ray
    from service.execution.searcher import open_ledger  # noqa: PLC0415

    study, layout = ledger.study, settings.layout
    prepared = layout.cache / "prepared" / study.id
    try:
        sources = pin(open_catalog(settings).of(study.project).fetch(study.definition), prepared / "rows")
    except Exception as error:
        if not is_full(error):
            raise
        ledger.lack_room(refusal(layout.checkpoints / study.id, error, layout.cache).detail)
        return
    published = once_it_answers(ledger, lambda: _published(settings, study.id, sources))
    if published is None:
        return
    storage, shared = published
    checkpoints = open_checkpoints(settings, storage)

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


def _published(settings: Settings, study_id: str, sources: LocalSources) -> "tuple[Storage, SharedSources] | tuple[None, None]":
    """The storage, if there is one, and what the sources are called in it, now that they are there. Raises StorageAway."""
    storage = patient_storage(settings)
    if storage is None:
        return None, None
    from service.checkpoints.shared_sources import publish  # noqa: PLC0415 - see `opening`

    return storage, publish(storage, study_id, sources)


def once_it_answers(ledger: Ledger, ask: Callable[[], T], wait: Callable[[float], None] = time.sleep) -> T | None:
    """What the object storage is asked for, once it answers; None when the study is to do something else meanwhile."""
    pause = _POLL_SECONDS
    while ledger.refresh().state in _GOING_ON:
        try:
            return ask()
        except StorageAway as error:
            _LOG.warning("waiting for the object storage: %s", error.cause)
            wait(pause)
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)
    return None


@dataclass(frozen=True)
class _Signs:
    """What this driver says beside its study's checkpoints: what the trials are asked for, and that it is the driver."""

    sign: Sign | SignAfar
    nameplate: Nameplate

    def show(self, study: Study) -> bool:
        """Whether all is said; if not it is to be tried again."""
        try:
            self.nameplate.show()
            self.sign.show(wish_of(study))
        except StorageAway as error:
            _LOG.warning("cannot ask the trials to leave: %s", error.cause)
            return False
        except OSError as error:  # a full disk: trials leave at their next reports, or are killed
            _LOG.warning("cannot ask the trials to leave: %s", error)
            return False
        return True


def _open_sign(settings: Settings, study_id: str) -> Sign | SignAfar:
    if settings.storage_url is None:
        return Sign(settings.layout.checkpoints, study_id)
    return SignAfar(_object_signs(settings.storage_url, study_id, INTERRUPT))


def _nameplate(settings: Settings, study_id: str, owner: str) -> Nameplate:
    if settings.storage_url is None:
        return Nameplate(FileSigns(settings.layout.checkpoints, study_id, NAMEPLATE), owner)
    return Nameplate(_object_signs(settings.storage_url, study_id, NAMEPLATE), owner)


def _object_signs(url: str, study_id: str, name: str) -> Signs:
    from service.checkpoints.signs import ObjectSigns  # noqa: PLC0415 - see `opening`
    from service.checkpoints.storage import Patience, open_storage  # noqa: PLC0415 - see `opening`

    return ObjectSigns(lambda: open_storage(url, Patience.SHORT), study_id, name)


def _say(ledger: Ledger, signs: _Signs) -> None:
    while True:
        time.sleep(_POLL_SECONDS if signs.show(ledger.study) else _REST_SECONDS)


def _watch(
    settings: Settings, ledger: Ledger, lease: Tenure, address: str, leaving: threading.Event, nameplate: Nameplate
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
            cancelled_at = _cancelling(ledger, lease, study, cancelled_at)
        except StoreAway as error:
            _LOG.warning("cannot renew the lease now: %s", error.cause)
            if lease.is_followed(nameplate):
                _leave(3, _FOLLOWED)
        except Exception as error:
            _LOG.exception("cannot go on")
            _leave(3 if isinstance(error, LeaseLost) else 1, "see above")


def _cancelling(ledger: Ledger, lease: Tenure, study: Study, since: float | None) -> float | None:
    """When the study was first seen to be cancelled, if it is; ends this process once its trials have left, or should have."""
    if wish_of(study) is not Wish.CANCEL:
        return None
    now = time.monotonic()
    if ledger.is_idle or now - (since or now) > _CANCEL_SECONDS:
        ledger.finish()
        lease.give_back()
        _leave(0, f"study {study.id} is cancelled")  # Ray kills the workers of a driver that is gone, whatever they are at
    return since or now


def _leave(code: int, why: str) -> None:
    _LOG.info("leaving: %s", why)
    logging.shutdown()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
