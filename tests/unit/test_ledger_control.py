"""The ledger under a user's hands: pauses, stopped trials, extensions and lower limits, also when a driver is killed between."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from service.domain.amending import amended, larger
from service.domain.ports import Change, Store
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import AttemptOutcome, Trial, TrialReason, TrialState
from service.execution.ledger import Finished, Idle, Ledger
from service.store.memory import memory_store
from tests.builders import NOW, a_study
from tests.fakes import FakeClock
from tests.unit.test_ledger import HYPERBAND, STUDY, TRAINER, a_ledger, a_step, a_store, run_to_rung, started, stored


def change(store: Store, move: Callable[[Study], Study]) -> Study:
    return store.studies.save(move(store.studies.get(STUDY)))


def pause(store: Store, *, now: bool = False) -> Study:
    return change(store, lambda study: study.pausing(StudyReason.PAUSE_REQUESTED, NOW, is_urgent=now))


def resume(store: Store) -> Study:
    return change(store, lambda study: study.resumed(NOW))


def extend(store: Store, budget: Mapping[str, Any]) -> Study:
    return change(store, lambda study: study.extended(larger(study, budget), NOW))


def patch(store: Store, document: Mapping[str, Any]) -> Study:
    return change(store, lambda study: study.changed(amended(study.definition, document), NOW))


def next_driver(store: Store, *, can_go_on: bool = True, clock: FakeClock | None = None) -> Ledger:
    """The ledger of a driver that follows one which is gone."""
    store.leases.release(STUDY, "driver-1")
    assert store.leases.acquire(STUDY, "driver-2", NOW, timedelta(days=1))
    ledger = Ledger(store, clock or FakeClock(), STUDY, "driver-2")
    ledger.begin(lambda _: can_go_on)
    return ledger


def test_a_pausing_study_starts_nothing_and_its_trials_leave_at_their_next_report() -> None:
    store = a_store()
    ledger = a_ledger(store)
    first, second = started(ledger), started(ledger)
    pause(store)
    ledger.poll()
    assert ledger.next() == Idle()
    assert not ledger.record(a_step(first, 1))
    assert not ledger.record(a_step(second, 1))
    assert ledger.next() == Finished()
    assert ledger.pause().state is StudyState.PAUSED
    assert [(trial.state, trial.reports) for trial in stored(store)] == [(TrialState.QUEUED, 1)] * 2
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.PAUSED


def test_a_resumed_study_goes_on_with_the_trials_it_had() -> None:
    store = a_store()
    ledger = a_ledger(store)
    ledger.record(a_step(started(ledger), 1))
    pause(store)
    ledger.poll()
    ledger.record(a_step(ledger.history.trials[0], 2))
    ledger.pause()
    resume(store)
    trial = started(next_driver(store))
    assert (trial.number, trial.reports, trial.attempts, trial.retries) == (0, 2, 2, 0)


def test_what_an_attempt_trained_before_it_left_an_epoch_is_counted_once() -> None:
    store = memory_store()
    store.studies.add(a_study(resources={"max_concurrent_trials": 2, "gpus_per_trial": 0.5}))
    ledger = a_ledger(store)
    trial = started(ledger)
    ledger.record(a_step(trial, 1))
    pause(store, now=True)
    ledger.poll()
    assert not ledger.record(a_step(trial, outcome="interrupted", seconds=6.0))
    left = store.trials.get(STUDY, 0)
    assert (left.state, left.seconds, left.gpu_seconds, left.reports) == (TrialState.QUEUED, 8.0, 4.0, 1)
    assert ledger.pause().state is StudyState.PAUSED


def test_an_attempt_that_left_although_its_study_was_resumed_meanwhile_goes_on() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    pause(store, now=True)
    resume(store)
    ledger.poll()
    assert not ledger.record(a_step(trial, outcome="interrupted", seconds=1.0))
    assert started(ledger).number == trial.number


def test_an_attempt_that_left_as_its_study_is_cancelled_ends_its_trial() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    change(store, lambda study: study.stopping(StudyReason.CANCEL_REQUESTED))
    ledger.poll()
    ledger.record(a_step(trial, outcome="interrupted"))
    assert ledger.is_idle
    assert store.trials.get(STUDY, 0).state is TrialState.CANCELLED
    assert ledger.finish().state is StudyState.CANCELLED


def test_a_trial_that_runs_and_is_to_stop_ends_at_its_next_report_and_the_search_goes_on() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    store.trials.ask_to_stop(STUDY, trial.number, NOW)
    ledger.poll()
    assert not ledger.record(a_step(trial, 1))
    ended = store.trials.get(STUDY, 0)
    assert (ended.state, ended.reason, ended.reports) == (TrialState.STOPPED, TrialReason.STOP_REQUESTED, 1)
    assert [decision.sentence for _, decision in store.trials.decisions(STUDY, 0)][-1] == "Stopped, as a user asked."
    assert started(ledger).number == 1


def test_a_trial_that_waits_at_its_rung_ends_as_soon_as_it_is_to_stop_whoever_holds_the_slots() -> None:
    store = a_store(concurrent=1, strategy=HYPERBAND, trainer=TRAINER, budget={"trials": 9})
    ledger = a_ledger(store, slots=1)
    run_to_rung(ledger, started(ledger))
    started(ledger)
    store.trials.ask_to_stop(STUDY, 0, NOW)
    ledger.poll()
    assert store.trials.get(STUDY, 0).reason is TrialReason.STOP_REQUESTED


def test_a_stop_that_a_driver_did_not_live_to_see_is_obeyed_by_the_next() -> None:
    store = a_store()
    first = a_ledger(store)
    started(first), started(first)
    store.trials.ask_to_stop(STUDY, 0, NOW)
    second = next_driver(store)
    assert second.history.stops == {0}
    assert started(second).number == 1
    assert store.trials.get(STUDY, 0).state is TrialState.STOPPED


def test_a_stop_is_heard_of_at_the_next_cheap_look() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    version = store.studies.get(STUDY).version
    store.trials.ask_to_stop(STUDY, trial.number, NOW)
    assert store.studies.get(STUDY).version == version + 1


def test_an_extended_study_goes_on_with_more_trials() -> None:
    store = a_store(budget={"trials": 1})
    ledger = a_ledger(store)
    run_to_rung(ledger, started(ledger))
    assert ledger.next() == Finished()
    ledger.finish()
    extend(store, {"trials": 2})
    second = next_driver(store)
    assert started(second).number == 1


def ended_with_a_running_trial(store: Store, reason: StudyReason = StudyReason.BUDGET_SPENT) -> None:
    """A study that ended when trial 0 had two reports of three, and trial 1 was asked to stop."""
    ledger = a_ledger(store)
    first, second = started(ledger), started(ledger)
    ledger.record(a_step(first, 1))
    store.trials.ask_to_stop(STUDY, second.number, NOW)
    ledger.poll()
    ledger.record(a_step(second, 1))
    change(store, lambda study: study.stopping(reason))
    ledger.poll()
    ledger.record(a_step(first, 2))
    ledger.finish()


@pytest.mark.parametrize("reason", [StudyReason.BUDGET_SPENT, StudyReason.STOP_REQUESTED])
def test_a_trial_that_the_end_of_its_study_stopped_goes_on_from_where_it_was(reason: StudyReason) -> None:
    store = a_store()
    ended_with_a_running_trial(store, reason)
    assert store.trials.get(STUDY, 0).state is TrialState.STOPPED
    extend(store, {"trials": 9})
    trial = started(next_driver(store))
    assert (trial.number, trial.reports, trial.reason) == (0, 2, None)
    assert store.trials.get(STUDY, 1).reason is TrialReason.STOP_REQUESTED, "a user ended that one"


def test_a_trial_whose_checkpoint_is_gone_stays_stopped() -> None:
    store = a_store()
    ended_with_a_running_trial(store)
    extend(store, {"trials": 9})
    assert started(next_driver(store, can_go_on=False)).number == 2
    assert store.trials.get(STUDY, 0).state is TrialState.STOPPED


def test_a_driver_killed_while_it_takes_up_an_extended_study_changes_nothing() -> None:
    store = a_store()
    ended_with_a_running_trial(store)
    extend(store, {"trials": 9})
    store.trials.record("driver-1", [Change(store.trials.get(STUDY, 0).revived())])
    assert started(next_driver(store)).number == 0


def test_a_target_lowered_to_what_was_reached_ends_the_study_at_once() -> None:
    store = a_store(budget={"trials": 4, "target": 0.9})
    ledger = a_ledger(store)
    run_to_rung(ledger, started(ledger), accuracy=0.8)
    patch(store, {"budget": {"target": 0.75}})
    assert ledger.poll().reason is StudyReason.TARGET_REACHED


def test_fewer_trials_than_have_begun_end_the_study_with_those_that_run() -> None:
    store = a_store(budget={"trials": 9})
    ledger = a_ledger(store)
    first, second = started(ledger), started(ledger)
    patch(store, {"budget": {"trials": 1}})
    ledger.poll()
    run_to_rung(ledger, first)
    assert ledger.next() == Idle()
    run_to_rung(ledger, second)
    assert ledger.next() == Finished()
    assert ledger.finish().state is StudyState.COMPLETED
    assert {trial.state for trial in stored(store)} == {TrialState.COMPLETED}


def test_more_workers_than_at_the_start_are_used_at_once() -> None:
    store = a_store(concurrent=1)
    ledger = a_ledger(store, slots=4)
    started(ledger)
    assert ledger.next() == Idle()
    patch(store, {"resources": {"max_concurrent_trials": 2}})
    ledger.poll()
    assert started(ledger).number == 1


def test_a_paused_study_spends_no_time() -> None:
    clock = FakeClock()
    store = a_store(budget={"wall_clock": 60})
    ledger = a_ledger(store, clock=clock)
    clock.pass_seconds(30)
    change(store, lambda study: study.pausing(StudyReason.PAUSE_REQUESTED, clock.now()))
    ledger.poll()
    ledger.pause()
    clock.pass_seconds(3600)
    change(store, lambda study: study.resumed(clock.now()))
    second = next_driver(store, clock=clock)
    assert isinstance(second.next(), Trial)
    clock.pass_seconds(31)
    assert second.refresh().reason is StudyReason.BUDGET_SPENT
