"""How many trials share a GPU: what holds for any attempts, and what the driver makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.controller.allocation import SharingRules
from service.controller.room import Capacity, slots_within
from service.controller.sharing import Member, share_out
from service.domain.attempts import Attempts, with_attempt
from service.domain.definition import Resources
from service.domain.events import EventKind
from service.domain.packing import MARGIN, MOST_ON_A_GPU, USED_PART, fitting, share_of_gpu, sharing, trials_per_gpu
from service.domain.ports import Store
from service.domain.share import Share
from service.domain.study import StudyState
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialReason, TrialState
from service.execution.assignment import Progress
from service.execution.ledger import Finished, Idle, Ledger
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study, a_trial
from tests.fakes import FakeClock
from trainers.contract import GpuMemory

STUDY = "intents-abc123"
GIB = 2**30
PACKED = {"gpus_per_trial": "auto", "max_concurrent_trials": 9}


@dataclass(frozen=True)
class Ran:
    """An attempt of a configuration: what it took, and whether it was short of memory then."""

    rate: float
    peak: int
    crowded: bool = False


def packed(ran: Sequence[Ran], total: int = 80 * GIB) -> list[int]:
    """How many share a GPU before the first of these attempts and after each, when each runs as packed as it then may."""
    trials: dict[int, Trial] = {}
    attempts: Attempts = {}
    found = [1]
    for number, one in enumerate(ran):
        trials[number] = a_trial(number, parameters={"learning_rate": one.rate})
        outcome = AttemptOutcome.CROWDED if one.crowded and found[-1] > 1 else AttemptOutcome.DONE
        gpus = share_of_gpu(found[-1])
        attempt = Attempt(1, 0, 3, NOW, NOW, outcome, gpus=gpus, peak_bytes=one.peak, gpu_bytes=total)
        attempts = with_attempt(attempts, number, attempt)
        found.append(trials_per_gpu(trials, attempts))
    return found


@st.composite
def runs(draw: st.DrawFn) -> list[Ran]:
    one = st.builds(Ran, st.sampled_from([1e-3, 1e-4, 1e-5]), st.integers(1, 100 * GIB), st.booleans())
    return draw(st.lists(one, max_size=12))


def test_trials_share_a_gpu_once_two_configurations_are_measured() -> None:
    assert packed([Ran(1e-3, 8 * GIB), Ran(1e-3, 8 * GIB), Ran(1e-4, 10 * GIB)]) == [1, 1, 1, 6]


def test_an_attempt_that_nobody_measured_says_nothing() -> None:
    trials = {0: a_trial(0), 1: a_trial(1, parameters={"learning_rate": 1e-4})}
    assert trials_per_gpu(trials, {number: [Attempt(1, 0, 3, NOW)] for number in trials}) == 1


def test_small_models_do_not_crowd_a_gpu() -> None:
    assert packed([Ran(1e-3, 1), Ran(1e-4, 1)])[-1] == MOST_ON_A_GPU


def test_after_a_lack_of_memory_one_fewer_share_a_gpu_for_good() -> None:
    small = [Ran(1e-3, 8 * GIB), Ran(1e-4, 8 * GIB)]
    assert packed([*small, Ran(1e-5, 8 * GIB, crowded=True), *small]) == [1, 1, 7, 6, 6, 6]


@given(ran=runs(), total=st.integers(1, 200 * GIB))
def test_the_hungriest_attempt_fits_so_often_with_a_margin(ran: list[Ran], total: int) -> None:
    for done, number in enumerate(packed(ran, total)):
        assert 1 <= number <= MOST_ON_A_GPU
        if number > 1:
            assert number * MARGIN * max(one.peak for one in ran[:done]) <= total * USED_PART * (1 + 1e-9)


@given(ran=runs())
def test_once_trials_share_a_gpu_they_only_ever_become_fewer(ran: list[Ran]) -> None:
    found = packed(ran)
    began = next((at for at, number in enumerate(found) if number > 1), len(found))
    assert found[began:] == sorted(found[began:], reverse=True)


@given(ran=runs())
def test_each_lack_of_memory_beside_others_makes_them_fewer(ran: list[Ran]) -> None:
    found = packed(ran)
    assert all(after < before for before, after, one in zip(found, found[1:], ran, strict=False) if one.crowded and before > 1)


@given(ran=runs(), seed=st.randoms(use_true_random=False))
def test_the_order_in_which_attempts_are_looked_at_does_not_matter(ran: list[Ran], seed: Any) -> None:
    trials = {number: a_trial(number, parameters={"learning_rate": one.rate}) for number, one in enumerate(ran)}
    attempts = {
        number: [Attempt(1, 0, 3, NOW, gpus=0.25, peak_bytes=one.peak, gpu_bytes=80 * GIB)] for number, one in enumerate(ran)
    }
    shuffled = list(attempts)
    seed.shuffle(shuffled)
    assert trials_per_gpu(trials, {number: attempts[number] for number in shuffled}) == trials_per_gpu(trials, attempts)


@given(peak=st.integers(1, 100 * GIB), total=st.integers(1, 100 * GIB))
def test_a_larger_peak_never_fits_more_often(peak: int, total: int) -> None:
    assert fitting(peak + 1, total) <= fitting(peak, total)


@pytest.mark.parametrize("number", range(1, MOST_ON_A_GPU + 1))
def test_a_share_says_how_many_have_it_and_all_of_them_fit(number: int) -> None:
    needs = Resources(gpus_per_trial="auto", max_concurrent_trials=99).packed(number)
    assert sharing(needs.gpus) == number
    assert slots_within(Capacity(cpus=99, gpus=3), needs) == 3 * number
    assert number * round(needs.gpus * 10_000) <= 10_000  # what Ray counts in


def test_a_study_that_says_what_its_trials_hold_holds_that() -> None:
    study = replace(a_study(resources={"gpus_per_trial": 0.5}), trials_per_gpu=4)
    assert study.resources.gpus == 0.5


def test_a_share_is_counted_for_as_many_on_a_gpu_as_there_are_now() -> None:
    study = replace(a_study(resources=PACKED).running(NOW), trials_per_gpu=4)
    shares = share_out(Capacity(8, 1), [Member(study, Share(slots=1))], [], SharingRules(), NOW, 1.0)
    assert (shares[study.id].slots, shares[study.id].trials_per_gpu) == (4, 4)


class Driven:
    """A packed study on one GPU, its driver's ledger, and a controller that grants what fits when it is asked to."""

    def __init__(self, **changes: Any) -> None:
        self.store: Store = memory_store()
        self.clock = FakeClock()
        self.store.studies.add(a_study(resources=PACKED, budget={"trials": 9}, **changes))
        self.counts_anew()
        assert self.store.leases.acquire(STUDY, "driver-1", NOW, timedelta(days=1))
        self.ledger = Ledger(self.store, self.clock, STUDY, "driver-1")
        self.ledger.begin()

    def counts_anew(self) -> None:
        study = self.store.studies.get(STUDY)
        slots = slots_within(Capacity(cpus=9, gpus=1), study.resources)
        self.store.shares.grant({STUDY: Share(slots, trials_per_gpu=study.trials_per_gpu)})

    def next_fit(self) -> list[Trial]:
        """What starts in it."""
        self.ledger.place()
        self.counts_anew()
        self.ledger.poll()
        started = []
        while isinstance(trial := self.ledger.next(), Trial):
            started.append(trial)
        return started

    def reports(self, trial: Trial, gib: float, *, is_last: bool = False, refusals: int = 0) -> bool:
        number = self.store.trials.get(STUDY, trial.number).reports + 1
        memory = GpuMemory(round(gib * GIB), 80 * GIB, refusals)
        report = a_report(number, attempt=trial.attempts)
        progress = Progress(trial.number, trial.attempts, "host:1", [report], "done" if is_last else None, memory=memory)
        return self.ledger.record(progress)

    def lacks_memory(self, trial: Trial) -> None:
        self.ledger.record(Progress(trial.number, trial.attempts, "host:1", (), "failed", "out_of_memory", "too large"))

    def is_measured(self) -> list[Trial]:
        """The first trial has ended and the second one reported, with 8 GiB each: what starts then, new trials first."""
        (first,) = self.next_fit()
        for is_last in (False, False, True):
            self.reports(first, 8, is_last=is_last)
        (second,) = self.next_fit()
        self.reports(second, 8)
        return self.next_fit()[::-1]

    def attempt(self, trial: Trial) -> Attempt:
        return self.store.trials.attempts(STUDY, trial.number)[trial.attempts - 1]


