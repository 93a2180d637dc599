"""What the chaos runs look at: a study that nothing is wrong with passes, and one that was tampered with does not."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from service.domain.ports import Change, Store
from service.domain.share import Share
from service.domain.study import Study
from service.domain.trial import AttemptOutcome, Trial
from service.execution.assignment import Progress
from service.execution.ledger import Ledger
from service.store.memory import memory_store
from tests.builders import NOW, a_definition, a_report
from tests.chaos.invariants import Evidence, not_trained, trained_twice, tried_twice
from tests.chaos.journal import Line, phase, read_journal
from tests.chaos.kills import ENDS_CLUSTER, ENDS_SERVICE, Kind
from tests.chaos.replay import differences
from tests.chaos.schedule import Moment, schedule
from tests.fakes import FakeClock

STUDY = "watched-abc123"
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {"strategy": {"kind": "random"}, "budget": {"trials": 5}},
    "hyperband": {"strategy": {"kind": "hyperband", "reduction_factor": 2}, "budget": {"trials": 6}},
    "async": {"strategy": {"kind": "hyperband", "reduction_factor": 2, "mode": "async"}, "budget": {"trials": 6}},
    "median": {"strategy": {"kind": "median", "min_trials": 1, "sampler": {"kind": "random"}}, "budget": {"trials": 5}},
    "pbt": {"strategy": {"kind": "pbt", "population": 3, "interval": 1}},
    "final": {"strategy": {"kind": "random"}, "budget": {"trials": 3}, "final": {"top": 1, "seeds": 2}},
}  # fmt: skip


def steps(trial: Trial) -> Iterator[Progress]:
    """What a worker says of an attempt."""
    rate = trial.parameters["learning_rate"]
    assert isinstance(rate, float)
    for number in range(trial.reports + 1, trial.until + 1):
        report = a_report(number, (rate * 7919) % 0.7 + number / 20, attempt=trial.attempts)
        yield Progress(trial.number, trial.attempts, "host:1", [report], "done" if number == trial.until else None)


def a_study_that_was_run(name: str, kill_at: int | None = None) -> Store:
    """A study at its end, with two workers in turn; its driver may have been killed once after so many reports."""
    store, reports = memory_store(FakeClock()), 0
    trainer = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": 4}
    definition = a_definition(trainer=trainer, resources={"max_concurrent_trials": 2}, **{"budget": {}, **STRATEGIES[name]})
    store.studies.add(Study(id=STUDY, definition=definition, created_at=NOW))
    store.shares.grant({STUDY: Share(2)})
    ledger, running = a_driver(store, "first"), []
    while True:
        while isinstance(trial := ledger.next(), Trial):
            running.append(steps(trial))
        if not running:
            ledger.finish()
            return store
        attempt = running.pop(0)
        reports += 1
        if ledger.record(next(attempt)):
            running.append(attempt)
        if reports == kill_at:
            store.leases.release(STUDY, "first")
            ledger, running = a_driver(store, "second"), []


def a_driver(store: Store, owner: str) -> Ledger:
    assert store.leases.acquire(STUDY, owner, NOW, timedelta(days=1))
    ledger = Ledger(store, FakeClock(), STUDY, owner)
    ledger.begin()
    return ledger


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("kill_at", [None, 5])
def test_a_study_that_was_decided_by_its_rules_replays_without_a_difference(name: str, kill_at: int | None) -> None:
    assert differences(a_study_that_was_run(name, kill_at), STUDY) == []


def tampered(store: Store, **changes: Any) -> Store:
    """The same store, in which a trial of the middle is another one."""
    trial = replace(store.trials.get(STUDY, 2), **changes)
    (owner,) = store.leases.holders(NOW).values()
    store.trials.record(owner, [Change(trial=trial)])
    return store


def test_a_trial_of_another_bracket_is_seen() -> None:
    assert differences(tampered(a_study_that_was_run("hyperband"), bracket=7), STUDY)


def test_a_report_with_another_value_is_seen_where_it_would_have_decided_otherwise() -> None:
    store = a_study_that_was_run("hyperband")
    winner = max(store.trials.history(STUDY).trials.values(), key=lambda trial: trial.best_value or 0)
    read = store.trials.reports

    class Other:
        """The trials, the best of them with worse reports."""

        def __getattr__(self, name: str) -> Any:
            return getattr(store.trials, name)

        def reports(self, study_id: str, number: int) -> Any:
            found = read(study_id, number)
            return [a_report(one.number, 0.0, attempt=1) for one in found] if number == winner.number else found

    assert differences(replace(store, trials=Other()), STUDY)  # type: ignore[arg-type]


def lines_of(store: Store) -> list[Line]:
    """What the workers would have written of a study that nobody disturbed."""
    return [
        Line(at=NOW.timestamp(), pid=1, study=STUDY, trial=number, attempt=report.attempt, what="trained", report=report.number)
        for number in store.trials.history(STUDY).trials
        for report in store.trials.reports(STUDY, number)
    ]


def evidence(store: Store, lines: list[Line]) -> Evidence:
    return Evidence(service=cast("Any", None), client=cast("Any", None), store=store, lines=lines)


def test_a_report_that_nobody_trained_is_seen() -> None:
    store = a_study_that_was_run("random")
    lines = lines_of(store)
    assert list(not_trained(evidence(store, lines), STUDY)) == []
    (sentence,) = not_trained(evidence(store, lines[1:]), STUDY)
    assert "report 1 of trial 0" in sentence


def test_an_epoch_that_was_trained_again_is_seen() -> None:
    store = a_study_that_was_run("random")
    lines = lines_of(store)
    assert list(trained_twice(evidence(store, lines), STUDY)) == []
    assert len(list(trained_twice(evidence(store, [lines[0], *lines]), STUDY))) == 1


def test_an_attempt_that_was_lost_may_have_trained_one_epoch_in_vain() -> None:
    store = a_study_that_was_run("random", kill_at=3)
    number, lost = next(
        (number, one)
        for number, attempts in store.trials.all_attempts(STUDY).items()
        for one in attempts
        if one.outcome is AttemptOutcome.LOST
    )
    in_vain = [Line(NOW.timestamp(), 1, STUDY, number, lost.number, "trained", report) for report in (3, 4)]
    assert list(trained_twice(evidence(store, [*in_vain[1:], *lines_of(store)]), STUDY)) == []
    assert len(list(trained_twice(evidence(store, [*in_vain, *lines_of(store)]), STUDY))) == 1


def test_a_configuration_that_is_there_twice_is_seen() -> None:
    store = a_study_that_was_run("random")
    assert list(tried_twice(evidence(store, []), STUDY)) == []
    same = tampered(store, parameters=store.trials.get(STUDY, 0).parameters)
    assert len(list(tried_twice(evidence(same, []), STUDY))) == 1


def test_the_same_seed_draws_the_same_kills_and_every_kind_and_moment_is_among_them() -> None:
    assert schedule(3, 30) == schedule(3, 30) != schedule(4, 30)
    assert {shot.kind for shot in schedule(3, 30)} == set(Kind)
    assert {shot.moment for shot in schedule(3, 30)} == set(Moment)
    assert any(shot.is_in_a_pause for shot in schedule(3, 30))


def test_a_few_kills_end_a_cluster_in_one_way_and_everything_else_at_least_once() -> None:
    few = schedule(3, 10)
    assert len(few) == 10
    assert len(ENDS_CLUSTER & {shot.kind for shot in few}) == 3
    assert {shot.kind for shot in few} >= set(Kind) - ENDS_CLUSTER
    ways = [{shot.kind for shot in schedule(seed, 10)} & (ENDS_CLUSTER - ENDS_SERVICE) for seed in range(20)]
    assert {len(each) for each in ways} == {1}
    assert set().union(*ways) == ENDS_CLUSTER - ENDS_SERVICE


def test_a_worker_is_at_what_it_wrote_last(tmp_path: Path) -> None:
    def line(pid: int, what: str) -> Line:
        return Line(at=0.0, pid=pid, study=STUDY, trial=0, attempt=1, what=what, report=None)

    lines = [line(1, "train"), line(2, "start"), line(1, "trained"), line(1, "save"), line(2, "train"), line(3, "save done")]
    assert [phase(lines, pid) for pid in (1, 2, 3, 4)] == ["save", "training", "between", "idle"]
    assert read_journal(tmp_path / "none") == []
