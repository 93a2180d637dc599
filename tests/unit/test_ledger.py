"""The ledger: what a driver knows is what the store holds, also after the driver was killed at any moment."""

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.domain.errors import LeaseLost
from service.domain.ports import Change, Store, TrialQuery
from service.domain.share import Share
from service.domain.study import StudyReason, StudyState
from service.domain.trial import MAX_RETRIES, AttemptOutcome, Report, Trial, TrialReason, TrialState
from service.execution.assignment import Progress
from service.execution.ledger import Finished, Idle, Ledger
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study
from tests.fakes import FakeClock

STUDY = "intents-abc123"
HYPERBAND = {"kind": "hyperband", "reduction_factor": 3, "min_epochs": 1}
TRAINER = {
    "kind": "text-classification",
    "model": "tiny-encoder",
    "data": {"train": "dataset://intents/train.csv"},
    "epochs": 9,
}


def a_store(concurrent: int = 2, **changes: Any) -> Store:
    store = memory_store()
    store.studies.add(a_study(resources={"max_concurrent_trials": concurrent}, **changes))
    return store


def a_ledger(store: Store, owner: str = "driver-1", slots: int = 2, clock: FakeClock | None = None) -> Ledger:
    assert store.leases.acquire(STUDY, owner, NOW, timedelta(days=1))
    store.shares.grant({STUDY: Share(slots)})
    ledger = Ledger(store, clock or FakeClock(), STUDY, owner)
    ledger.begin()
    return ledger


def started(ledger: Ledger) -> Trial:
    trial = ledger.next()
    assert isinstance(trial, Trial)
    return trial


def a_step(trial: Trial, *numbers: int, accuracy: float = 0.5, outcome: str | None = None, **changes: object) -> Progress:
    reports = [a_report(number, accuracy, attempt=trial.attempts) for number in numbers]
    return Progress(trial.number, trial.attempts, "host:1", reports, outcome, **changes)  # type: ignore[arg-type]


def run_to_rung(ledger: Ledger, trial: Trial, accuracy: float = 0.5) -> None:
    for number in range(trial.reports + 1, trial.until + 1):
        ledger.record(a_step(trial, number, accuracy=accuracy, outcome="done" if number == trial.until else None))


def stored(store: Store) -> list[Trial]:
    return list(store.trials.find(STUDY, TrialQuery(limit=1000)).items)


def test_the_study_is_running_once_it_has_a_driver() -> None:
    store = a_store()
    a_ledger(store)
    assert store.studies.get(STUDY).state is StudyState.RUNNING


def test_a_started_trial_is_in_the_store_before_it_runs() -> None:
    store = a_store()
    trial = started(a_ledger(store))
    assert stored(store) == [store.trials.get(STUDY, trial.number)]
    assert store.trials.get(STUDY, 0).state is TrialState.RUNNING
    assert [attempt.number for attempt in store.trials.attempts(STUDY, 0)] == [1]


def test_no_more_attempts_run_at_once_than_there_are_slots() -> None:
    ledger = a_ledger(a_store(), slots=2)
    started(ledger), started(ledger)
    assert ledger.next() == Idle()


def test_the_studys_own_limit_holds_when_more_slots_are_granted() -> None:
    ledger = a_ledger(a_store(concurrent=1), slots=4)
    started(ledger)
    assert ledger.next() == Idle()


def test_a_trial_that_gave_its_last_report_is_completed() -> None:
    store = a_store()
    ledger = a_ledger(store)
    run_to_rung(ledger, started(ledger), accuracy=0.75)
    trial = store.trials.get(STUDY, 0)
    assert (trial.state, trial.reason, trial.reports, trial.best_value) == (
        TrialState.COMPLETED,
        TrialReason.EPOCHS_DONE,
        3,
        0.75,
    )
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.DONE


def test_a_trial_at_its_rung_is_paused_and_the_losers_are_pruned() -> None:
    store = a_store(strategy=HYPERBAND, trainer=TRAINER, budget={"trials": 9})
    ledger = a_ledger(store, slots=1)
    for number in range(9):
        run_to_rung(ledger, started(ledger), accuracy=number / 10)
    promoted = started(ledger)
    assert promoted.number == 8
    states = {trial.number: trial.state for trial in stored(store)}
    assert states == {**dict.fromkeys(range(6), TrialState.PRUNED), 6: TrialState.PAUSED, 7: TrialState.PAUSED, 8: "running"}