def test_a_trial_has_a_gpu_of_its_own_before_anything_is_measured() -> None:
    driven = Driven()
    (trial,) = driven.next_fit()
    assert driven.ledger.next() == Idle()
    assert driven.attempt(trial).gpus == 1.0


def test_once_it_is_measured_the_attempts_leave_and_the_next_fit_has_more_of_them() -> None:
    driven = Driven()
    (first,) = driven.next_fit()
    driven.reports(first, 8)
    driven.reports(first, 8)
    driven.reports(first, 8, is_last=True)
    second = driven.ledger.next()
    assert isinstance(second, Trial)
    assert driven.reports(second, 10) is False
    assert driven.attempt(second).outcome is AttemptOutcome.PREEMPTED
    assert driven.ledger.next() == Finished()
    started = driven.next_fit()
    assert [trial.number for trial in started] == [1, 2, 3, 4, 5, 6]
    assert driven.ledger.study.trials_per_gpu == 6
    assert {driven.attempt(trial).gpus for trial in started} == {share_of_gpu(6)}
    told = [event for event in driven.store.events.after(STUDY, 0) if event.kind is EventKind.STUDY_STATE]
    assert told[-1].payload == {"state": "running", "trials_per_gpu": 6}


def test_nothing_starts_in_the_new_shares_before_they_are_counted() -> None:
    driven = Driven()
    (first,) = driven.next_fit()
    for is_last in (False, False, True):
        driven.reports(first, 8, is_last=is_last)
    second = driven.ledger.next()
    assert isinstance(second, Trial)
    driven.reports(second, 8)
    driven.ledger.place()
    assert driven.ledger.next() == Finished()
    assert driven.ledger.is_held()
    driven.counts_anew()
    driven.ledger.poll()
    assert isinstance(driven.ledger.next(), Trial)


