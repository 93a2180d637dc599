"""The seam between Tune and the ledger, where it matters that a failure is not swallowed."""

from dataclasses import dataclass
from typing import Any

import pytest

from service.domain.trial import Trial
from service.execution import searcher
from service.execution.assignment import Progress
from service.execution.ledger import Finished
from service.execution.searcher import LedgerScheduler, LedgerSearcher
from service.execution.trainable import PROGRESS
from tests.builders import a_study, a_trial


class Left(BaseException):
    """The process would have ended here."""


class FakeLedger:
    def __init__(self, *, writes: bool) -> None:
        self._writes = writes
        self.heard: list[Any] = []
        self.details: list[str | None] = []
        self.workers: list[str | None] = []

    def next(self) -> Trial | Finished:
        return Finished() if self.heard else a_trial(3, attempts=1)

    def record(self, progress: Progress) -> bool:
        if not self._writes:
            raise ConnectionError("the database is away")
        self.heard.append(progress.number)
        self.details.append(progress.detail)
        self.workers.append(progress.worker)
        return False

    def lose(self, number: int, attempt: int, detail: str) -> None:
        self.heard.append((number, attempt, detail))


def a_searcher(ledger: FakeLedger, monkeypatch: pytest.MonkeyPatch) -> LedgerSearcher:
    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr("service.execution.searcher.os._exit", leave)
    monkeypatch.setitem(searcher._OPEN, "study-1", (ledger, None))
    made = LedgerSearcher("study-1")
    made._running["ray-1"] = (3, 1)
    return made


@dataclass
class FakeAttempt:
    """What the scheduler sees of Tune's trial."""

    trial_id: str
    status: str = "PENDING"
    PENDING = "PENDING"

    def is_finished(self) -> bool:
        return self.status in {"TERMINATED", "ERROR"}


def test_attempts_run_in_the_order_in_which_they_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(searcher._OPEN, "study-1", (FakeLedger(writes=True), None))
    monkeypatch.setattr("service.execution.searcher.keep_warm", lambda *_: None)
    scheduler, attempts = LedgerScheduler("study-1"), [FakeAttempt(name) for name in ("9f", "1a", "5c", "0b")]
    for attempt in attempts:
        scheduler.on_trial_add(None, attempt)
    chosen = []
    for ends in ("TERMINATED", "RUNNING", "ERROR", "TERMINATED"):
        attempt = scheduler.choose_trial_to_run(None)
        chosen.append(attempt.trial_id)
        attempt.status = ends
    assert chosen == ["9f", "1a", "5c", "0b"]
    assert scheduler.choose_trial_to_run(None) is None
    assert list(scheduler._live) == ["1a"], "what has ended is not looked at again"
    attempts[1].status = "PENDING"
    assert scheduler.choose_trial_to_run(None) is attempts[1]


LAST = {PROGRESS: Progress(3, 1, "host:1", outcome="done").to_json()}


def test_the_last_report_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FakeLedger(writes=True)
    a_searcher(ledger, monkeypatch).on_trial_complete("ray-1", LAST)
    assert ledger.heard[0] == 3


def test_a_last_report_that_cannot_be_written_ends_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Left):
        a_searcher(FakeLedger(writes=False), monkeypatch).on_trial_complete("ray-1", LAST)


def test_a_lost_process_is_a_lost_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FakeLedger(writes=True)
    a_searcher(ledger, monkeypatch).on_trial_complete("ray-1", None, error=True)
    assert ledger.heard == [(3, 1, "the worker's process or node was lost")]


def test_an_attempt_that_nobody_knows_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FakeLedger(writes=True)
    a_searcher(ledger, monkeypatch).on_trial_complete("ray-2", LAST)
    assert ledger.heard == []


def test_a_trial_whose_parameters_make_no_configuration_fails_and_the_search_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = FakeLedger(writes=True)
    made = a_searcher(ledger, monkeypatch)
    monkeypatch.setitem(searcher._OPEN, "study-1", (ledger, lambda _: a_study().definition.configured({"learning_rate": -1.0})))
    assert made.suggest("ray-3") == LedgerSearcher.FINISHED
    assert ledger.heard == [3]
    assert "greater than 0" in (ledger.details[0] or "")
    assert ledger.workers == [None], "no node is to blame"
