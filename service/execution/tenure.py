"""How long a driver may go on: its claim on the study, and what it reads beside the checkpoints while the database is away.

A driver that cannot renew its claim cannot know whether the database is away for all, or for itself alone. In the first case it
goes on, as nobody can take the study; in the second another driver is started elsewhere, for which it would keep the workers
occupied. So each driver puts its name beside the study's checkpoints, and one that finds another's there has been followed.
"""

import contextlib
import threading
from collections.abc import Callable
from datetime import timedelta

from service.domain.errors import LeaseLost, StorageAway
from service.domain.ports import Clock, LeaseStore, Signs

NAMEPLATE = ".driver"


class Tenure:
    """A process's claim on its study. Thread-safe."""

    def __init__(
        self,
        leases: LeaseStore,
        clock: Clock,
        study_id: str,
        owner: str,
        lease_seconds: float,
        seconds_up: Callable[[], float],
    ) -> None:
        """`seconds_up` also passes while the machine or this process stands still."""
        self._leases = leases
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._seconds_up = seconds_up
        self._lock = threading.Lock()
        self._taken_at: float | None = None
        self._given_back = False
        self.study_id = study_id
        self.owner = owner

    def take(self) -> bool:
        """Take or renew it; False when another process holds it. Raises StoreAway."""
        with self._lock:
            if self._given_back:
                return True
            now = self._seconds_up()  # before the store counts: who was stopped in between has less time left, not more
            is_taken = self._leases.acquire(self.study_id, self.owner, self._clock.now(), timedelta(seconds=self._lease_seconds))
            if is_taken:
                self._taken_at = now
            return is_taken

    def retake(self) -> None:
        """Make sure of it after the database was away, and nobody could renew it. Raises LeaseLost, StoreAway."""
        if not self.take():
            raise LeaseLost(f"Study {self.study_id!r} was taken by another process while the database was away.")

    def is_followed(self, nameplate: "Nameplate") -> bool:
        """Whether its time has run out and another driver is at work."""
        is_out = self._taken_at is not None and self._seconds_up() - self._taken_at >= self._lease_seconds
        return is_out and nameplate.is_anothers()

    def give_back(self) -> None:
        with self._lock, contextlib.suppress(Exception):  # it runs out by itself
            self._given_back = True
            self._leases.release(self.study_id, self.owner)


class Nameplate:
    """The name of the driver that last took a study, beside its checkpoints."""

    def __init__(self, signs: Signs, owner: str) -> None:
        self._signs = signs
        self._owner = owner
        self._is_up = False

    def show(self) -> None:
        """Put this driver's name there, once. Raises StorageAway, OSError."""
        if not self._is_up:
            self._signs.write(self._owner)
            self._is_up = True

    def is_anothers(self) -> bool:
        """Whether another's name has taken the place of this one's; not where it cannot be read."""
        try:
            return self._is_up and self._signs.read() not in {None, self._owner}
        except (StorageAway, OSError):
            return False
