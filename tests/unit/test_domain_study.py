"""A study's moves: one table, and a reason for every end."""

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from service.domain.errors import IllegalMove
from service.domain.study import STUDY_MOVES, Study, StudyReason, StudyState, new_study_id
from tests.builders import NOW, a_study

LATER = NOW + timedelta(hours=1)
ENDS = {StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED, StudyState.FAILED}
END_OF = {
    StudyReason.BUDGET_SPENT: StudyState.COMPLETED,
    StudyReason.SPACE_EXHAUSTED: StudyState.COMPLETED,
    StudyReason.TARGET_REACHED: StudyState.COMPLETED,
    StudyReason.STOP_REQUESTED: StudyState.STOPPED,
    StudyReason.CANCEL_REQUESTED: StudyState.CANCELLED,
    StudyReason.TOO_MANY_FAILURES: StudyState.FAILED,
    StudyReason.DRIVER_FAILED: StudyState.FAILED,
}
REASONS = st.sampled_from(StudyReason)


def test_every_state_has_its_moves_and_the_ends_have_none() -> None:
    assert set(STUDY_MOVES) == set(StudyState)
    assert {state for state in StudyState if state.is_end} == ENDS


@pytest.mark.parametrize("reason", StudyReason)
def test_every_reason_leads_to_one_end(reason: StudyReason) -> None:
    assert reason.end is END_OF[reason]
    assert a_study().stopping(reason).ended(LATER).state is END_OF[reason]


def test_a_study_keeps_the_time_of_its_first_start() -> None:
    running = a_study().running(NOW)
    assert (running.state, running.started_at) == (StudyState.RUNNING, NOW)
    assert replace(running, state=StudyState.QUEUED).running(LATER).started_at == NOW


def test_a_study_that_ended_knows_when_and_why() -> None:
    ended = a_study().running(NOW).stopping(StudyReason.DRIVER_FAILED, "it crashed").ended(LATER)
    assert (ended.ended_at, ended.reason, ended.detail) == (LATER, StudyReason.DRIVER_FAILED, "it crashed")


@pytest.mark.parametrize("first", StudyReason)
@pytest.mark.parametrize("second", StudyReason)
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


@pytest.mark.parametrize("reason", StudyReason)
def test_a_study_that_is_stopping_cannot_run_again(reason: StudyReason) -> None:
    with pytest.raises(IllegalMove):
        a_study().stopping(reason).running(NOW)


def test_a_study_without_a_reason_cannot_end() -> None:
    for study in (a_study(), a_study().running(NOW)):
        with pytest.raises(IllegalMove, match="reason"):
            study.ended(NOW)


@pytest.mark.parametrize("reason", StudyReason)
def test_an_end_is_an_end(reason: StudyReason) -> None:
    ended = a_study().stopping(reason).ended(NOW)
    moves: list[Callable[[], Study]] = [
        lambda: ended.running(LATER),
        lambda: ended.stopping(StudyReason.CANCEL_REQUESTED),
        lambda: ended.ended(LATER),
    ]
    for move in moves:
        with pytest.raises(IllegalMove):
            move()


class StudyWalk(RuleBasedStateMachine):
    """Any moves in any order: each is one of the table's, or is refused and changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.study = a_study()
        self.told: list[StudyReason] = []

    def _take(self, before: Study, after: Study) -> None:
        assert after.state in STUDY_MOVES[before.state] | {before.state}
        assert (after.id, after.definition, after.created_at, after.version) == (
            before.id,
            before.definition,
            before.created_at,
            0,
        )
        self.study = after

    @rule()
    def run(self) -> None:
        if self.study.state is StudyState.QUEUED:
            self._take(self.study, self.study.running(NOW))
        else:
            with pytest.raises(IllegalMove):
                self.study.running(NOW)

    @rule(reason=REASONS)
    def stop(self, reason: StudyReason) -> None:
        if self.study.state.is_end:
            with pytest.raises(IllegalMove):
                self.study.stopping(reason)
        else:
            self.told.append(reason)
            self._take(self.study, self.study.stopping(reason))

    @precondition(lambda self: self.study.state is not StudyState.STOPPING or len(self.told) > 1)
    @rule()
    def end(self) -> None:
        if self.study.state is StudyState.STOPPING:
            self._take(self.study, self.study.ended(LATER))
        else:
            with pytest.raises(IllegalMove):
                self.study.ended(LATER)

    @invariant()
    def the_reason_is_the_first_or_the_cancel(self) -> None:
        if not self.told:
            assert self.study.reason is None
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
