"""How often one address may fail to log in, and one caller may change something: counted in this process, by the minute."""

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from threading import Lock

_WINDOW_SECONDS = 60.0
_MOST_KEYS = 10_000
"""Of those that are counted at once: more strangers than that push out the ones not seen for longest."""


class Often:
    """Counts what each key did in the last minute; thread-safe. `clock` gives seconds that never go back."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._lock = Lock()
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def count(self, key: str) -> int:
        """Seconds until the key may do it again; 0 where it may now, and then it counts."""
        with self._lock:
            now = self._clock()
            times = self._times.setdefault(key, deque())
            self._times.move_to_end(key)
            while times and now - times[0] >= _WINDOW_SECONDS:
                times.popleft()
            if len(times) >= self._most:
                return max(1, math.ceil(times[0] + _WINDOW_SECONDS - now))
            times.append(now)
            if len(self._times) > _MOST_KEYS:
                self._times.popitem(last=False)
            return 0


class Limits:
    """Both limits of one process."""

    def __init__(self, most_failures: int, most_writes: int, clock: Callable[[], float]) -> None:
        self.failures = Often(most_failures, clock)
        self.writes = Often(most_writes, clock)