def test_a_study_whose_budget_is_spent_is_stopping_and_then_completed() -> None:
    store = a_store(budget={"trials": 1})
    ledger = a_ledger(store)
    run_to_rung(ledger, started(ledger))
    assert ledger.next() == Finished()
    assert store.studies.get(STUDY).state is StudyState.STOPPING
    assert ledger.finish().state is StudyState.COMPLETED
    assert store.studies.get(STUDY).reason is StudyReason.BUDGET_SPENT


def test_a_trial_that_reaches_the_target_ends_the_study() -> None:
    store = a_store(budget={"trials": 4, "target": 0.9})
    ledger = a_ledger(store)
    first, second = started(ledger), started(ledger)
    assert not ledger.record(a_step(first, 1, accuracy=0.95))
    assert store.trials.get(STUDY, first.number).reason is TrialReason.TARGET_REACHED
    assert not ledger.record(a_step(second, 1, accuracy=0.1))
    assert ledger.next() == Finished()
    assert ledger.finish().state is StudyState.COMPLETED


def test_after_a_stop_request_running_trials_end_at_their_next_report() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    store.studies.save(store.studies.get(STUDY).stopping(StudyReason.STOP_REQUESTED))
    ledger.refresh()
    assert ledger.next() == Idle()
    assert not ledger.record(a_step(trial, 1))
    ended = store.trials.get(STUDY, 0)
    assert (ended.state, ended.reports) == (TrialState.STOPPED, 1)
    assert ledger.finish().state is StudyState.STOPPED


