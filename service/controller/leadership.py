"""The claim to lead: of all controllers on one database, one acts.

A process leads once at most. When it could not renew its claim in time it leaves, with all it remembers of what it believed to
be its own; the one that is started in its place begins anew. The store refuses what it may still be about to write, and what
it may still be about to do elsewhere is refused here.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

from service.domain.errors import LeadershipLost
from service.domain.leadership import is_controller_of
from service.domain.ports import Clock, LeadershipStore

_LOG = logging.getLogger("tuneyard.controller")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

T = TypeVar("T")


def seconds_up() -> float:
    """Seconds that have passed on this machine, also while it slept or this process was stopped."""
    return time.clock_gettime(_CLOCK)


@dataclass(frozen=True)
class Claim:
    """Who claims to lead: a controller's own name and its service's, for how long at a time, and how often anew."""

    owner: str
    home: str
    lease_seconds: float
    heartbeat_seconds: float


class Leadership:
    """Keeps a claim. `leave` ends the process, once it has led and does not any more. Thread-safe."""

    def __init__(
        self,
        store: LeadershipStore,
        clock: Clock,
        claim: Claim,
        leave: Callable[[str], None],
        seconds_up: Callable[[], float] = seconds_up,
    ) -> None:
        self._store = store
        self._clock = clock
        self._claim = claim
        self._leave = leave
        self._seconds_up = seconds_up
        self._lock = threading.Lock()
        self._taken_at: float | None = None
        self._is_given_back = False
        self._seen: str | None = None

    def keep(self) -> None:
        """Take the lead where nobody has it, and renew it in time; leaves when it is another's. Raises StoreAway."""
        with self._lock:
            now = self._seconds_up()  # before the store counts: who was stopped in between has less time left, not more
            if self._is_given_back or (self._taken_at is not None and now - self._taken_at < self._claim.heartbeat_seconds):
                return
            if self._taken_at is None and not self._is_free():
                return
            lasting = timedelta(seconds=self._claim.lease_seconds)
            if self._taken_at is not None:
                self.require()
            if self._store.acquire(self._claim.owner, self._clock.now(), lasting):
                if self._taken_at is None:
                    _LOG.info("this controller leads: %s", self._claim.owner)
                self._taken_at = now
            elif self._taken_at is not None:
                self._leave("another controller leads now")

    def is_held(self) -> bool:
        """Whether this process leads; one that does not any more leaves."""
        if not self.was_taken:
            return False
        self.require()
        return True

    @property
    def was_taken(self) -> bool:
        """Whether this process took the lead and has not given it back, be it still its own or not."""
        return self._taken_at is not None and not self._is_given_back

    def require(self) -> None:
        """Go on only as the one that leads. Raises LeadershipLost when it was given back."""
        if self._is_given_back:
            raise LeadershipLost("This controller has given back the lead: it does nothing more.")
        if self._taken_at is None or self._seconds_up() - self._taken_at >= self._claim.lease_seconds:
            self._leave("the lead could not be renewed in time")

    def guarded(self, port: T) -> T:
        """The same port, of which nothing is called but by the one that leads: for what the store does not protect."""
        return cast("T", _Guarded(port, self.require))

    def give_back(self) -> None:
        """Let another one lead at once. Raises StoreAway; then it runs out by itself."""
        with self._lock:
            if self._taken_at is not None and not self._is_given_back:
                self._is_given_back = True
                self._store.release(self._claim.owner)
                _LOG.info("this controller has given back the lead")

    def _is_free(self) -> bool:
        """Whether nobody leads. Who led for this service before is gone: no two controllers run in one home."""
        holder = self._store.holder(self._clock.now())
        if holder is not None and is_controller_of(holder, self._claim.home):
            self._store.release(holder)
            return True
        if holder is not None and holder != self._seen:
            _LOG.info("this controller waits: %s leads", holder)
        self._seen = holder
        return holder is None


class _Guarded:
    """A port, each method of which is called after `require`."""

    def __init__(self, port: object, require: Callable[[], None]) -> None:
        self._port = port
        self._require = require

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self._require()
            return method(*arguments, **named)

        return call
