"""Which of the best configurations wins when they are trained again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from service.controller.retention import kept
from service.domain.definition import parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.final import FinalResult, final_result
from service.domain.history import History
from service.domain.study import Study, StudyReason
from service.domain.trial import Trial, TrialState
from tests.builders import NOW, a_document, a_study, a_trial

CLEAR = {0: [0.80, 0.81, 0.82], 1: [0.92, 0.93, 0.94]}
NOISE = {0: [0.90, 0.92, 0.94], 1: [0.91, 0.93, 0.95]}


def an_ended_study(reason: StudyReason = StudyReason.BUDGET_SPENT, **changes: Any) -> Study:
    running = a_study(**{"final": {"top": 3, "seeds": 3}, **changes}).running(NOW)
    return running.stopping(reason).ended(NOW)


def runs_of(values: Mapping[int, Sequence[float | None]], seconds: Mapping[int, float] | None = None) -> list[Trial]:
    """Runs that completed with these values, by the search's trial; None is one that diverged."""
    found: list[Trial] = []
    for trial, each in values.items():
        for value in each:
            run = a_trial(
                100 + len(found), repeats=trial, seed=len(found), state=TrialState.COMPLETED, reports=3, value=value,
                best_value=value, best_report=2, seconds=(seconds or {}).get(trial, 10.0),
            )  # fmt: skip
            found.append(run if value is not None else replace(run, state=TrialState.FAILED, best_report=None))
    return found


def winner_of(result: FinalResult) -> int | None:
    return None if result.winner is None else result.winner.trial


def test_a_configuration_that_is_better_than_all_others_by_more_than_noise_wins() -> None:
    result = final_result(an_ended_study(), runs_of(CLEAR, seconds={0: 1.0, 1: 99.0}))
    assert winner_of(result) == 1
    assert result.champion is not None
    assert (result.champion.number, result.champion.best_value) == (105, 0.94)
    assert result.verdict.startswith("Trial 1 wins with validation/accuracy 0.93 ± 0.01 (n = 3): every other is worse")
    assert "trial 0 with 0.81 ± 0.01 (n = 3) (p = 0.00012)" in result.verdict


def test_fewer_losses_are_better_where_less_is_better() -> None:
    study = an_ended_study(objective={"metric": "validation/loss", "direction": "minimize"})
    result = final_result(study, runs_of(CLEAR))
    assert winner_of(result) == 0
    assert result.champion is not None
    assert result.champion.best_value == 0.80


def test_of_configurations_that_noise_hides_the_cheapest_wins_and_it_is_said() -> None:
    result = final_result(an_ended_study(), runs_of(NOISE, seconds={0: 5.0, 1: 50.0}))
    assert [one.trial for one in result.finalists] == [1, 0], "ranked by the mean"
    assert winner_of(result) == 0
    assert result.verdict.startswith("Trials 1, 0 cannot be told apart from noise (p >= 0.57): trial 0 with")
    assert result.verdict.endswith("wins as the cheapest, with 5 s a run.")


def test_gpu_time_counts_before_training_time() -> None:
    runs = [replace(run, gpu_seconds=1.0 if run.repeats == 1 else 9.0) for run in runs_of(NOISE, seconds={0: 5.0, 1: 50.0})]
    result = final_result(an_ended_study(), runs)
    assert winner_of(result) == 1
    assert "1 s of GPU a run" in result.verdict


def test_at_about_equal_cost_the_smaller_model_wins() -> None:
    runs = runs_of(NOISE, seconds={0: 10.0, 1: 10.3})
    assert winner_of(final_result(an_ended_study(), runs, {0: 9_000_000, 1: 2_000_000})) == 1
    assert winner_of(final_result(an_ended_study(), runs, {0: 1_000_000, 1: 2_000_000})) == 0
    assert "a model of 2.0 MB" in final_result(an_ended_study(), runs, {0: 9_000_000, 1: 2_000_000}).verdict
    assert "a model of 5.2 kB" in final_result(an_ended_study(), runs, {0: 9_000_000, 1: 5_250}).verdict