def test_a_cancel_ends_running_trials_and_their_attempts_at_once() -> None:
    store = a_store()
    ledger = a_ledger(store)
    started(ledger)
    store.studies.save(store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
    ledger.refresh()
    assert ledger.finish().state is StudyState.CANCELLED
    assert store.trials.get(STUDY, 0).state is TrialState.CANCELLED
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.STOPPED


def test_running_trials_end_when_the_wall_clock_is_spent() -> None:
    clock = FakeClock()
    store = a_store(budget={"wall_clock": "1m"})
    ledger = a_ledger(store, clock=clock)
    trial = started(ledger)
    clock.pass_seconds(61)
    assert ledger.refresh().reason is StudyReason.BUDGET_SPENT
    assert not ledger.record(a_step(trial, 1))
    assert store.trials.get(STUDY, 0).reason is TrialReason.BUDGET_SPENT


def a_gpu_store(**budget: Any) -> Store:
    store = memory_store()
    resources = {"max_concurrent_trials": 2, "gpus_per_trial": 1}
    store.studies.add(a_study(resources=resources, trainer=TRAINER, budget=budget))
    return store


def test_running_trials_end_when_the_next_report_of_both_does_not_fit_into_the_gpu_time() -> None:
    store = a_gpu_store(gpu_hours=7.9 / 3600)  # of 2 s each
    ledger = a_ledger(store)
    first, second = started(ledger), started(ledger)
    assert ledger.record(a_step(first, 1))
    assert not ledger.record(a_step(second, 1))
    assert store.studies.get(STUDY).reason is StudyReason.BUDGET_SPENT
    assert not ledger.record(a_step(first, 2))
    assert sum(trial.gpu_seconds for trial in stored(store)) == 6


def test_what_a_lost_attempt_took_is_paid_for_and_known_to_the_next_driver() -> None:
    clock, store = FakeClock(), a_gpu_store(trials=3)
    ledger = a_ledger(store, clock=clock)
    trial = started(ledger)
    ledger.record(a_step(trial, 1))
    clock.pass_seconds(9)
    ledger.lose(trial.number, trial.attempts, "its process is gone")
    assert (stored(store)[0].lost_seconds, stored(store)[0].gpu_seconds) == (7, 9)
    assert a_ledger(store, clock=clock).history.trials[0].gpu_seconds == 9


def test_an_attempt_that_was_lost_with_its_driver_costs_a_report_at_most() -> None:
    clock, store = FakeClock(), a_gpu_store(trials=3)
    ledger = a_ledger(store, clock=clock)
    ledger.record(a_step(started(ledger), 1))
    clock.pass_seconds(5000)
    a_ledger(store, clock=clock)
    assert stored(store)[0].lost_seconds == 2


def test_an_infeasible_trial_says_why_and_the_study_goes_on() -> None:
    store = a_store()
    ledger = a_ledger(store)
    ledger.record(a_step(started(ledger), outcome="failed", reason="out_of_memory", detail="lower `batch_size`"))
    trial = store.trials.get(STUDY, 0)
    assert (trial.state, trial.reason, trial.detail) == (TrialState.INFEASIBLE, TrialReason.OUT_OF_MEMORY, "lower `batch_size`")
    assert started(ledger).number == 1


def test_a_study_of_a_few_infeasible_trials_is_not_given_up() -> None:
    store = a_store(budget={"trials": 6})
    ledger = a_ledger(store)
    for _ in range(6):
        ledger.record(a_step(started(ledger), outcome="failed", reason="out_of_memory", detail="lower `batch_size`"))
    assert ledger.next() == Finished()
    assert ledger.finish().reason is StudyReason.BUDGET_SPENT


def test_a_trial_that_stops_early_is_completed_and_says_so() -> None:
    store = a_store()
    ledger = a_ledger(store)
    assert not ledger.record(a_step(started(ledger), 1, 2, outcome="stopped_early"))
    trial = store.trials.get(STUDY, 0)
    assert (trial.state, trial.reason, trial.reports) == (TrialState.COMPLETED, TrialReason.NO_IMPROVEMENT, 2)
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.DONE
    assert started(ledger).number == 1


def test_a_trial_that_stops_early_at_its_rung_does_not_wait_for_a_promotion() -> None:
    store = a_store(strategy=HYPERBAND, trainer=TRAINER, budget={"trials": 9})
    ledger = a_ledger(store)
    ledger.record(a_step(started(ledger), 1, outcome="stopped_early"))
    assert store.trials.get(STUDY, 0).state is TrialState.COMPLETED


def test_a_trial_that_stops_early_with_its_whole_length_trained_is_simply_done() -> None:
    store = a_store()
    ledger = a_ledger(store)
    ledger.record(a_step(started(ledger), 1, 2, 3, outcome="stopped_early"))
    assert store.trials.get(STUDY, 0).reason is TrialReason.EPOCHS_DONE


def test_an_early_stop_that_the_driver_died_over_is_told_again_by_the_next_attempt() -> None:
    store = a_store()
    first = a_ledger(store)
    trial = started(first)
    first.record(a_step(trial, 1, 2))  # and before it could record the end, it died
    store.leases.release(STUDY, "driver-1")
    ledger = a_ledger(store, "driver-2")
    again = started(ledger)
    ledger.record(a_step(again, 1, 2, outcome="stopped_early"))
    ended = store.trials.get(STUDY, 0)
    assert (ended.reason, ended.reports, ended.attempts) == (TrialReason.NO_IMPROVEMENT, 2, 2)


def test_a_whole_length_in_steps_is_counted_in_reports() -> None:
    trainer = {**TRAINER, "max_steps": 25, "report_every": 10}
    store = a_store(trainer=trainer)
    ledger = a_ledger(store)
    trial = started(ledger)
    assert trial.until == 3
    run_to_rung(ledger, trial)
    assert store.trials.get(STUDY, 0).reason is TrialReason.EPOCHS_DONE


def fails(ledger: Ledger, trial: Trial, *numbers: int, detail: str = "no such file", **changes: Any) -> None:
    ledger.record(a_step(trial, *numbers, **{"outcome": "failed", "reason": "trainer_error", "detail": detail, **changes}))


def test_a_study_whose_first_trials_fail_alike_pauses_and_says_why() -> None:
    store = a_store()
    ledger = a_ledger(store)
    for _ in range(3):
        fails(ledger, started(ledger))
    assert ledger.next() == Finished()
    assert ledger.pause().state is StudyState.PAUSED
    study = store.studies.get(STUDY)
    assert (study.reason, "no such file" in (study.detail or "")) == (StudyReason.TOO_MANY_FAILURES, True)
    assert [trial.state for trial in stored(store)] == [TrialState.QUEUED] * 3


def test_a_study_that_failures_paused_goes_on_with_the_queued_trials_once_it_is_resumed() -> None:
    store = a_store()
    first = a_ledger(store)
    for _ in range(3):
        fails(first, started(first))
    study = first.pause()
    store.studies.save(study.resumed(NOW + timedelta(minutes=5)))
    store.leases.release(STUDY, "driver-1")
    clock = FakeClock(NOW + timedelta(minutes=5))
    ledger = a_ledger(store, "driver-2", clock=clock)
    assert ledger.study.state is StudyState.RUNNING
    assert (started(ledger).number, started(ledger).number) == (0, 1)


def test_a_driver_that_died_over_the_third_failure_leaves_the_pause_to_the_next_one() -> None:
    store = a_store()
    first = a_ledger(store)
    for _ in range(2):
        fails(first, started(first))
    trial = started(first)
    attempt = store.trials.attempts(STUDY, trial.number)[0]
    failed = replace(attempt, ended_at=NOW, outcome=AttemptOutcome.FAILED, detail="no such file")
    store.trials.record("driver-1", [Change(trial.failed_attempt(NOW), attempt=failed)])
    store.leases.release(STUDY, "driver-1")
    assert a_ledger(store, "driver-2").study.reason is StudyReason.TOO_MANY_FAILURES


def test_an_error_of_the_trainer_is_tried_again_after_a_while_from_the_last_checkpoint() -> None:
    clock = FakeClock()
    store = a_store(budget={"trials": 1})
    ledger = a_ledger(store, clock=clock)
    fails(ledger, started(ledger), 1, detail="CUDA error")
    trial, attempt = store.trials.get(STUDY, 0), store.trials.attempts(STUDY, 0)[0]
    assert (trial.state, trial.errors, trial.reports) == (TrialState.QUEUED, 1, 1)
    assert (attempt.outcome, attempt.detail) == (AttemptOutcome.FAILED, "CUDA error")
    assert ledger.next() == Finished()
    assert ledger.is_held()
    clock.pass_seconds(1)
    again = started(ledger)
    assert (again.number, again.attempts, again.reports) == (0, 2, 1)


def test_a_trial_whose_retries_are_used_up_fails_with_its_traceback() -> None:
    clock = FakeClock()
    store = a_store(budget={"trials": 1}, max_retries=1)
    ledger = a_ledger(store, clock=clock)
    for _ in range(2):
        clock.pass_seconds(60)
        fails(ledger, started(ledger), detail="CUDA error")
    trial = store.trials.get(STUDY, 0)
    assert (trial.state, trial.reason, trial.detail) == (TrialState.FAILED, TrialReason.TRAINER_ERROR, "CUDA error")


def test_parameters_that_the_trainer_does_not_take_are_not_tried_again() -> None:
    store = a_store()
    ledger = a_ledger(store)
    fails(ledger, started(ledger), outcome="refused")
    assert store.trials.get(STUDY, 0).state is TrialState.FAILED


def test_an_attempt_whose_disk_is_full_pauses_the_study_and_is_no_error_of_its_trial() -> None:
    store = a_store()
    ledger = a_ledger(store)
    full, other = started(ledger), started(ledger)
    ledger.record(a_step(full, 1, outcome="no_space", detail="/data has 3 bytes free"))
    assert (ledger.study.state, ledger.study.reason) == (StudyState.PAUSING, StudyReason.NO_SPACE)
    assert not ledger.record(a_step(other, 1))
    assert ledger.pause().detail == "/data has 3 bytes free"
    assert [(trial.state, trial.errors) for trial in stored(store)] == [(TrialState.QUEUED, 0)] * 2
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.PAUSED


def test_a_trial_that_the_storage_held_up_waits_longer_each_time_and_is_not_blamed() -> None:
    clock = FakeClock()
    store = a_store(concurrent=1, budget={"trials": 1})
    ledger = a_ledger(store, slots=1, clock=clock)
    for seconds in (1, 2, 4):
        ledger.record(a_step(started(ledger), outcome="away", detail="The object storage refuses (503)."))
        (trial,) = stored(store)
        assert (trial.state, trial.errors, trial.not_before) == (TrialState.QUEUED, 0, clock.now() + timedelta(seconds=seconds))
        assert isinstance(ledger.next(), Finished)
        clock.pass_seconds(seconds)
    assert {attempt.outcome for attempt in store.trials.attempts(STUDY, 0)} == {AttemptOutcome.LOST}
    assert store.trials.attempts(STUDY, 0)[0].detail == "The object storage refuses (503)."
    ledger.record(a_step(started(ledger), 1))
    assert stored(store)[0].retries == 0


def test_a_study_whose_storage_stays_away_pauses_and_loses_no_trial() -> None:
    clock = FakeClock()
    store = a_store(concurrent=1, budget={"trials": 1})
    ledger = a_ledger(store, slots=1, clock=clock)
    for _ in range(MAX_RETRIES + 1):
        ledger.record(a_step(started(ledger), outcome="away", detail="The object storage refuses (503)."))
        clock.pass_seconds(60)
    assert (ledger.study.state, ledger.study.reason) == (StudyState.PAUSING, StudyReason.TOO_MANY_FAILURES)
    assert ledger.pause().detail == "The object storage refuses (503)."
    assert [trial.state for trial in stored(store)] == [TrialState.QUEUED]


def test_a_lost_attempt_is_tried_again() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    ledger.lose(trial.number, trial.attempts, "the worker was killed")
    again = started(ledger)
    assert (again.number, again.attempts) == (trial.number, 2)
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.LOST


def test_a_trial_that_is_lost_too_often_in_a_row_fails() -> None:
    store = a_store(budget={"trials": 1})
    ledger = a_ledger(store)
    for _ in range(MAX_RETRIES + 1):
        trial = started(ledger)
        ledger.lose(trial.number, trial.attempts, "the worker was killed")
    assert store.trials.get(STUDY, 0).reason is TrialReason.RETRIES_EXHAUSTED


def test_what_a_given_up_attempt_still_says_is_ignored() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    ledger.lose(trial.number, trial.attempts, "silent")
    assert not ledger.record(a_step(trial, 1))
    assert store.trials.get(STUDY, 0).reports == 0


def test_a_report_that_comes_twice_counts_once() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    ledger.record(a_step(trial, 1))
    ledger.record(a_step(trial, 1, 2))
    assert [report.number for report in store.trials.reports(STUDY, 0)] == [1, 2]


def test_a_new_driver_goes_on_with_what_ran_under_the_killed_one() -> None:
    store = a_store()
    first = a_ledger(store)
    trial = started(first)
    first.record(a_step(trial, 1))
    store.leases.release(STUDY, "driver-1")
    again = started(a_ledger(store, "driver-2"))
    assert (again.number, again.reports, again.attempts, again.retries) == (trial.number, 1, 2, 0)
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.LOST


def test_a_driver_without_the_lease_writes_nothing() -> None:
    store = a_store()
    ledger = a_ledger(store)
    trial = started(ledger)
    store.leases.release(STUDY, "driver-1")
    assert store.leases.acquire(STUDY, "driver-2", NOW, timedelta(days=1))
    with pytest.raises(LeaseLost):
        ledger.record(a_step(trial, 1))
    assert store.trials.get(STUDY, 0).reports == 0


class _Workers:
    """Workers whose disks outlive drivers: they carry each trial's reports, as checkpoints do."""

    def __init__(self) -> None:
        self.disk: dict[int, list[Report]] = {}
        self.trained: list[tuple[int, int]] = []

    def step(self, trial: Trial) -> Progress:
        """Train one report further than the disk, or only say again what it holds. Every fourth trial stops early at report 2."""
        known = self.disk.setdefault(trial.number, [])
        stops = trial.number % 4 == 0
        if len(known) < min(trial.until, 2 if stops else trial.until):
            number = len(known) + 1
            accuracy = ((trial.number * 37 + number * 11) % 100) / 100
            known.append(a_report(number, accuracy, attempt=trial.attempts))
            self.trained.append((trial.number, number))
        stopped = stops and len(known) == 2
        outcome: Any = "stopped_early" if stopped else "done" if len(known) >= trial.until else None
        return Progress(trial.number, trial.attempts, "host:1", list(known), outcome)


def search(kills: list[int]) -> tuple[Store, _Workers]:
    """A whole study, whose driver is killed after each of these numbers of steps, before it can record the step."""
    store = a_store(strategy=HYPERBAND, trainer=TRAINER, budget={"trials": 17})
    workers = _Workers()
    for life, steps in enumerate([*kills, 10_000]):
        ledger = a_ledger(store, f"driver-{life}")
        running: list[Trial] = []
        for _ in range(steps):
            while isinstance(trial := ledger.next(), Trial):
                running.append(trial)
            if not running:
                break
            trial = running.pop(0)
            if ledger.record(workers.step(trial)):
                running.append(trial)
        else:
            if running:
                workers.step(running[0])  # trained and saved, but the driver is killed before it hears of it
            store.leases.release(STUDY, f"driver-{life}")
            continue
        ledger.finish()
        break
    return store, workers


def first_bracket(store: Store) -> list[tuple[int, int]]:
    """How far each of its trials came."""
    return [(trial.number, trial.reports) for trial in stored(store) if trial.bracket == 0]


@cache
def undisturbed() -> list[tuple[int, int]]:
    """The first bracket of a study whose driver lives on: the same for all examples."""
    return first_bracket(search([])[0])


@settings(deadline=None, max_examples=30)
@given(kills=st.lists(st.integers(min_value=0, max_value=25), max_size=5))
def test_a_killed_driver_changes_no_result_and_nothing_is_trained_twice(kills: list[int]) -> None:
    store, workers = search(kills)
    assert len(workers.trained) == len(set(workers.trained))
    assert store.studies.get(STUDY).state is StudyState.COMPLETED
    assert first_bracket(store) == undisturbed()
    for trial in stored(store):
        assert trial.state.is_end
        assert [report.number for report in store.trials.reports(STUDY, trial.number)] == list(range(1, trial.reports + 1))
        kinds = [decision.kind for _, decision in store.trials.decisions(STUDY, trial.number)]
        began = ["proposed", *["promoted"] * trial.rung]
        # What still waits when the study ends is cut without a comparison.
        assert kinds in ([began, [*began, "cut"]] if trial.reason is TrialReason.RUNG_CUT else [began])


def test_a_driver_killed_between_the_target_and_what_follows_is_followed_by_one_that_stops() -> None:
    store = a_store(budget={"trials": 5, "target": 0.9})
    ledger = a_ledger(store)
    trial = started(ledger)
    report = a_report(1, 0.95)
    reported = store.trials.get(STUDY, trial.number).reported(report, ledger.study.definition.objective, 0)
    store.trials.record("driver-1", [Change(trial=reported, report=report)])  # and here it died
    store.leases.release(STUDY, "driver-1")
    a_ledger(store, owner="driver-2")
    study = store.studies.get(STUDY)
    assert (study.state, study.reason) == (StudyState.STOPPING, StudyReason.TARGET_REACHED)


def test_finishing_twice_is_finishing_once() -> None:
    store = a_store()
    ledger = a_ledger(store)
    store.studies.save(store.studies.get(STUDY).stopping(StudyReason.CANCEL_REQUESTED))
    ledger.refresh()
    assert ledger.finish() == ledger.finish()


def decisions(store: Store, number: int) -> list[tuple[str, str]]:
    return [(decision.kind, decision.by) for _, decision in store.trials.decisions(STUDY, number)]


def test_why_a_trial_was_proposed_promoted_and_cut_is_in_the_store() -> None:
    store = a_store(strategy={**HYPERBAND, "sampler": {"kind": "random"}}, trainer=TRAINER, budget={"trials": 9})
    ledger = a_ledger(store, slots=1)
    for number in range(9):
        run_to_rung(ledger, started(ledger), accuracy=number / 10)
    started(ledger)
    by = [[kind for kind, _ in decisions(store, number)] for number in (0, 8)]
    assert by == [["proposed", "cut"], ["proposed", "promoted"]]
    cut = store.trials.decisions(STUDY, 0)[1][1]
    assert (cut.report, cut.value, cut.rank, cut.among) == (1, 0.0, 9, 9)
    assert cut.sentence.startswith("Cut by `hyperband` at report 1")


MEDIAN = {"kind": "median", "min_trials": 2, "sampler": {"kind": "random"}}


def test_a_trial_that_falls_below_the_median_ends_with_its_report_and_says_why() -> None:
    store = a_store(strategy=MEDIAN, budget={"trials": 5})
    ledger = a_ledger(store)
    for _ in range(2):
        run_to_rung(ledger, started(ledger), accuracy=0.5)
    worse, better = started(ledger), started(ledger)
    assert ledger.record(a_step(better, 1, accuracy=0.6))
    assert not ledger.record(a_step(worse, 1, accuracy=0.4))
    trial = store.trials.get(STUDY, worse.number)
    assert (trial.state, trial.reason, trial.reports) == (TrialState.PRUNED, TrialReason.BELOW_MEDIAN, 1)
    assert store.trials.attempts(STUDY, worse.number)[0].outcome is AttemptOutcome.STOPPED
    assert decisions(store, worse.number) == [("proposed", "random"), ("cut", "median")]
    assert decisions(store, better.number) == [("proposed", "random")]
    assert started(ledger).number == 4


def test_what_a_driver_died_over_is_decided_by_the_next_one_and_written_once() -> None:
    store = a_store(strategy=MEDIAN, budget={"trials": 5})
    first = a_ledger(store)
    for _ in range(2):
        run_to_rung(first, started(first), accuracy=0.5)
    worse = started(first)
    reported = store.trials.get(STUDY, worse.number).reported(a_report(1, 0.4), first.study.definition.objective, 0)
    store.trials.record("driver-1", [Change(trial=reported, report=a_report(1, 0.4))])  # and here it died
    store.leases.release(STUDY, "driver-1")
    assert started(a_ledger(store, owner="driver-2")).number == 3
    assert store.trials.get(STUDY, worse.number).reason is TrialReason.BELOW_MEDIAN
    assert decisions(store, worse.number) == [("proposed", "random"), ("cut", "median")]


def test_what_users_ask_for_is_tried_next() -> None:
    store = a_store(initial=[{"learning_rate": 2e-3}], budget={"trials": 4})
    ledger = a_ledger(store)
    assert started(ledger).parameters == {"learning_rate": 2e-3}
    asked = {"learning_rate": 3e-3}
    store.trials.request(STUDY, asked, NOW)
    ledger.refresh()
    trial = started(ledger)
    assert (trial.parameters, decisions(store, trial.number)) == (asked, [("proposed", "request")])
    assert decisions(store, 0) == [("proposed", "initial")]
    run_to_rung(ledger, trial)
    assert started(ledger).parameters != asked


def test_a_new_driver_knows_what_was_asked_for_under_the_one_before() -> None:
    store = a_store(budget={"trials": 4})
    store.trials.request(STUDY, {"learning_rate": 3e-3}, NOW)
    assert started(a_ledger(store)).parameters == {"learning_rate": 3e-3}


def test_requests_are_read_once_more_before_the_study_ends() -> None:
    store = a_store(budget={"trials": 1})
    ledger = a_ledger(store)
    run_to_rung(ledger, started(ledger))
    store.trials.request(STUDY, {"learning_rate": 3e-3}, NOW)
    assert ledger.next() == Finished()
    assert ledger.history.requested == ({"learning_rate": 3e-3},)


def test_a_request_at_the_very_moment_of_the_studys_end_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2, "grid": [1e-3]}}
    store = a_store(space=rates, strategy={"kind": "grid"}, budget={})
    ledger = a_ledger(store)
    run_to_rung(ledger, started(ledger))
    stop = ledger._known.stop_unless_changed

    def asked_for_first(reason: StudyReason) -> None:
        if not store.trials.requests(STUDY):
            store.trials.request(STUDY, {"learning_rate": 3e-3}, NOW)
        stop(reason)

    monkeypatch.setattr(ledger._known, "stop_unless_changed", asked_for_first)
    assert started(ledger).parameters == {"learning_rate": 3e-3}


