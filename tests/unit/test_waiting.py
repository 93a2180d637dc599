"""Why a trial waits: a sentence that is true for the strategy its study has."""

from datetime import timedelta
from typing import Any

from service.domain.history import History
from service.domain.study import Study, StudyReason
from service.domain.trial import Trial
from service.domain.waiting import Waiting, WaitingCause, study_waiting, trial_waiting
from tests.builders import NOW, a_report, a_study, a_trial

SYNC = {"kind": "hyperband", "reduction_factor": 3, "min_epochs": 1}
ASYNC = {**SYNC, "mode": "async"}
PBT = {"kind": "pbt", "population": 3, "interval": 1}
SHARE = Waiting(WaitingCause.SHARE, "It has 1 of the 2 slots it could use.", NOW)


def a_running_study(**changes: Any) -> Study:
    return a_study(**{"budget": {"trials": 9}, **changes}).running(NOW)


def reported(number: int, reports: int = 1, **changes: Any) -> Trial:
    """A running trial with so many reports."""
    trial = a_trial(number, **changes).started(NOW)
    for at in range(1, reports + 1):
        trial = trial.reported(a_report(at, 0.1 * number), a_study().definition.objective, 0)
    return trial


def why(study: Study, trial: Trial, *others: Trial, of_study: Waiting | None = None) -> tuple[WaitingCause, str] | None:
    history = History()
    for one in (trial, *others):
        history = history.with_trial(one)
    found = trial_waiting(study, of_study, history, trial, NOW, NOW)
    assert found is None or found.since == NOW
    return None if found is None else (found.cause, found.detail)


def test_what_runs_or_has_ended_does_not_wait() -> None:
    study = a_running_study()
    assert why(study, reported(0)) is None
    assert why(study.stopping(StudyReason.STOP_REQUESTED), a_trial(0)) is None


def test_a_trial_of_a_paused_study_waits_for_it() -> None:
    pausing = a_running_study().pausing(StudyReason.PAUSE_REQUESTED, NOW)
    assert why(pausing, a_trial(0)) == (WaitingCause.PAUSED, "Its study is pausing: it goes on when that is resumed.")
    assert why(pausing.paused(NOW), reported(0).paused()) == (
        WaitingCause.PAUSED, "Its study is paused: it goes on when that is resumed.",
    )  # fmt: skip


def test_a_trial_that_failed_waits_for_its_time() -> None:
    later = NOW + timedelta(seconds=7)
    trial = reported(0).failed_attempt(later)
    assert why(a_running_study(), trial) == (WaitingCause.RETRY, "After an error it is tried again at 03:04:12 UTC.")


def test_a_preempted_trial_waits_for_its_studys_share() -> None:
    trial = reported(0).interrupted()
    assert why(a_running_study(), trial, of_study=SHARE) == (WaitingCause.SHARE, f"Its study waits: {SHARE.detail}")
    assert why(a_running_study(), trial) == (WaitingCause.SLOTS, "It goes on as soon as a slot of its study is free.")


def test_at_a_synchronous_rung_a_trial_waits_for_those_that_are_on_their_way_or_have_not_begun() -> None:
    study = a_running_study(strategy=SYNC, budget={"trials": 3})
    paused = reported(0).paused()
    assert why(study, paused, reported(1, 0)) == (
        WaitingCause.RUNG,
        "At its rung, report 1, it waits for 2 other trials of its bracket, of which 1 has not begun: then the best go on.",
    )
    assert why(study, paused, reported(1).paused(), reported(2, 0)) == (
        WaitingCause.RUNG, "At its rung, report 1, it waits for 1 other trial of its bracket: then the best go on.",
    )  # fmt: skip


def test_at_a_synchronous_rung_where_all_have_come_a_trial_waits_for_a_slot() -> None:
    study = a_running_study(strategy=SYNC, budget={"trials": 3})
    others = [reported(number).paused() for number in (1, 2)]
    assert why(study, reported(0).paused(), *others) == (
        WaitingCause.SLOTS, "At its rung, report 1, all have come: it goes on or ends when a slot is free.",
    )  # fmt: skip


def test_what_the_budget_does_not_pay_is_said() -> None:
    study = a_running_study(strategy=SYNC, budget={"trials": 3, "epochs": 3})
    others = [reported(number).paused() for number in (1, 2)]
    cause, detail = why(study, reported(0).paused(), *others) or (None, "")
    assert cause is WaitingCause.BUDGET
    assert detail == (
        "At report 1 it waits: 2 more reports would be more than the budget has left. It ends unless the study is extended."
    )


def test_at_an_asynchronous_rung_a_trial_waits_to_be_among_the_best() -> None:
    study = a_running_study(strategy=ASYNC)
    assert why(study, reported(0).paused(), reported(1).paused(), reported(2, 0)) == (
        WaitingCause.RUNG,
        "At report 1 it waits: of all that come there, 2 so far, the best 1 in 3 go on, as slots are free.",
    )


def test_at_the_end_of_a_generation_a_member_waits_for_the_others() -> None:
    paused = reported(0, bracket=0).paused()
    assert why(a_running_study(strategy=PBT), paused, reported(1, 0, bracket=1)) == (
        WaitingCause.RUNG,
        (
            "At report 1, the end of its generation, it waits for 2 other members, of which 1 has not begun: "
            "then copies of the best replace the worst."
        ),
    )


def test_at_the_end_of_a_generation_where_all_have_come_a_member_waits_for_a_slot() -> None:
    others = [reported(number, bracket=number).paused() for number in (1, 2)]
    assert why(a_running_study(strategy=PBT), reported(0, bracket=0).paused(), *others) == (
        WaitingCause.SLOTS,
        "At report 1, the end of its generation, it waits for a slot: all members have come there.",
    )


def test_a_new_study_waits_for_the_service_to_look_at_it_and_then_for_its_driver() -> None:
    study = a_study()
    unknown, known = (study_waiting(study, None, is_known=is_known) for is_known in (False, True))
    assert unknown is not None
    assert known is not None
    assert (unknown.cause, known.cause) == (WaitingCause.CONTROLLER, WaitingCause.DRIVER)
    assert unknown.since == study.created_at


def test_a_study_says_what_its_share_says_as_long_as_it_should_run() -> None:
    study = a_running_study()
    assert study_waiting(study, SHARE, is_known=True) == SHARE
    assert study_waiting(study, None, is_known=True) is None
    assert study_waiting(study.stopping(StudyReason.STOP_REQUESTED), SHARE, is_known=True) is None
