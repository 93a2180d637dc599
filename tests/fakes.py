"""Adapters that keep everything in memory, for tests that need no process, socket or clock."""

from datetime import datetime, timedelta

from tests.builders import NOW


class FakeClock:
    """A clock that moves when told."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def pass_seconds(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)