def test_what_was_measured_is_kept_with_the_attempt() -> None:
    driven = Driven()
    (trial,) = driven.next_fit()
    driven.reports(trial, 8)
    driven.reports(trial, 6)
    assert (driven.attempt(trial).peak_bytes, driven.attempt(trial).gpu_bytes) == (8 * GIB, 80 * GIB)


def test_another_driver_packs_as_the_one_before_did() -> None:
    driven = Driven()
    assert len(driven.is_measured()) == 7
    driven.store.leases.release(STUDY, "driver-1")
    assert driven.store.leases.acquire(STUDY, "driver-2", NOW, timedelta(days=1))
    driven.ledger = Ledger(driven.store, driven.clock, STUDY, "driver-2")
    assert driven.ledger.slots == 7
    assert len(driven.next_fit()) == 7


def test_a_trial_that_runs_out_of_memory_beside_others_is_tried_again_among_fewer() -> None:
    driven = Driven()
    started = driven.is_measured()
    driven.lacks_memory(started[0])
    trial = driven.store.trials.get(STUDY, started[0].number)
    assert (trial.state, trial.errors, trial.retries) == (TrialState.QUEUED, 0, 0)
    assert driven.attempt(started[0]).outcome is AttemptOutcome.CROWDED
    assert [driven.reports(other, 8) for other in started[1:]] == [False] * 6
    assert len(driven.next_fit()) == 6


def test_a_trial_that_made_do_with_less_than_it_asked_for_leaves_at_its_report() -> None:
    driven = Driven()
    first, second, *_ = driven.is_measured()
    assert driven.reports(first, 8, refusals=1) is False
    assert driven.store.trials.get(STUDY, first.number).reports == 1
    assert driven.attempt(first).outcome is AttemptOutcome.CROWDED
    assert driven.reports(second, 8) is False


def test_a_trial_that_runs_out_of_memory_alone_is_infeasible() -> None:
    driven = Driven()
    (trial,) = driven.next_fit()
    driven.lacks_memory(trial)
    found = driven.store.trials.get(STUDY, trial.number)
    assert (found.state, found.reason) == (TrialState.INFEASIBLE, TrialReason.OUT_OF_MEMORY)


def test_a_trial_whose_study_says_how_many_share_a_gpu_is_infeasible_when_it_runs_out_of_memory() -> None:
    driven = Driven()
    store = memory_store()
    store.studies.add(a_study(resources={"gpus_per_trial": 0.25}))
    store.shares.grant({STUDY: Share(1)})
    assert store.leases.acquire(STUDY, "driver-1", NOW, timedelta(days=1))
    driven.store, driven.ledger = store, Ledger(store, driven.clock, STUDY, "driver-1")
    driven.ledger.begin()
    trial = driven.ledger.next()
    assert isinstance(trial, Trial)
    driven.lacks_memory(trial)
    assert store.trials.get(STUDY, trial.number).state is TrialState.INFEASIBLE


def test_trials_are_charged_for_the_share_that_they_held() -> None:
    driven = Driven()
    started = driven.is_measured()
    driven.reports(started[0], 20)  # from now on fewer may share a GPU, but those that run hold what they held
    driven.reports(started[1], 20)
    spent = [driven.store.trials.get(STUDY, number).gpu_seconds for number in (0, started[0].number, started[1].number)]
    assert spent == [3 * 2.0, 2 * share_of_gpu(7), 2 * share_of_gpu(7)]


def test_time_lost_to_a_crowd_is_paid_for() -> None:
    driven = Driven()
    trial, *_ = driven.is_measured()
    driven.clock.pass_seconds(10)
    driven.lacks_memory(trial)
    found = driven.store.trials.get(STUDY, trial.number)
    assert (found.lost_seconds, found.gpu_seconds) == (10.0, 10 * share_of_gpu(7))


def test_a_study_whose_trials_lack_memory_again_and_again_comes_to_its_end_with_one_on_a_gpu() -> None:
    driven = Driven()
    started, packings = driven.is_measured(), [7]
    while started:
        for trial in started:
            driven.lacks_memory(trial)
        started = driven.next_fit()
        packings.append(driven.ledger.study.trials_per_gpu)
    assert packings == [7, 6, 5, 4, 3, 2, *[1] * 9]
    assert driven.ledger.study.state is StudyState.STOPPING
    ended = list(driven.ledger.history.trials.values())
    assert [trial.state for trial in ended] == [TrialState.COMPLETED, *[TrialState.INFEASIBLE] * 8]
