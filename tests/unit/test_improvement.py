"""`no_improvement`: what counts as one more trial without a better best, and what follows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from service.domain.history import History
from service.domain.study import Study, StudyReason
from service.domain.trial import Trial, TrialReason, TrialState
from service.search import Cut, Done, Start, next_action, simulate
from service.search.decide import end_of
from service.search.improvement import is_stagnant
from tests.builders import NOW, a_trial
from tests.unit.test_search_decide import a_search, accuracy


def ended(number: int, best: float | None, reason: TrialReason = TrialReason.EPOCHS_DONE, at: int | None = None) -> Trial:
    end = NOW + timedelta(seconds=number if at is None else at)
    return a_trial(number, state=reason.end, reason=reason, ended_at=end, best_value=best, value=best, reports=3)


def a_row(*trials: Trial) -> History:
    return History({trial.number: trial for trial in trials})


def a_patient(most: int = 2, **changes: Any) -> Study:
    return a_search({"kind": "random"}, budget={"trials": 50, "no_improvement": most}, **changes)


def test_the_row_is_full_when_so_many_whole_trials_were_no_better() -> None:
    study = a_patient(2)
    assert not is_stagnant(study, a_row(ended(0, 0.5), ended(1, 0.4)))
    assert is_stagnant(study, a_row(ended(0, 0.5), ended(1, 0.4), ended(2, 0.5)))


def test_a_better_one_begins_the_row_anew() -> None:
    assert not is_stagnant(a_patient(2), a_row(ended(0, 0.5), ended(1, 0.4), ended(2, 0.6), ended(3, 0.5)))


def test_the_order_is_that_of_their_ends() -> None:
    late_best = ended(0, 0.9, at=9)
    assert not is_stagnant(a_patient(2), a_row(late_best, ended(1, 0.5), ended(2, 0.4), ended(3, 0.3)))


def test_pruned_failed_and_stopped_trials_do_not_count() -> None:
    reasons = [TrialReason.RUNG_CUT, TrialReason.BELOW_MEDIAN, TrialReason.TRAINER_ERROR, TrialReason.STOP_REQUESTED]
    rest = [ended(number, 0.1, reason) for number, reason in enumerate(reasons, 1)]
    assert not is_stagnant(a_patient(1), a_row(ended(0, 0.5), *rest))


def test_a_pruned_trial_that_was_the_best_begins_the_row_anew() -> None:
    rest = ended(1, 0.4), ended(2, 0.6, TrialReason.RUNG_CUT), ended(3, 0.5)
    assert not is_stagnant(a_patient(2), a_row(ended(0, 0.5), *rest))


def test_while_a_better_one_is_still_open_the_search_gets_better() -> None:
    row = a_row(ended(0, 0.5), ended(1, 0.4), ended(2, 0.4))
    for state in (TrialState.RUNNING, TrialState.PAUSED):
        assert not is_stagnant(a_patient(2), row.with_trial(a_trial(3, state=state, best_value=0.6)))
        assert is_stagnant(a_patient(2), row.with_trial(a_trial(3, state=state, best_value=0.5)))


def test_what_earlier_studies_found_and_what_the_final_finds_count_nothing() -> None:
    run = replace(ended(2, 0.3), repeats=0)
    assert not is_stagnant(a_patient(2), a_row(ended(0, 0.5), ended(1, 0.4), run))


def test_the_study_ends_at_once_for_that_reason() -> None:
    row = a_row(ended(0, 0.5), ended(1, 0.4), ended(2, 0.4), a_trial(3, state=TrialState.RUNNING))
    assert next_action(a_patient(2), row, NOW) == Done(StudyReason.NO_IMPROVEMENT)


def test_a_simulated_study_ends_after_the_trial_that_fills_the_row() -> None:
    values = iter([0.3, 0.5, 0.4, 0.4, 0.4, 0.9])
    done = simulate(a_patient(3, epochs=1), lambda _, __: next(values))
    assert done.reason is StudyReason.NO_IMPROVEMENT
    assert len(done.history.trials) == 5


def test_hyperband_goes_on_while_its_rungs_only_cut() -> None:
    study = a_search({"kind": "hyperband"}, epochs=9, budget={"trials": 27, "no_improvement": 3})
    done = simulate(study, accuracy, workers=2)
    whole = [trial for trial in done.history.trials.values() if trial.state is TrialState.COMPLETED]
    assert len(done.history.trials) > 9
    assert len(whole) >= 3


def test_a_final_follows_a_search_that_stopped_getting_better() -> None:
    study = a_patient(2, final={"top": 1, "seeds": 2})
    live = a_trial(3, state=TrialState.RUNNING, reports=1, value=0.1, best_value=0.1)
    row = a_row(ended(0, 0.5), ended(1, 0.4), ended(2, 0.4), live)
    end = end_of(study, row, live)
    assert end is not None
    assert (end[0], end[1].sentence) == (
        TrialReason.BUDGET_SPENT,
        "Ended, as trial 0 stayed the best for `no_improvement` trials, with 0.5.",
    )
    waiting = row.with_trial(replace(live, state=TrialState.PAUSED))
    assert next_action(study, waiting, NOW) == Cut((3,), TrialReason.BUDGET_SPENT)
    run = next_action(study, row.with_trial(live.ended(end[0], NOW)), NOW)
    assert isinstance(run, Start)
    assert run.repeats == 0
    values = iter([0.3, 0.5, 0.4, 0.4, 0.4, 0.4])
    done = simulate(
        replace(study, definition=a_patient(2, epochs=1, final={"top": 1, "seeds": 2}).definition), lambda *_: next(values)
    )
    assert done.reason is StudyReason.NO_IMPROVEMENT
    assert [trial.repeats for trial in done.history.trials.values()] == [None, None, None, None, 1, 1]
