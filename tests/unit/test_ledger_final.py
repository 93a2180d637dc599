"""The final, as a driver runs it: every run in the store, and none lost or doubled by a driver that dies."""

from pathlib import Path

import pytest

from service.domain.ports import LocalSources, Store
from service.domain.study import StudyReason, StudyState
from service.domain.trial import AttemptOutcome, Trial, TrialReason, TrialState
from service.execution.assignment import assign
from service.execution.ledger import Finished, Ledger
from service.search.final import seeds
from tests.unit.test_ledger import STUDY, a_ledger, a_step, a_store, run_to_rung, started, stored
from tests.unit.test_ledger_control import extend, next_driver, pause, resume

BUDGET = {"trials": 3}


def a_store_with_final(**changes: object) -> Store:
    return a_store(concurrent=1, **{"budget": BUDGET, "final": {"top": 2, "seeds": 2}, **changes})


def search(ledger: Ledger, accuracies: tuple[float, ...] = (0.5, 0.7, 0.6)) -> None:
    for accuracy in accuracies:
        run_to_rung(ledger, started(ledger), accuracy)


def pairs(store: Store) -> list[tuple[int | None, int | None]]:
    return [(trial.repeats, trial.seed) for trial in stored(store) if trial.repeats is not None]


def test_the_best_configurations_run_again_before_the_study_ends() -> None:
    store = a_store_with_final()
    ledger = a_ledger(store)
    search(ledger)
    first, second = seeds(ledger.study.definition)
    for _ in range(4):
        assert store.studies.get(STUDY).state is StudyState.RUNNING
        run_to_rung(ledger, started(ledger))
    assert ledger.next() == Finished()
    assert pairs(store) == [(1, first), (2, first), (1, second), (2, second)]
    study = ledger.finish()
    assert (study.state, study.reason) == (StudyState.COMPLETED, StudyReason.BUDGET_SPENT)
    assert all(trial.state is TrialState.COMPLETED for trial in stored(store))


@pytest.mark.parametrize("reports", range(13))
def test_a_driver_that_dies_in_the_final_loses_and_doubles_no_run(reports: int) -> None:
    store = a_store_with_final()
    ledger = a_ledger(store)
    search(ledger)
    for _ in range(reports):
        live = next((one for one in stored(store) if one.state is TrialState.RUNNING), None) or started(ledger)
        number = live.reports + 1
        ledger.record(a_step(live, number, outcome="done" if number == live.until else None))
    store.leases.release(STUDY, "driver-1")
    successor = a_ledger(store, owner="driver-2")
    while isinstance(trial := successor.next(), Trial):
        run_to_rung(successor, trial)
    assert len(pairs(store)) == len(set(pairs(store))) == 4
    assert all(trial.state is TrialState.COMPLETED for trial in stored(store))


def test_a_target_ends_the_search_and_the_final_follows() -> None:
    store = a_store(concurrent=2, budget={"trials": 9, "target": 0.9}, final={"top": 2, "seeds": 2})
    ledger = a_ledger(store)
    slow, quick = started(ledger), started(ledger)
    run_to_rung(ledger, quick, 0.95)
    assert store.studies.get(STUDY).state is StudyState.RUNNING, "a final is to come"
    assert not ledger.record(a_step(slow, 1, accuracy=0.3)), "nothing more is to be searched"
    ended = store.trials.get(STUDY, slow.number)
    assert (ended.state, ended.reason) == (TrialState.STOPPED, TrialReason.TARGET_REACHED)
    assert store.trials.attempts(STUDY, slow.number)[0].outcome is AttemptOutcome.STOPPED
    while isinstance(trial := ledger.next(), Trial):
        assert trial.repeats is not None
        run_to_rung(ledger, trial, 0.8)
    assert ledger.finish().reason is StudyReason.TARGET_REACHED
    assert len(pairs(store)) == 4


def test_a_pause_in_the_final_does_not_bring_back_what_the_searchs_end_stopped() -> None:
    store = a_store(concurrent=2, budget={"trials": 9, "target": 0.9}, final={"top": 2, "seeds": 2})
    ledger = a_ledger(store)
    slow, quick = started(ledger), started(ledger)
    run_to_rung(ledger, quick, 0.95)
    ledger.record(a_step(slow, 1, accuracy=0.3))
    run = started(ledger)
    pause(store)
    ledger.poll()
    ledger.record(a_step(run, 1))
    ledger.pause()
    before = stored(store)
    resume(store)
    assert (before[slow.number].state, before[slow.number].reason) == (TrialState.STOPPED, TrialReason.TARGET_REACHED)
    successor = next_driver(store)
    assert stored(store) == before
    assert started(successor).number == run.number


def test_runs_that_the_end_of_the_study_stopped_go_on_when_it_is_extended() -> None:
    store = a_store_with_final()
    ledger = a_ledger(store)
    search(ledger)
    run = started(ledger)
    store.studies.save(store.studies.get(STUDY).stopping(StudyReason.STOP_REQUESTED))
    ledger.poll()
    ledger.record(a_step(run, 1))
    ledger.finish()
    extend(store, {})
    assert started(next_driver(store)).number == run.number


def test_a_final_whose_runs_all_fail_does_not_fail_the_study() -> None:
    store = a_store_with_final(final={"top": 3, "seeds": 5}, max_retries=0)
    ledger = a_ledger(store)
    search(ledger)
    while isinstance(trial := ledger.next(), Trial):
        ledger.record(a_step(trial, outcome="failed", reason="trainer_error", detail="no"))
    assert ledger.finish().state is StudyState.COMPLETED
    assert len(pairs(store)) == 15


def test_a_run_trains_what_its_trial_did_under_its_own_seed() -> None:
    store = a_store_with_final()
    ledger = a_ledger(store)
    search(ledger)
    run = started(ledger)
    original = store.trials.get(STUDY, run.repeats or 0)
    sources = LocalSources({}, {})
    again, once = (assign(ledger.study, trial, sources, Path("c"), Path("d")).configuration for trial in (run, original))
    assert again == {**once, "seed": run.seed}
    assert again["seed"] != once["seed"]


def test_why_a_run_began_is_in_the_store() -> None:
    store = a_store_with_final()
    ledger = a_ledger(store)
    search(ledger)
    run = started(ledger)
    ((_, why),) = store.trials.decisions(STUDY, run.number)
    assert (why.by, why.parent) == ("final", 1)
