"""A trial's moves, and what its reports add up to."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.domain.definition import Objective
from service.domain.errors import IllegalMove
from service.domain.trial import MAX_RETRIES, TRIAL_MOVES, Trial, TrialReason, TrialState
from tests.builders import NOW, a_report, a_trial

LATER = NOW + timedelta(hours=1)
ENDS = {
    TrialState.COMPLETED,
    TrialState.PRUNED,
    TrialState.STOPPED,
    TrialState.CANCELLED,
    TrialState.INFEASIBLE,
    TrialState.FAILED,
}
MAXIMIZE = Objective(metric="validation/accuracy", direction="maximize")
MINIMIZE = Objective(metric="validation/accuracy", direction="minimize")
END_OF = {
    TrialReason.EPOCHS_DONE: TrialState.COMPLETED,
    TrialReason.NO_IMPROVEMENT: TrialState.COMPLETED,
    TrialReason.RUNG_CUT: TrialState.PRUNED,
    TrialReason.BELOW_MEDIAN: TrialState.PRUNED,
    TrialReason.EXPLOITED: TrialState.PRUNED,
    TrialReason.TARGET_REACHED: TrialState.STOPPED,
    TrialReason.BUDGET_SPENT: TrialState.STOPPED,
    TrialReason.STOP_REQUESTED: TrialState.STOPPED,
    TrialReason.CANCEL_REQUESTED: TrialState.CANCELLED,
    TrialReason.STUDY_FAILED: TrialState.STOPPED,
    TrialReason.DIVERGED: TrialState.FAILED,
    TrialReason.OUT_OF_MEMORY: TrialState.INFEASIBLE,
    TrialReason.OUTCOME_BROKEN: TrialState.INFEASIBLE,
    TrialReason.TRAINER_ERROR: TrialState.FAILED,
    TrialReason.RETRIES_EXHAUSTED: TrialState.FAILED,
}
VALUES = st.floats(allow_nan=False)


def running(**changes: Any) -> Trial:
    return a_trial(**changes).started(NOW)


def in_state(state: TrialState) -> Trial:
    return a_trial(state=state)


MOVES: dict[str, tuple[Callable[[Trial], Trial], TrialState]] = {
    "start": (lambda trial: trial.started(NOW), TrialState.RUNNING),
    "pause": (lambda trial: trial.paused(), TrialState.PAUSED),
    "promote": (lambda trial: trial.promoted(1, 9), TrialState.QUEUED),
    "lose": (lambda trial: trial.lost(NOW), TrialState.QUEUED),
    "interrupt": (lambda trial: trial.interrupted(), TrialState.QUEUED),
    "fail an attempt": (lambda trial: trial.failed_attempt(LATER), TrialState.QUEUED),
}


def test_every_state_has_its_moves_and_the_ends_are_known() -> None:
    assert set(TRIAL_MOVES) == set(TrialState)
    assert {state for state in TrialState if state.is_end} == ENDS


@pytest.mark.parametrize("reason", TrialReason)
def test_every_reason_leads_to_one_end(reason: TrialReason) -> None:
    assert reason.end is END_OF[reason]
    ended = running().ended(reason, LATER, "why")
    assert (ended.state, ended.reason, ended.detail, ended.ended_at) == (END_OF[reason], reason, "why", LATER)


@pytest.mark.parametrize("state", TrialState)
@pytest.mark.parametrize("reason", TrialReason)
def test_a_trial_ends_only_where_the_table_says_so(state: TrialState, reason: TrialReason) -> None:
    if reason.end in TRIAL_MOVES[state]:
        assert in_state(state).ended(reason, NOW).state is reason.end
    else:
        with pytest.raises(IllegalMove, match=state.value):
            in_state(state).ended(reason, NOW)


@pytest.mark.parametrize("state", TrialState)
@pytest.mark.parametrize("move", MOVES)
def test_a_trial_moves_only_where_the_table_says_so(state: TrialState, move: str) -> None:
    act, target = MOVES[move]
    if target in TRIAL_MOVES[state] and not state.is_end:
        assert act(in_state(state)).state is target
    else:
        with pytest.raises(IllegalMove, match=state.value):
            act(in_state(state))


@pytest.mark.parametrize("state", sorted(ENDS))
def test_an_end_is_an_end_for_all_but_a_revival(state: TrialState) -> None:
    for act, _ in MOVES.values():
        with pytest.raises(IllegalMove):
            act(in_state(state))


@pytest.mark.parametrize("state", TrialState)
def test_only_a_stopped_trial_is_revived(state: TrialState) -> None:
    if state is TrialState.STOPPED:
        assert in_state(state).revived().state is TrialState.QUEUED
    else:
        with pytest.raises(IllegalMove, match=state.value):
            in_state(state).revived()


@pytest.mark.parametrize(("reports", "state"), [(0, TrialState.QUEUED), (2, TrialState.QUEUED), (3, TrialState.PAUSED)])
def test_a_revived_trial_is_where_it_was_before_its_study_ended(reports: int, state: TrialState) -> None:
    trial = running(until=3)
    for number in range(1, reports + 1):
        trial = trial.reported(a_report(number), MAXIMIZE, gpus=0)
    revived = trial.ended(TrialReason.BUDGET_SPENT, LATER, "so it was").revived()
    assert (revived.state, revived.reports, revived.until) == (state, reports, 3)
    assert (revived.reason, revived.detail, revived.ended_at) == (None, None, None)


def test_what_an_interrupted_attempt_trained_after_its_last_report_is_counted() -> None:
    trial = running().reported(a_report(1, seconds=2.0), MAXIMIZE, gpus=2).interrupted(3.0, gpus=2)
    assert (trial.state, trial.seconds, trial.gpu_seconds, trial.reports) == (TrialState.QUEUED, 5.0, 10.0, 1)


def test_a_failed_attempt_is_counted_and_the_next_one_waits_for_its_time() -> None:
    trial = running().failed_attempt(LATER)
    assert (trial.state, trial.errors, trial.not_before) == (TrialState.QUEUED, 1, LATER)
    assert trial.started(LATER).not_before is None


def test_every_start_is_another_attempt_and_the_first_start_is_remembered() -> None:
    trial = a_trial().started(NOW).interrupted().started(LATER)
    assert (trial.attempts, trial.started_at) == (2, NOW)


def test_a_promoted_trial_waits_for_an_attempt_to_the_next_rung() -> None:
    trial = running(bracket=1).paused().promoted(rung=2, until=9)
    assert (trial.state, trial.bracket, trial.rung, trial.until) == (TrialState.QUEUED, 1, 2, 9)


def test_a_lost_trial_is_tried_again_until_it_was_lost_too_often() -> None:
    trial = running()
    for retry in range(1, MAX_RETRIES + 1):
        trial = trial.lost(NOW)
        assert (trial.state, trial.retries) == (TrialState.QUEUED, retry)
        trial = trial.started(NOW)
    failed = trial.lost(LATER)
    assert (failed.state, failed.reason, failed.ended_at) == (TrialState.FAILED, TrialReason.RETRIES_EXHAUSTED, LATER)
    assert str(MAX_RETRIES + 1) in (failed.detail or "")


@pytest.mark.parametrize("reason", TrialReason)
def test_a_trial_stopped_early_only_where_it_got_no_better(reason: TrialReason) -> None:
    assert running().ended(reason, LATER).stopped_early is (reason is TrialReason.NO_IMPROVEMENT)


def test_an_interruption_by_the_driver_is_no_retry() -> None:
    trial = running()
    for _ in range(2 * MAX_RETRIES):
        trial = trial.interrupted().started(NOW)
    assert (trial.retries, trial.attempts) == (0, 2 * MAX_RETRIES + 1)


def test_a_report_forgives_what_was_lost_before_it() -> None:
    trial = running().lost(NOW).started(NOW)
    assert trial.reported(a_report(), MAXIMIZE, gpus=0).retries == 0


@pytest.mark.parametrize("number", [-1, 0, 2, 4])
def test_a_report_that_is_not_the_next_is_refused(number: int) -> None:
    with pytest.raises(IllegalMove, match=str(number)):
        running().reported(a_report(number), MAXIMIZE, gpus=0)


def test_a_report_that_comes_twice_is_refused() -> None:
    trial = running().reported(a_report(1), MAXIMIZE, gpus=0)
    with pytest.raises(IllegalMove):
        trial.reported(a_report(1), MAXIMIZE, gpus=0)


@pytest.mark.parametrize(("objective", "best"), [(MAXIMIZE, 2), (MINIMIZE, 1)])
def test_of_equal_reports_the_first_is_the_best(objective: Objective, best: int) -> None:
    trial = running(until=5)
    for number, value in enumerate([0.1, 0.5, 0.5, 0.1], start=1):
        trial = trial.reported(a_report(number, value), objective, gpus=0)
    assert (trial.best_report, trial.reports, trial.value) == (best, 4, 0.1)


@given(values=st.lists(VALUES, min_size=1, max_size=20), gpus=st.sampled_from([0, 0.25, 1]), is_more_better=st.booleans())
def test_reports_add_up(values: list[float], gpus: float, *, is_more_better: bool) -> None:
    objective = MAXIMIZE if is_more_better else MINIMIZE
    trial = running(until=len(values))
    for number, value in enumerate(values, start=1):
        trial = trial.reported(a_report(number, value, epoch=number / 2, seconds=0.5), objective, gpus)
    best = (max if is_more_better else min)(values)
    assert trial.reports == len(values)
    assert trial.value == values[-1]
    assert trial.best_value == best
    assert trial.best_report == values.index(best) + 1
    assert trial.best_epoch == trial.best_report / 2
    assert (trial.seconds, trial.gpu_seconds) == (len(values) / 2, gpus * len(values) / 2)


class TrialWalk(RuleBasedStateMachine):
    """Any moves in any order: each is one of the table's, or is refused and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.trial = a_trial()
        self.values: list[float] = []
        self.starts = 0
        self.lost_in_a_row = 0

    @rule(move=st.sampled_from(sorted(MOVES)))
    def move(self, move: str) -> None:
        act, target = MOVES[move]
        gives_up = move == "lose" and self.lost_in_a_row >= MAX_RETRIES
        if self.trial.state.is_end or (TrialState.FAILED if gives_up else target) not in TRIAL_MOVES[self.trial.state]:
            with pytest.raises(IllegalMove):
                act(self.trial)
            return
        after = act(self.trial)
        assert after.state is (TrialState.FAILED if gives_up else target)
        self.starts += move == "start"
        self.lost_in_a_row += move == "lose" and not gives_up
        self.trial = after

    @rule()
    def revive(self) -> None:
        if self.trial.state is TrialState.STOPPED:
            self.trial = self.trial.revived()
        else:
            with pytest.raises(IllegalMove):
                self.trial.revived()

    @rule(value=VALUES)
    def report(self, value: float) -> None:
        if self.trial.state is TrialState.RUNNING:
            self.trial = self.trial.reported(a_report(len(self.values) + 1, value), MAXIMIZE, gpus=1)
            self.values.append(value)
            self.lost_in_a_row = 0

    @rule(reason=st.sampled_from(TrialReason))
    def end(self, reason: TrialReason) -> None:
        if reason.end in TRIAL_MOVES[self.trial.state]:
            self.trial = self.trial.ended(reason, LATER)
        else:
            with pytest.raises(IllegalMove):
                self.trial.ended(reason, LATER)

    @invariant()
    def counters_agree_with_what_happened(self) -> None:
        assert (self.trial.attempts, self.trial.reports, self.trial.retries) == (
            self.starts,
            len(self.values),
            self.lost_in_a_row,
        )
        assert self.trial.best_value == max(self.values, default=None)
        assert (self.trial.started_at is None) == (self.starts == 0)

    @invariant()
    def an_end_is_that_of_its_reason_and_has_a_time(self) -> None:
        assert self.trial.state.is_end == (self.trial.ended_at is not None) == (self.trial.reason is not None)
        if self.trial.reason is not None:
            assert self.trial.state is self.trial.reason.end


TestTrialWalk = TrialWalk.TestCase


def test_a_report_that_does_not_count_is_not_the_best_however_good_it_is() -> None:
    trial = running().reported(a_report(1, 0.5), MAXIMIZE, gpus=0)
    trial = trial.reported(a_report(2, 0.9), MAXIMIZE, gpus=0, counts=False)
    assert (trial.reports, trial.value, trial.best_value, trial.best_report) == (2, 0.9, 0.5, 1)
    assert running().reported(a_report(1, 0.9), MAXIMIZE, gpus=0, counts=False).best_value is None
