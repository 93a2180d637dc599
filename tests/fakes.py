"""Adapters that keep everything in memory, for tests that need no process, socket or clock."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.builders import NOW
from trainers.contract import Report, TrainerError


class FakeClock:
    """A clock that moves when told."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def pass_seconds(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


class FakeTrainer:
    """A trainer whose accuracies are given; its state is how many it has reported. `trained` counts epochs over all attempts.

    It stops early by itself at report `last`. `tested` is its accuracy on test rows, where it has any.
    """

    def __init__(
        self,
        accuracies: Sequence[float | TrainerError],
        trained: list[int] | None = None,
        last: int | None = None,
        tested: float | TrainerError | None = None,
    ) -> None:
        self._accuracies = accuracies
        self._last = last
        self._tested = tested
        self._done = 0
        self.trained = [] if trained is None else trained

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"rows": {"train": 10}}

    def reports(self) -> Iterator[Report]:
        for number in range(self._done + 1, len(self._accuracies) + 1):
            accuracy = self._accuracies[number - 1]
            if isinstance(accuracy, TrainerError):
                raise accuracy
            self._done = number
            self.trained.append(number)
            metrics = {"validation/accuracy": accuracy, "train/loss": 1.0}
            yield Report(number, float(number), 10 * number, metrics, 2.0, last=number == self._last)
            if number == self._last:
                return

    def save(self, directory: Path) -> None:
        (directory / "state.json").write_text(json.dumps(self._done))

    def load(self, directory: Path) -> None:
        self._done = json.loads((directory / "state.json").read_text())

    def export(self, directory: Path) -> None:
        (directory / "config.json").write_text(json.dumps({"exported_after": self._done}))

    def analysis(self) -> Mapping[str, Any]:
        return {"task": "text-classification", "rows": 10, "metrics": {"accuracy": self._accuracies[self._done - 1]}}

    def test(self, exported: Path) -> Mapping[str, float]:
        if isinstance(self._tested, TrainerError):
            raise self._tested
        after = json.loads((exported / "config.json").read_text())["exported_after"]
        return {} if self._tested is None else {"test/accuracy": self._tested, "test/report": float(after)}