def test_a_trial_whose_model_breaks_an_outcome_ends_at_once_and_says_why() -> None:
    store = a_store(outcomes=["model/megabytes <= 1"])
    ledger = a_ledger(store)
    trial = started(ledger)
    report = a_report(1, metrics={"validation/accuracy": 0.9, "model/megabytes": 3.0}, attempt=1)
    assert ledger.record(Progress(trial.number, trial.attempts, "host:1", [report])) is False
    [ended] = stored(store)
    assert (ended.state, ended.reason) == (TrialState.INFEASIBLE, TrialReason.OUTCOME_BROKEN)
    assert ended.detail == "`model/megabytes` is 3, 2 above the 1 allowed"
    assert ended.best_value is None
    *_, (_, why) = store.trials.decisions(STUDY, trial.number)
    assert why.sentence == "Ended at report 1: `model/megabytes` is 3, 2 above the 1 allowed."


def test_a_trial_that_never_keeps_the_outcomes_ends_infeasible_and_not_completed() -> None:
    store = a_store(outcomes=["validation/loss <= 0.2"])
    ledger = a_ledger(store)
    trial = started(ledger)
    for number in (1, 2, 3):
        ledger.record(a_step(trial, number, accuracy=number / 4, outcome="done" if number == 3 else None))
    [ended] = stored(store)
    assert (ended.state, ended.reason, ended.reports) == (TrialState.INFEASIBLE, TrialReason.OUTCOME_BROKEN, 3)
    assert ended.detail == "`validation/loss` is 0.25, 0.05 above the 0.2 allowed"


