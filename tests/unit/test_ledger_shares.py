"""The ledger and the study's share of the workers: who leaves when it shrinks, and what the driver says it could use."""

from datetime import timedelta
from typing import Any

from service.domain.ports import Store
from service.domain.share import Share
from service.domain.study import StudyReason, StudyState
from service.domain.trial import AttemptOutcome, Trial, TrialState
from service.execution.assignment import Progress
from service.execution.ledger import Finished, Idle, Ledger
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study
from tests.fakes import FakeClock

STUDY = "intents-abc123"


class Driven:
    """A study of at most 3 trials at once, and its driver's ledger."""

    def __init__(self, slots: int, **changes: Any) -> None:
        self.store: Store = memory_store()
        self.store.studies.add(a_study(resources={"max_concurrent_trials": 3}, **changes))
        self.has(slots)
        assert self.store.leases.acquire(STUDY, "driver-1", NOW, timedelta(days=1))
        self.ledger = Ledger(self.store, FakeClock(), STUDY, "driver-1")
        self.ledger.begin()

    def has(self, slots: int) -> None:
        self.store.shares.grant({STUDY: Share(slots)})

    def starts(self) -> Trial:
        trial = self.ledger.next()
        assert isinstance(trial, Trial)
        return trial

    def reports(self, trial: Trial, number: int, *, is_last: bool = False) -> bool:
        report = a_report(number, attempt=trial.attempts)
        return self.ledger.record(Progress(trial.number, trial.attempts, "host:1", [report], "done" if is_last else None))

    @property
    def wanted(self) -> int | None:
        self.ledger.poll()
        share = self.store.shares.get(STUDY)
        return share.wanted if share else None


def test_a_study_without_a_share_has_no_slot() -> None:
    driven = Driven(slots=2)
    driven.store.shares.drop(STUDY)
    driven.ledger.poll()
    assert driven.ledger.next() == Finished()
    assert driven.ledger.is_held()


def test_slots_that_are_granted_later_are_used() -> None:
    driven = Driven(slots=1)
    driven.starts()
    assert driven.ledger.next() == Idle()
    driven.has(2)
    driven.ledger.poll()
    assert driven.starts().number == 1


def test_when_the_share_shrinks_the_attempt_that_reports_next_leaves() -> None:
    driven = Driven(slots=2)
    first, second = driven.starts(), driven.starts()
    driven.has(1)
    driven.ledger.poll()
    assert driven.reports(second, 1) is False
    assert driven.reports(first, 1) is True
    trial = driven.store.trials.get(STUDY, second.number)
    assert (trial.state, trial.reports, trial.retries, trial.errors) == (TrialState.QUEUED, 1, 0, 0)
    assert driven.store.trials.attempts(STUDY, second.number)[0].outcome is AttemptOutcome.PREEMPTED


def test_an_attempt_at_its_last_report_is_completed_although_the_share_shrank() -> None:
    driven = Driven(slots=1)
    trial = driven.starts()
    driven.reports(trial, 1)
    driven.reports(trial, 2)
    driven.has(0)
    driven.ledger.poll()
    driven.reports(trial, 3, is_last=True)
    assert driven.store.trials.get(STUDY, trial.number).state is TrialState.COMPLETED


def test_a_study_wants_all_it_may_have_as_long_as_more_could_start() -> None:
    driven = Driven(slots=2)
    driven.starts(), driven.starts()
    assert driven.wanted == 3


def test_a_study_that_can_start_no_more_wants_what_runs() -> None:
    driven = Driven(slots=3, budget={"trials": 2})
    driven.starts(), driven.starts()
    assert driven.ledger.next() == Idle()
    assert driven.wanted == 2


def test_a_study_whose_trials_may_go_on_again_wants_more_without_being_asked_for_the_next_one() -> None:
    hyperband = {"kind": "hyperband", "reduction_factor": 3, "min_epochs": 1}
    driven = Driven(slots=3, strategy=hyperband, budget={"trials": 3})
    trials = [driven.starts() for _ in range(3)]
    for trial in trials[:2]:
        driven.reports(trial, 1, is_last=True)
    assert driven.ledger.next() == Idle()
    assert driven.wanted == 1
    driven.has(1)
    driven.reports(trials[2], 1, is_last=True)
    assert driven.wanted == 3


def test_what_a_study_wants_is_written_when_it_changes() -> None:
    driven = Driven(slots=1)
    assert driven.wanted == 3
    driven.store.shares.want(STUDY, 7)
    assert driven.wanted == 7, "the driver has nothing new to say"


def test_a_look_at_the_share_also_sees_that_the_study_is_to_pause() -> None:
    driven = Driven(slots=1)
    study = driven.store.studies.get(STUDY)
    driven.store.studies.save(study.pausing(StudyReason.PAUSE_REQUESTED, NOW))
    assert driven.ledger.poll().state is StudyState.PAUSING


def test_a_study_that_lost_its_last_slot_with_its_last_report_still_ends() -> None:
    driven = Driven(slots=2, budget={"trials": 1})
    trial = driven.starts()
    assert driven.ledger.next() == Idle()
    driven.reports(trial, 1), driven.reports(trial, 2)
    driven.has(0)
    driven.ledger.poll()
    driven.reports(trial, 3, is_last=True)
    assert driven.wanted == 0
    assert not driven.ledger.is_held(), "it wants no slot, and would get none"
    assert driven.ledger.next() == Finished()
    assert driven.ledger.study.reason is StudyReason.BUDGET_SPENT
