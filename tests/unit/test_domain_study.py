"""A study's moves: one table, and a reason for every end."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.domain.errors import IllegalMove
from service.domain.study import STUDY_MOVES, Study, StudyReason, StudyState, new_study_id
from tests.builders import NOW, a_definition, a_study

LATER = NOW + timedelta(hours=1)
ENDS = {StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED}
END_OF = {
    StudyReason.BUDGET_SPENT: StudyState.COMPLETED,
    StudyReason.SPACE_EXHAUSTED: StudyState.COMPLETED,
    StudyReason.TARGET_REACHED: StudyState.COMPLETED,
    StudyReason.NO_IMPROVEMENT: StudyState.COMPLETED,
    StudyReason.STOP_REQUESTED: StudyState.STOPPED,
    StudyReason.CANCEL_REQUESTED: StudyState.CANCELLED,
    StudyReason.DRIVER_FAILED: StudyState.FAILED,
}
PAUSES = [StudyReason.TOO_MANY_FAILURES, StudyReason.PAUSE_REQUESTED, StudyReason.NO_SPACE]
LARGER = a_definition(budget={"trials": 8})
CHANGEABLE = {StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSING, StudyState.PAUSED}


def seconds(count: int) -> timedelta:
    return timedelta(seconds=count)


def ended_as(reason: StudyReason) -> Study:
    return a_study().running(NOW).stopping(reason).ended(LATER)


def test_every_state_has_its_moves_and_the_ends_are_known() -> None:
    assert set(STUDY_MOVES) == set(StudyState)
    assert {state for state in StudyState if state.is_end} == ENDS
    assert {*END_OF, *PAUSES} == set(StudyReason)


@pytest.mark.parametrize("reason", END_OF)
def test_every_reason_to_end_leads_to_one_end(reason: StudyReason) -> None:
    assert reason.end is END_OF[reason]
    assert a_study().stopping(reason).ended(LATER).state is END_OF[reason]
    with pytest.raises(ValueError, match="ends a study"):
        a_study().pausing(reason, NOW)


@pytest.mark.parametrize("reason", PAUSES)
def test_every_reason_to_pause_leads_to_a_pause_and_ends_nothing(reason: StudyReason) -> None:
    assert reason.end is StudyState.PAUSED
    paused = a_study().running(NOW).pausing(reason, NOW, "said").paused(NOW)
    assert (paused.state, paused.reason, paused.detail) == (StudyState.PAUSED, reason, "said")
    with pytest.raises(ValueError, match="pauses a study"):
        a_study().stopping(reason)


def test_a_queued_study_is_paused_at_once_as_none_of_its_trials_runs() -> None:
    assert a_study().pausing(StudyReason.PAUSE_REQUESTED, NOW).state is StudyState.PAUSED


def test_a_pause_may_become_urgent_and_never_less_so() -> None:
    pausing = a_study().running(NOW).pausing(StudyReason.PAUSE_REQUESTED, NOW)
    urgent = pausing.pausing(StudyReason.PAUSE_REQUESTED, LATER, is_urgent=True)
    assert (pausing.is_urgent, urgent.is_urgent) == (False, True)
    assert urgent.pausing(StudyReason.PAUSE_REQUESTED, LATER) == urgent
    assert not urgent.paused(LATER).is_urgent


def test_a_users_pause_takes_the_place_of_one_that_ends_by_itself() -> None:
    full = a_study().running(NOW).pausing(StudyReason.NO_SPACE, NOW, "the disk is full").paused(NOW)
    asked = full.pausing(StudyReason.PAUSE_REQUESTED, LATER, is_urgent=True)
    assert (asked.state, asked.reason, asked.detail, asked.is_urgent) == ("paused", StudyReason.PAUSE_REQUESTED, None, False)
    assert asked.pausing(StudyReason.NO_SPACE, LATER, "the disk is full") == asked


def test_a_study_that_is_resumed_before_its_trials_left_runs_on() -> None:
    resumed = a_study().running(NOW).pausing(StudyReason.PAUSE_REQUESTED, NOW, is_urgent=True).resumed(LATER)
    assert (resumed.state, resumed.reason, resumed.is_urgent, resumed.resumed_at) == (StudyState.RUNNING, None, False, LATER)


def test_time_in_which_a_study_is_paused_or_waits_to_go_on_is_not_spent() -> None:
    running = a_study().running(NOW)
    paused = running.pausing(StudyReason.PAUSE_REQUESTED, NOW + seconds(10)).paused(NOW + seconds(12))
    assert paused.active_seconds(NOW + seconds(500)) == 12
    queued = paused.resumed(NOW + seconds(600))
    assert queued.active_seconds(NOW + seconds(700)) == 12
    again = queued.running(NOW + seconds(800))
    assert again.active_seconds(NOW + seconds(805)) == 17


def test_a_pause_while_a_resumed_study_waits_counts_as_one_idle_time() -> None:
    paused = a_study().running(NOW).pausing(StudyReason.PAUSE_REQUESTED, NOW).paused(NOW + seconds(5))
    twice = paused.resumed(NOW + seconds(50)).pausing(StudyReason.PAUSE_REQUESTED, NOW + seconds(60))
    assert twice.resumed(NOW + seconds(70)).running(NOW + seconds(80)).active_seconds(NOW + seconds(81)) == 6


def test_time_since_the_end_of_an_extended_study_is_not_spent() -> None:
    ended = a_study().running(NOW).stopping(StudyReason.BUDGET_SPENT).ended(NOW + seconds(30))
    assert ended.active_seconds(LATER) == 30
    extended = ended.extended(LARGER, LATER).running(LATER + seconds(20))
    assert (extended.active_seconds(LATER + seconds(21)), extended.ended_at, extended.reason) == (31, None, None)


def test_a_study_that_never_ran_has_spent_no_time() -> None:
    paused = a_study().pausing(StudyReason.PAUSE_REQUESTED, NOW)
    assert paused.active_seconds(LATER) == 0
    assert paused.resumed(LATER).running(LATER).active_seconds(LATER + seconds(3)) == 3


def test_only_what_is_paused_can_be_resumed_and_what_is_not_held_is_left_alone() -> None:
    for held in (a_study(), a_study().running(NOW)):
        assert held.resumed(LATER) == held
    with pytest.raises(IllegalMove, match="only a paused study"):
        a_study().stopping(StudyReason.STOP_REQUESTED).resumed(NOW)
    with pytest.raises(IllegalMove, match="extend it"):
        ended_as(StudyReason.BUDGET_SPENT).resumed(NOW)


def test_a_study_that_is_extended_goes_on_where_it_is_or_is_queued_again() -> None:
    running = a_study().running(NOW)
    assert running.extended(LARGER, LATER) == replace(running, definition=LARGER, amended_at=LATER)
    for reason in (StudyReason.BUDGET_SPENT, StudyReason.STOP_REQUESTED):
        extended = ended_as(reason).extended(LARGER, LATER)
        assert (extended.state, extended.definition, extended.resumed_at) == (StudyState.QUEUED, LARGER, LATER)


def test_a_completed_study_has_nothing_left_of_the_same_budget_and_a_stopped_one_has() -> None:
    completed, stopped = ended_as(StudyReason.BUDGET_SPENT), ended_as(StudyReason.STOP_REQUESTED)
    assert completed.extended(completed.definition, LATER) == completed
    assert stopped.extended(stopped.definition, LATER).state is StudyState.QUEUED


@pytest.mark.parametrize("reason", [StudyReason.CANCEL_REQUESTED, StudyReason.DRIVER_FAILED])
def test_what_was_cancelled_or_failed_can_only_be_forked(reason: StudyReason) -> None:
    with pytest.raises(IllegalMove, match="fork"):
        ended_as(reason).extended(LARGER, LATER)


def test_a_study_on_its_way_to_its_end_is_extended_once_it_is_there() -> None:
    with pytest.raises(IllegalMove, match="wait until it has ended"):
        a_study().stopping(StudyReason.BUDGET_SPENT).extended(LARGER, LATER)


def test_a_definition_changes_only_while_the_study_goes_on() -> None:
    changed = a_study().changed(LARGER, LATER)
    assert (changed.definition, changed.amended_at) == (LARGER, LATER)
    assert a_study().changed(a_definition(name="other"), LATER).amended_at is None
    for study in (a_study().stopping(StudyReason.STOP_REQUESTED), ended_as(StudyReason.BUDGET_SPENT)):
        with pytest.raises(IllegalMove, match="cannot be changed"):
            study.changed(LARGER, LATER)


def test_a_study_keeps_the_time_of_its_first_start() -> None:
    running = a_study().running(NOW)
    assert (running.state, running.started_at) == (StudyState.RUNNING, NOW)
    assert replace(running, state=StudyState.QUEUED).running(LATER).started_at == NOW


def test_a_study_that_ended_knows_when_and_why() -> None:
    ended = a_study().running(NOW).stopping(StudyReason.DRIVER_FAILED, "it crashed").ended(LATER)
    assert (ended.ended_at, ended.reason, ended.detail) == (LATER, StudyReason.DRIVER_FAILED, "it crashed")


@pytest.mark.parametrize("first", END_OF)
@pytest.mark.parametrize("second", END_OF)
def test_a_later_reason_replaces_an_earlier_one_only_to_cancel(first: StudyReason, second: StudyReason) -> None:
    study = a_study().running(NOW).stopping(first, "first")
    again = study.stopping(second, "second")
    if second is StudyReason.CANCEL_REQUESTED:
        assert (again.reason, again.detail) == (second, "second")
    else:
        assert again == study


def test_a_study_that_runs_cannot_start_again() -> None:
    with pytest.raises(IllegalMove, match="running"):
        a_study().running(NOW).running(NOW)


@pytest.mark.parametrize("reason", END_OF)
def test_a_study_that_is_stopping_cannot_run_again(reason: StudyReason) -> None:
    with pytest.raises(IllegalMove):
        a_study().stopping(reason).running(NOW)


def test_a_study_without_a_reason_cannot_end() -> None:
    for study in (a_study(), a_study().running(NOW)):
        with pytest.raises(IllegalMove, match="reason"):
            study.ended(NOW)


@pytest.mark.parametrize("reason", END_OF)
def test_an_end_is_an_end_but_for_an_extension(reason: StudyReason) -> None:
    ended = a_study().stopping(reason).ended(NOW)
    moves: list[Callable[[], Study]] = [
        lambda: ended.running(LATER),
        lambda: ended.pausing(StudyReason.PAUSE_REQUESTED, LATER),
        lambda: ended.paused(LATER),
        lambda: ended.resumed(LATER),
        lambda: ended.changed(LARGER, LATER),
        lambda: ended.stopping(StudyReason.CANCEL_REQUESTED),
        lambda: ended.ended(LATER),
    ]
    for move in moves:
        with pytest.raises(IllegalMove):
            move()


class StudyWalk(RuleBasedStateMachine):
    """Any moves in any order, as time passes: each is one of the table's, or is refused and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.study = a_study()
        self.now = NOW
        self.told: list[StudyReason] = []
        self.active = 0

    def _take(self, before: Study, after: Study) -> None:
        assert after.state in STUDY_MOVES[before.state] | {before.state}
        assert (after.id, after.created_at, after.version) == (before.id, before.created_at, 0)
        self.study = after

    def _moves_from(self, states: set[StudyState], move: Callable[[], Study]) -> None:
        if self.study.state in states:
            self._take(self.study, move())
        else:
            with pytest.raises(IllegalMove):
                move()

    @rule(count=st.integers(1, 100))
    def wait(self, count: int) -> None:
        self.now += seconds(count)
        if self.study.started_at and self.study.state in {StudyState.RUNNING, StudyState.PAUSING}:
            self.active += count
        if self.study.state is StudyState.STOPPING and self.study.started_at and self.study.idle_since is None:
            self.active += count

    @rule()
    def run(self) -> None:
        # A study whose driver died stays as it is: only a queued one, or one resumed on its way to a pause, begins to run.
        if self.study.state is not StudyState.PAUSING:
            self._moves_from({StudyState.QUEUED}, lambda: self.study.running(self.now))

    @rule(reason=st.sampled_from(PAUSES), urgent=st.booleans())
    def pause(self, reason: StudyReason, *, urgent: bool) -> None:
        self._moves_from(CHANGEABLE, lambda: self.study.pausing(reason, self.now, is_urgent=urgent))

    @rule()
    def arrive(self) -> None:
        self._moves_from({StudyState.PAUSING}, lambda: self.study.paused(self.now))

    @rule()
    def resume(self) -> None:
        self._moves_from(CHANGEABLE, lambda: self.study.resumed(self.now))

    @rule(trials=st.integers(1, 3))
    def extend(self, trials: int) -> None:
        larger = a_definition(budget={"trials": trials})
        extendable = CHANGEABLE | {StudyState.COMPLETED, StudyState.STOPPED}
        self._moves_from(extendable, lambda: self.study.extended(larger, self.now))
        if self.study.state in CHANGEABLE:
            self.told = []

    @rule(reason=st.sampled_from(list(END_OF)))
    def stop(self, reason: StudyReason) -> None:
        if not self.study.state.is_end:
            self.told.append(reason)
        self._moves_from(CHANGEABLE | {StudyState.STOPPING}, lambda: self.study.stopping(reason))

    @rule()
    def end(self) -> None:
        self._moves_from({StudyState.STOPPING}, lambda: self.study.ended(self.now))

    @invariant()
    def the_reason_to_end_is_the_first_or_the_cancel(self) -> None:
        if self.study.state in CHANGEABLE:
            is_held = self.study.state in {StudyState.PAUSING, StudyState.PAUSED}
            assert (self.study.reason in PAUSES) if is_held else self.study.reason is None
        elif StudyReason.CANCEL_REQUESTED in self.told:
            assert self.study.reason is StudyReason.CANCEL_REQUESTED
        else:
            assert self.study.reason is self.told[0]

    @invariant()
    def an_end_is_that_of_its_reason_and_has_a_time(self) -> None:
        assert self.study.state.is_end == (self.study.ended_at is not None)
        if self.study.state.is_end:
            assert self.study.reason is not None
            assert self.study.state is self.study.reason.end

    @invariant()
    def only_the_time_in_which_it_ran_is_spent(self) -> None:
        assert self.study.active_seconds(self.now) == self.active

    @invariant()
    def only_a_pause_is_urgent(self) -> None:
        assert not self.study.is_urgent or self.study.state is StudyState.PAUSING


TestStudyWalk = StudyWalk.TestCase


@given(name=st.text(min_size=1, max_size=200))
def test_an_id_is_made_of_any_name_and_fits_a_url(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?-[a-z2-7]{6}", new_study_id(name))


@pytest.mark.parametrize(
    ("name", "slug"), [("Banking Intents", "banking-intents"), ("..", "study"), ("a" * 99, "a" * 40), ("A_b.c-", "a-b-c")]
)
def test_an_id_reads_like_the_name(name: str, slug: str) -> None:
    assert new_study_id(name).rpartition("-")[0] == slug


def test_two_studies_of_one_name_have_two_ids() -> None:
    assert len({new_study_id("intents") for _ in range(100)}) == 100
