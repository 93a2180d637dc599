"""Which checkpoints are deleted, and why."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.controller.retention import GRACE, Because, Retained, reserve, retain
from service.domain.history import History
from service.domain.stored import Stored, StoredKind
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from tests.builders import NOW, a_report, a_study, a_trial

STATE, EXPORT = StoredKind.RESUME, StoredKind.EXPORT


def a_stored(trial: int, kind: StoredKind = EXPORT, report: int = 1, size: int = 100, age_seconds: float = 0) -> Stored:
    at = NOW - timedelta(seconds=age_seconds)
    return Stored(trial, kind, report, size, at, f"{trial:06d}/{kind}-{report:06d}")


def reported(number: int, *accuracies: float, until: int = 3) -> Trial:
    trial = a_trial(number, until=until).started(NOW)
    for report, accuracy in enumerate(accuracies, start=1):
        trial = trial.reported(a_report(report, accuracy), a_study().definition.objective, 0)
    return trial


def a_history(*trials: Trial) -> History:
    return History({trial.number: trial for trial in trials})


def with_budget(gigabytes: float | None, keep: int = 5) -> Study:
    return a_study(checkpoints={"keep": keep, "max_total_gb": gigabytes})


def said(retained: Retained) -> dict[tuple[int, str], str]:
    return {(one.stored.trial, one.stored.kind.value): one.because.value for one in retained.deletions}


def test_the_state_of_a_trial_that_has_ended_goes_and_its_export_stays_while_it_is_among_the_best() -> None:
    trials = [reported(number, 0.5 + number / 10).ended(TrialReason.EPOCHS_DONE, NOW) for number in range(3)]
    stored = [a_stored(number, kind) for number in range(3) for kind in (STATE, EXPORT)]
    retained = retain(with_budget(None, keep=2), a_history(*trials), stored, NOW)
    assert said(retained) == {(0, "resume"): "ended", (0, "export"): "not_kept", (1, "resume"): "ended", (2, "resume"): "ended"}
    assert (retained.bytes, retained.missing) == (200, ())


def test_of_the_exports_of_a_trial_that_has_ended_only_that_of_its_best_report_stays() -> None:
    trial = reported(0, 0.5, 0.9, 0.7).ended(TrialReason.EPOCHS_DONE, NOW)
    retained = retain(a_study(), a_history(trial), [a_stored(0, report=1), a_stored(0, report=2)], NOW)
    assert [(one.stored.report, one.because) for one in retained.deletions] == [(1, Because.SUPERSEDED)]


def test_of_two_attempts_that_exported_the_best_report_only_the_last_ones_stays() -> None:
    ended, runs = reported(0, 0.5).ended(TrialReason.EPOCHS_DONE, NOW), reported(1, 0.4)
    stored = [replace(a_stored(number), attempt=attempt) for number in (0, 1) for attempt in (2, 1)]
    retained = retain(a_study(), a_history(ended, runs), stored, NOW)
    assert [(one.stored.trial, one.stored.attempt, one.because) for one in retained.deletions] == [(0, 1, Because.SUPERSEDED)]
    assert (retained.bytes, retained.missing) == (300, ())


@pytest.mark.parametrize("state", [TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED])
def test_nothing_of_a_trial_that_has_not_ended_is_deleted_whatever_the_budget(state: TrialState) -> None:
    trial = replace(reported(0, 0.5), state=state)
    stored = [a_stored(0, STATE), a_stored(0), a_stored(0, report=2)]
    retained = retain(with_budget(1e-9, keep=1), a_history(trial, reported(1, 0.9)), stored, NOW)
    assert retained.deletions == []
    assert retained.over == 299


def test_the_state_of_a_trial_that_a_user_stopped_goes_as_no_extension_revives_it() -> None:
    stopped = replace(a_history(reported(0, 0.5).ended(TrialReason.STOP_REQUESTED, NOW)), stops=frozenset({0}))
    assert said(retain(a_study(), stopped, [a_stored(0, STATE), a_stored(0)], NOW)) == {(0, "resume"): "ended"}


@pytest.mark.parametrize("reason", [TrialReason.BUDGET_SPENT, TrialReason.TARGET_REACHED, TrialReason.STOP_REQUESTED])
def test_what_an_extended_study_would_go_on_from_stays_while_there_is_room_and_goes_first(reason: TrialReason) -> None:
    trials = [reported(0, 0.9).ended(reason, NOW), reported(1, 0.8).ended(reason, NOW)]
    stored = [a_stored(number, kind) for number in (0, 1) for kind in (STATE, EXPORT)]
    assert said(retain(with_budget(400e-9), a_history(*trials), stored, NOW)) == {}
    assert said(retain(with_budget(399e-9), a_history(*trials), stored, NOW)) == {(1, "resume"): "budget"}
    both = {(1, "resume"): "budget", (0, "resume"): "budget"}
    assert said(retain(with_budget(200e-9), a_history(*trials), stored, NOW)) == both
    assert said(retain(with_budget(199e-9), a_history(*trials), stored, NOW)) == {**both, (1, "export"): "budget"}


@pytest.mark.parametrize("reason", [StudyReason.CANCEL_REQUESTED, StudyReason.DRIVER_FAILED])
def test_a_study_that_can_never_be_extended_keeps_no_state(reason: StudyReason) -> None:
    trial = reported(0, 0.9).ended(TrialReason.TARGET_REACHED, NOW)
    study = a_study().running(NOW).stopping(reason).ended(NOW)
    assert said(retain(study, a_history(trial), [a_stored(0, STATE)], NOW)) == {(0, "resume"): "ended"}


def test_a_paused_trial_that_was_cut_at_its_studys_end_loses_its_state() -> None:
    paused = replace(reported(0, 0.5), state=TrialState.PAUSED)
    study = a_study(strategy={"kind": "hyperband", "mode": "async", "reduction_factor": 3, "min_epochs": 1})
    assert said(retain(study, a_history(paused), [a_stored(0, STATE)], NOW)) == {}
    assert said(retain(study, a_history(paused.ended(TrialReason.RUNG_CUT, NOW)), [a_stored(0, STATE)], NOW)) == {
        (0, "resume"): "ended"
    }


def test_above_the_budget_the_worst_goes_first_and_the_oldest_of_equals_and_the_best_stays() -> None:
    accuracies = [0.9, 0.5, 0.7, 0.7]
    trials = [reported(number, value).ended(TrialReason.EPOCHS_DONE, NOW) for number, value in enumerate(accuracies)]
    stored = [a_stored(0), a_stored(1), a_stored(2, age_seconds=5), a_stored(3, age_seconds=50)]

    def gone(budget: int) -> list[int]:
        return [one.stored.trial for one in retain(with_budget(budget * 1e-9), a_history(*trials), stored, NOW).deletions]

    assert [gone(budget) for budget in (400, 399, 299, 199, 99)] == [[], [1], [1, 3], [1, 3, 2], [1, 3, 2]]
    assert retain(with_budget(99e-9), a_history(*trials), stored, NOW).over == 1


def test_exports_on_the_front_stay_whatever_the_budget() -> None:
    objectives = [
        {"metric": "validation/accuracy", "direction": "maximize"}, {"metric": "validation/loss", "direction": "minimize"},
    ]  # fmt: skip
    study = a_study(objectives=objectives, strategy={"kind": "random"}, checkpoints={"keep": 5, "max_total_gb": 1e-9})
    history = History()
    for number, (accuracy, loss) in enumerate([(0.9, 0.9), (0.5, 0.1), (0.4, 0.95)]):
        report = a_report(1, accuracy, metrics={"validation/accuracy": accuracy, "validation/loss": loss})
        trial = a_trial(number).started(NOW).reported(report, study.definition.objective, 0)
        history = history.with_trial(trial.ended(TrialReason.EPOCHS_DONE, NOW))
        history = history.with_value(number, accuracy, study.definition.point(report.metrics))
    assert said(retain(study, history, [a_stored(number) for number in range(3)], NOW)) == {(2, "export"): "budget"}


def test_room_is_kept_for_one_more_checkpoint_of_each_running_trial() -> None:
    ended = [reported(number, 0.5 + number / 10).ended(TrialReason.EPOCHS_DONE, NOW) for number in (0, 1)]
    running = [reported(number, 0.1) for number in (2, 3)]
    stored = [a_stored(0), a_stored(1), *(a_stored(number, kind, size=10) for number in (2, 3) for kind in (STATE, EXPORT))]
    assert reserve(stored, 2) == 2 * (10 + 100)
    assert said(retain(with_budget(460e-9), a_history(*ended, *running), stored, NOW)) == {}
    assert said(retain(with_budget(459e-9), a_history(*ended, *running), stored, NOW)) == {(0, "export"): "budget"}


def test_a_model_that_must_be_there_and_is_not_is_missing() -> None:
    trials = [reported(number, 0.5 + number / 10).ended(TrialReason.EPOCHS_DONE, NOW) for number in range(2)]
    assert retain(a_study(), a_history(*trials), [a_stored(0)], NOW).missing == (1,)
    assert retain(a_study(), a_history(*trials), [a_stored(1)], NOW).missing == (), "the budget may have taken the other one"
    never = a_trial(0).started(NOW).ended(TrialReason.TRAINER_ERROR, NOW)
    assert retain(a_study(), a_history(never), [], NOW).missing == ()


def test_what_a_killed_writer_left_goes_once_nobody_can_be_writing_it() -> None:
    old, new = (a_stored(0, StoredKind.UNFINISHED, age_seconds=GRACE.total_seconds() + more) for more in (1, -1))
    running, paused = reported(0, 0.5), replace(reported(0, 0.5), state=TrialState.PAUSED)
    ended = running.ended(TrialReason.EPOCHS_DONE, NOW)
    assert [bool(retain(a_study(), a_history(running), [one], NOW).deletions) for one in (old, new)] == [False, False]
    assert [bool(retain(a_study(), a_history(paused), [one], NOW).deletions) for one in (old, new)] == [True, False]
    assert [bool(retain(a_study(), a_history(ended), [one], NOW).deletions) for one in (old, new)] == [True, True]


def test_a_trial_that_the_store_does_not_know_is_given_time_to_appear() -> None:
    old, new = (a_stored(7, STATE, age_seconds=GRACE.total_seconds() + more) for more in (1, -1))
    assert retain(a_study(), History(), [new], NOW).deletions == []
    assert [one.because for one in retain(a_study(), History(), [old], NOW).deletions] == [Because.UNKNOWN_TRIAL]


@st.composite
def worlds(draw: st.DrawFn) -> tuple[Study, History, Sequence[Stored]]:
    """A study with a budget, trials in any state, and whatever may lie on disk."""
    study = with_budget(draw(st.integers(1, 3000)) * 1e-9, keep=draw(st.integers(1, 4)))
    trials, stored = [], []
    ends = [None, TrialState.QUEUED, TrialState.PAUSED, *TrialReason]
    for number in range(draw(st.integers(0, 6))):
        trial = reported(number, *draw(st.lists(st.sampled_from([0.1, 0.5, 0.9]), max_size=3)))
        end = draw(st.sampled_from(ends))
        if isinstance(end, TrialReason):
            trial = trial.ended(end, NOW)
        elif end is not None:
            trial = replace(trial, state=end)
        trials.append(trial)
    for number in range(len(trials) + 1):
        for kind, report in draw(st.sets(st.tuples(st.sampled_from(list(StoredKind)), st.integers(1, 3)))):
            stored.append(a_stored(number, kind, report, draw(st.integers(0, 500)), draw(st.integers(0, 2000))))
    return study, a_history(*trials), stored


@given(worlds())
def test_the_budget_is_kept_wherever_it_can_be_and_what_is_needed_is_never_deleted(
    world: tuple[Study, History, Sequence[Stored]],
) -> None:
    study, history, stored = world
    retained = retain(study, history, stored, NOW)
    gone = {one.stored for one in retained.deletions}
    left = [one for one in stored if one not in gone]
    limit = study.definition.checkpoints.max_bytes
    assert limit is not None
    assert len(gone) == len(retained.deletions)
    assert gone <= set(stored)
    assert retained.bytes == sum(one.bytes for one in left)
    assert retained.over == max(0, retained.bytes - limit)
    best = history.best(study.definition.objective)
    for one in gone:
        trial = history.trials.get(one.trial)
        assert trial is None or trial.state.is_end or one.kind is StoredKind.UNFINISHED
        assert (
            trial is None or best is None or (one.trial, one.report) != (best.number, best.best_report) or one.kind is not EXPORT
        )
    spent = [one for one in retained.deletions if one.because is Because.BUDGET]
    if spent:  # no more than it takes: without the last of them it would not have been kept
        target = limit - reserve(stored, len(history.in_state(TrialState.RUNNING)))
        assert retained.bytes + spent[-1].stored.bytes > target
    if retained.over:  # nothing is left that could go
        needed = {trial.number for trial in history.trials.values() if not trial.state.is_end} | {best.number if best else -1}
        of_trials = [one for one in left if one.kind is not StoredKind.UNFINISHED and one.trial in history.trials]
        assert all(one.trial in needed for one in of_trials)
    assert retain(study, history, left, NOW).deletions == []


def test_states_of_a_study_that_pauses_stay() -> None:
    study = replace(a_study(), state=StudyState.PAUSED)
    queued = replace(reported(0, 0.5), state=TrialState.QUEUED)
    assert retain(study, a_history(queued), [a_stored(0, STATE), a_stored(0)], NOW).deletions == []