def test_a_driver_that_comes_after_ends_what_the_one_before_had_seen_to_break_an_outcome() -> None:
    store = a_store(outcomes=["model/megabytes <= 1"])
    ledger = a_ledger(store)
    trial = started(ledger)
    report = a_report(1, metrics={"validation/accuracy": 0.9, "model/megabytes": 3.0}, attempt=1)
    objective = ledger.study.definition.objective
    store.trials.record("driver-1", [Change(trial.reported(report, objective, 0, counts=False), report=report)])
    store.leases.release(STUDY, "driver-1")
    again = a_ledger(store, owner="driver-2")
    assert started(again).number != trial.number
    assert store.trials.get(STUDY, trial.number).reason is TrialReason.OUTCOME_BROKEN
    assert again.history.points == store.trials.history(STUDY).points


def on(worker: str, progress: Progress) -> Progress:
    return replace(progress, worker=worker)


def test_a_study_leaves_a_node_where_it_fails_and_says_so() -> None:
    clock = FakeClock()
    store = a_store(concurrent=2, budget={"trials": 9})
    ledger = a_ledger(store, clock=clock)
    good = started(ledger)
    ledger.record(on("good:1", a_step(good, 1)))
    for _ in range(3):
        failing = started(ledger)
        clock.pass_seconds(0.2)  # less than a failed trial waits: the next one is another
        ledger.record(on("bad:1", a_step(failing, outcome="failed", reason="trainer_error", detail="CUDA error")))
    assert ledger.next() == Idle()
    assert not ledger.record(on("good:1", a_step(good, 2)))
    assert store.trials.attempts(STUDY, 0)[0].outcome is AttemptOutcome.PREEMPTED
    assert ledger.next() == Finished()
    told = [event.payload for event in store.events.after(STUDY, 0) if event.kind == "study.quarantine"]
    assert [(one["node"], one["trials"]) for one in told] == [("bad", [1, 2, 3])]
    assert ledger.place() == {"bad"}
    assert started(ledger).number == 0
    store.leases.release(STUDY, "driver-1")
    assert a_ledger(store, "driver-2", clock=clock).place() == {"bad"}
