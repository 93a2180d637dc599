"""A population through the ledger: copies and what they are of, in the store too."""

from datetime import timedelta

from service.domain.ports import Store, TrialQuery
from service.domain.share import Share
from service.domain.study import StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.execution.assignment import Progress
from service.execution.ledger import Finished, Ledger
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study
from tests.fakes import FakeClock

STUDY = "intents-abc123"


def a_store(population: int = 2) -> Store:
    store = memory_store()
    store.studies.add(a_study(strategy={"kind": "pbt", "population": population}, budget={}))
    return store


def a_ledger(store: Store, owner: str = "driver-1") -> Ledger:
    assert store.leases.acquire(STUDY, owner, NOW, timedelta(days=1))
    store.shares.grant({STUDY: Share(slots=1)})
    ledger = Ledger(store, FakeClock(), STUDY, owner)
    ledger.begin()
    return ledger


def trained(ledger: Ledger, accuracy: float) -> Trial:
    """The next attempt, run to its last report."""
    trial = ledger.next()
    assert isinstance(trial, Trial)
    reports = [a_report(number, accuracy, attempt=trial.attempts) for number in range(1, trial.until + 1)]
    ledger.record(Progress(trial.number, trial.attempts, "host:1", reports, "done"))
    return trial


def test_a_copy_is_in_the_store_with_its_parent_and_gives_no_report_of_that_again() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trained(ledger, 0.5), trained(ledger, 0.25)
    copy = trained(ledger, 0.75)
    assert (copy.number, copy.parent, copy.parent_report, copy.reports, copy.until, copy.bracket) == (2, 0, 1, 1, 2, 1)
    assert [report.number for report in store.trials.reports(STUDY, 2)] == [2], "though its checkpoint tells both"
    stored = store.trials.get(STUDY, 2)
    assert (stored.state, stored.parent, stored.reports, stored.best_report) == (TrialState.PAUSED, 0, 2, 2)
    worst = store.trials.get(STUDY, 1)
    assert (worst.state, worst.reason) == (TrialState.PRUNED, TrialReason.EXPLOITED)
    assert "a copy of trial 0 takes its place" in store.trials.decisions(STUDY, 1)[-1][1].sentence
    assert store.trials.decisions(STUDY, 2)[0][1].sentence.startswith("A copy of trial 0 at report 1")


def test_a_population_goes_on_under_a_new_driver_at_any_moment_and_comes_to_the_same_end() -> None:
    accuracies = [0.5, 0.25, 0.75, 0.6, 0.1, 0.9, 0.8, 0.3, 0.2]
    found = []
    for is_killed in (False, True):
        store = a_store(population=3)
        ledger = a_ledger(store)
        for accuracy in accuracies:
            if is_killed:
                store.leases.release(STUDY, "driver-1")
                ledger = a_ledger(store)
            trained(ledger, accuracy)
        assert ledger.next() == Finished()
        study = ledger.finish()
        assert (study.state, study.reason) == (StudyState.COMPLETED, StudyReason.BUDGET_SPENT)
        trials = store.trials.find(STUDY, TrialQuery()).items
        found.append([(trial.number, trial.parent, trial.parent_report, trial.parameters, trial.reason) for trial in trials])
    assert found[0] == found[1]
    assert store.trials.totals([STUDY])[STUDY].reports == 9


def test_a_copy_whose_parents_state_is_gone_says_so_to_its_end() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trained(ledger, 0.5), trained(ledger, 0.25)
    copy = ledger.next()
    assert isinstance(copy, Trial)
    ledger.note_beginning(copy, 0)
    said = "the state of trial 0 at report 1 is gone: trained again from its start"
    assert store.trials.get(STUDY, 2).detail == said
    report = a_report(2, 0.1, attempt=1)
    ledger.record(Progress(2, 1, "host:1", [report], "failed", reason="diverged"))
    assert store.trials.get(STUDY, 2).detail == said


def test_a_copy_that_begins_where_it_should_says_nothing() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trained(ledger, 0.5), trained(ledger, 0.25)
    copy = ledger.next()
    assert isinstance(copy, Trial)
    ledger.note_beginning(copy, 1)
    assert store.trials.get(STUDY, 2).detail is None