def test_without_sizes_and_at_equal_cost_the_better_mean_wins() -> None:
    assert winner_of(final_result(an_ended_study(), runs_of(NOISE))) == 1


def test_a_worse_configuration_is_no_candidate_however_cheap() -> None:
    result = final_result(an_ended_study(), runs_of({**NOISE, 2: [0.1, 0.11, 0.12]}, seconds={2: 0.1, 0: 5.0, 1: 9.0}))
    assert winner_of(result) == 0
    assert "Trials 1, 0 cannot" in result.verdict


def test_a_configuration_with_a_failed_run_does_not_win_while_another_has_none() -> None:
    result = final_result(an_ended_study(), runs_of({0: [0.8, 0.81, 0.82], 1: [0.98, 0.99, None]}))
    assert winner_of(result) == 0
    assert "Runs failed: 1 of trial 1, which counts against it." in result.verdict


def test_one_run_each_is_too_few_to_tell() -> None:
    result = final_result(an_ended_study(), runs_of({0: [0.8], 1: [0.9]}, seconds={0: 1.0}))
    assert winner_of(result) == 0
    assert "too few runs to tell" in result.verdict


def test_what_there_is_counts_when_time_ran_out_and_it_is_said() -> None:
    stopped = a_trial(200, repeats=1, state=TrialState.STOPPED, reports=1, best_value=0.99, best_report=1)
    result = final_result(an_ended_study(), [*runs_of({0: [0.9, 0.91], 1: [0.5, 0.51]}), stopped])
    assert (winner_of(result), result.finished) == (0, 4)
    assert "The study ended (budget_spent) when 4 of at most 9 runs had finished." in result.verdict


def test_nothing_is_decided_before_the_study_has_ended() -> None:
    running = a_study(final={"top": 3, "seeds": 3}).running(NOW)
    result = final_result(running, runs_of(CLEAR))
    assert (result.winner, result.champion, result.verdict) == (None, None, "6 of at most 9 runs have finished so far.")
    assert final_result(running, []).verdict == (
        "The search goes on; then its best 3 configurations are trained again under 3 seeds each."
    )


def test_a_study_that_ended_before_a_run_finished_keeps_the_best_of_its_search() -> None:
    ended = an_ended_study(StudyReason.STOP_REQUESTED)
    assert final_result(ended, runs_of({0: [None]})).champion is None
    assert "no run finished" in final_result(ended, runs_of({0: [None]})).verdict
    assert "ended before any run began" in final_result(ended, []).verdict


def test_the_best_run_of_each_finalist_keeps_its_model() -> None:
    searched = [a_trial(number, state=TrialState.COMPLETED, best_value=0.9, best_report=1) for number in range(3)]
    history = History({trial.number: trial for trial in [*searched, *runs_of(NOISE)]})
    study = an_ended_study(checkpoints={"keep": 1})
    assert {number: report for number, report in kept(study, history).items() if report is not None} == {0: 1, 102: 2, 105: 2}


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"space": {"seed": {"kind": "int", "low": 0, "high": 9}}}, "/space/seed"),
        ({"strategy": {"kind": "pbt", "population": 4}}, "/final"),
        ({"final": {"top": 0}}, "/final/top"),
        ({"final": {"seeds": 1}}, "/final/seeds"),
        ({"final": {"top": 21}}, "/final/top"),
    ],
)
def test_a_final_that_cannot_be_is_refused(changes: dict[str, Any], place: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(a_document(**{"final": {"top": 3, "seeds": 3}, **changes}))
    assert place in [violation.pointer for violation in refused.value.violations]


def test_several_objectives_have_no_winner() -> None:
    metrics = {"validation/accuracy": "maximize", "validation/loss": "minimize"}
    objectives = [{"metric": metric, "direction": direction} for metric, direction in metrics.items()]
    document = {**a_document(final={}), "objectives": objectives}
    del document["objective"]
    with pytest.raises(InvalidDefinition, match="one winner"):
        parse_definition(document)
