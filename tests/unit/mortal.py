"""For walks over a study's life: a store whose user may die over a write, and workers that leave checkpoints behind."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

from service.domain.ports import Store
from service.domain.trial import Report, Trial
from tests.builders import a_report
from tests.fakes import FakeClock

_WRITES = frozenset({"record", "save", "want"})


class Died(Exception):
    """The process ends here."""


@dataclass
class Fate:
    """How many more writes a process lives to see; None for as many as it likes. Its last one may be done or not."""

    writes: int | None = None
    is_last_done: bool = True

    def write(self, call: Callable[[], Any]) -> Any:
        if self.writes is None:
            return call()
        self.writes -= 1
        if self.writes > 0:
            return call()
        if self.is_last_done:
            call()
        raise Died


class _Mortal:
    """A port whose writes may be the last thing that a process does."""

    def __init__(self, port: object, fate: Fate) -> None:
        self._port = port
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if name not in _WRITES:
            return method
        return lambda *arguments, **named: self._fate.write(lambda: method(*arguments, **named))


def mortal(store: Store, fate: Fate) -> Store:
    """The same store, for a driver of that fate."""
    parts = {name: cast("Any", _Mortal(getattr(store, name), fate)) for name in ("studies", "trials", "shares")}
    return replace(store, **parts)


class Workers:
    """What stands on the disk: for each trial the reports that its checkpoint carries, and how often each was trained."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._saved: dict[int, list[Report]] = {}
        self.trained: Counter[tuple[int, int]] = Counter()

    def saved(self, number: int) -> list[Report]:
        """The reports in a trial's checkpoint."""
        return list(self._saved.get(number, ()))

    def begin(self, trial: Trial) -> None:
        """The driver hands an attempt out: a copy takes over its parent's state."""
        if trial.parent is not None and trial.number not in self._saved:
            self._saved[trial.number] = self.saved(trial.parent)[: trial.parent_report]

    def train(self, trial: Trial, stored: Trial, seconds: float) -> None:
        """One more epoch, saved before anybody hears of it; nothing where the store has not heard of the last one yet."""
        saved = self.saved(trial.number)
        if len(saved) > stored.reports or len(saved) >= trial.until:
            return
        self._clock.pass_seconds(seconds)
        number = len(saved) + 1
        self.trained[trial.number, number] += 1
        report = a_report(number, accuracy_of(trial, number), attempt=trial.attempts, seconds=seconds, at=self._clock.now())
        self._saved[trial.number] = [*saved, report]


def accuracy_of(trial: Trial, report: int) -> float:
    """A value of its own for each configuration, seed and report."""
    rate = trial.parameters["learning_rate"]
    assert isinstance(rate, float)
    return (rate * 7919 + (trial.seed or 0) * 0.013) % 0.7 + report / 20
