"""What the cluster holds, looked at now and then, and what it is asked to make room for where it can grow."""

import json
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Protocol

from service.controller.allocation import SharingRules, bundles
from service.controller.decide import Seen, demanding
from service.controller.quotas import ProjectQuotas
from service.controller.room import Capacity
from service.domain.paging import active_studies
from service.domain.ports import Clock, Store
from service.settings import write_private

_LOG = logging.getLogger("tuneyard.controller")
_LOOK_SECONDS = 60.0
_LEAVING_SECONDS = 5.0
"""Longest that a service that stops waits for the cluster to hear that nothing is wanted any more."""

Bundles = Sequence[dict[str, float]]


class Asks(Protocol):
    """Asks the cluster what it holds, and first to make room for `bundles` where there are any to tell of. Raises what it may."""

    def __call__(self, bundles: Bundles | None, timeout_seconds: float) -> Capacity: ...


class CapacityWatch:
    """What the cluster holds. The API reads it from `path`.

    `demand` says what trials would hold side by side, which a cluster that can grow is told of at each look. Ray keeps that until
    it is told otherwise, so who leads withdraws it when it leaves; another controller says it again at its next look.
    """

    def __init__(self, ask: Asks, is_up: Callable[[], bool], path: Path, demand: Callable[[], Bundles] | None = None) -> None:
        self._ask = ask
        self._is_up = is_up
        self._path = path
        self._demand = demand
        self._capacity: Capacity | None = None
        self._asking = threading.Lock()

    def __call__(self) -> Capacity | None:
        """The last answer; None until the first, and while nothing listens at the cluster's address."""
        return self._capacity if self._capacity and self._is_up() else None

    def look(self) -> None:
        """Ask again. Raises when the cluster does not answer; nothing starts then until it does."""
        with self._asking:
            try:
                self._capacity = self._ask(self._demand() if self._demand else None, _LOOK_SECONDS)
            except Exception:
                self._capacity = None
                raise
        write_private(self._path, json.dumps(asdict(self._capacity)))

    def withdraw(self) -> None:
        """Let the cluster shrink as it likes from now on. Raises nothing when it does not answer."""
        if self._demand is None or not self._asking.acquire(timeout=_LEAVING_SECONDS):
            return
        try:
            self._demand = None
            self._ask([], _LEAVING_SECONDS)
        except Exception as error:
            _LOG.warning("the cluster keeps room for studies that have stopped: %s", error)
        finally:
            self._asking.release()


class Demand:
    """What the studies could use that run or are next to, each time it is called."""

    def __init__(self, store: Store, clock: Clock, rules: SharingRules, quotas: ProjectQuotas) -> None:
        self._store = store
        self._clock = clock
        self._rules = rules
        self._quotas = quotas

    def __call__(self) -> Bundles:
        now = self._clock.now()
        rules = replace(self._rules, projects=self._quotas.rules(now))
        seen = Seen(list(active_studies(self._store.studies)), self._store.leases.holders(now), {}, None, now, rules)
        return bundles(study.resources for study in demanding(seen))
