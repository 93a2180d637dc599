"""Rungs: who runs how far, who goes on, who is cut."""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice, pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import Value
from service.domain.history import History
from service.domain.rungs import brackets, longest_ladder
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.search import Cut, Promote, Simulation, Start, Wait, next_action, simulate
from service.search.evidence import rung_evidence
from tests.builders import NOW, a_study, a_trial, as_number

Plan = list[tuple[tuple[int, ...], tuple[int, ...]]]


def a_search(epochs: int = 9, workers: int = 2, budget: dict[str, Any] | None = None, seed: int = 0, **strategy: Any) -> Study:
    study = a_study(
        trainer={"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": epochs},
        strategy={"kind": "hyperband", **strategy},
        budget=budget or {},
        resources={"max_concurrent_trials": workers},
        seed=seed,
    )
    return replace(study, state=StudyState.RUNNING, started_at=NOW)


def a_plan(epochs: int, budget: dict[str, Any] | None = None, **strategy: Any) -> Plan:
    return [(bracket.rungs, bracket.sizes) for bracket in brackets(a_search(epochs, budget=budget, **strategy).definition)]


def quality(parameters: Mapping[str, Value], report: int) -> float:
    return -abs(math.log10(as_number(parameters["learning_rate"])) + 3) - 1 / report


CYCLE_OF_9: Plan = [((1, 3, 9), (9, 3, 1)), ((3, 9), (5, 1)), ((9,), (3,))]


def test_without_a_budget_there_is_one_cycle_of_brackets_as_published() -> None:
    assert a_plan(9) == CYCLE_OF_9
    assert a_plan(81)[0] == ((1, 3, 9, 27, 81), (81, 27, 9, 3, 1))
    assert [sizes[0] for _, sizes in a_plan(81)] == [81, 34, 15, 8, 5]


@pytest.mark.parametrize(
    ("lowest", "highest", "factor", "rungs"),
    [(1, 9, 3, (1, 3, 9)), (1, 10, 2, (1, 2, 5, 10)), (100, 900, 3, (100, 300, 900)), (1, 27, 3, (1, 3, 9, 27))],
)
def test_rungs_are_the_longest_trial_by_powers_of_the_factor(
    lowest: int, highest: int, factor: int, rungs: tuple[int, ...]
) -> None:
    assert longest_ladder(highest, lowest, factor) == rungs


def test_a_longest_trial_of_27_has_the_brackets_of_the_paper() -> None:
    assert a_plan(27) == [
        ((1, 3, 9, 27), (27, 9, 3, 1)), ((3, 9, 27), (12, 4, 1)), ((9, 27), (6, 2)), ((27,), (4,)),
    ]  # fmt: skip


def test_a_number_of_trials_repeats_the_cycle_and_narrows_its_last_bracket() -> None:
    assert a_plan(9, {"trials": 30}) == [*CYCLE_OF_9, ((1, 3, 9), (9, 3, 1)), ((3, 9), (4, 1))]


def test_a_number_of_epochs_plans_only_what_can_be_paid() -> None:
    assert a_plan(9, {"epochs": 90}) == [*CYCLE_OF_9, ((1, 3, 9), (9, 3, 1))]
    assert a_plan(9, {"epochs": 5}) == [((1, 3), (3, 1))]
    assert a_plan(9, {"epochs": 0.5}) == []


def test_rungs_count_reports_where_the_length_is_in_steps() -> None:
    in_steps = {"max_steps": 850, "report_every": 100}
    trainer = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, **in_steps}
    definition = a_study(trainer=trainer, strategy={"kind": "hyperband"}, budget={}).definition
    assert [(bracket.rungs, bracket.sizes) for bracket in brackets(definition)] == CYCLE_OF_9


def test_a_budget_of_time_alone_repeats_the_cycle_for_ever() -> None:
    definition = a_search(9, budget={"wall_clock": "1h"}).definition
    assert [bracket.sizes[0] for bracket in islice(brackets(definition), 7)] == [9, 5, 3, 9, 5, 3, 9]


@given(st.integers(1, 200), st.integers(1, 200), st.integers(2, 10))
def test_rungs_increase_from_min_epochs_at_least_to_the_trainers_epochs(epochs: int, lowest: int, factor: int) -> None:
    lowest = min(lowest, epochs)
    plan = a_plan(epochs, min_epochs=lowest, reduction_factor=factor)
    assert len(plan) == 1 + math.floor(math.log(epochs / lowest, factor) + 1e-9)
    for rungs, sizes in plan:
        assert rungs[-1] == epochs
        assert rungs[0] >= lowest
        assert all(low < high for low, high in pairwise(rungs))
        assert all(high == max(1, low // factor) for low, high in pairwise(sizes))


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_synchronous_study_runs_exactly_the_published_counts_at_each_rung(workers: int) -> None:
    done = simulate(a_search(workers=workers), quality, workers=workers)
    counts = {rung: len(spans) for rung, spans in done.rungs_by_time().items()}
    assert counts == {(0, 0): 9, (0, 1): 3, (0, 2): 1, (1, 0): 5, (1, 1): 1, (2, 0): 3}
    assert sum(trial.reports for trial in done.history.trials.values()) == 69
    assert Counter(trial.state for trial in done.history.trials.values()) == {TrialState.PRUNED: 12, TrialState.COMPLETED: 5}
    assert done.reason is StudyReason.BUDGET_SPENT


def test_the_best_of_a_rung_go_on_and_the_rest_are_cut() -> None:
    done = simulate(a_search(), quality, workers=2)
    bracket = [trial for trial in done.history.trials.values() if trial.bracket == 0]
    ranked = sorted(bracket, key=lambda trial: -quality(trial.parameters, 1))
    assert {trial.number for trial in ranked[:3]} == {trial.number for trial in bracket if trial.rung >= 1}
    assert all(trial.reason is TrialReason.RUNG_CUT for trial in ranked[3:])
    assert ranked[0].reason is TrialReason.EPOCHS_DONE


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(1, 1.5), epochs=st.sampled_from([(9, 3), (8, 2), (4, 2), (10, 3)]))
def test_two_workers_are_live_at_once_in_every_rung_wider_than_one(seed: int, spread: float, epochs: tuple[int, int]) -> None:
    def seconds(parameters: Mapping[str, Value], report: int) -> float:
        return 1 + (spread - 1) * (math.log10(as_number(parameters["learning_rate"])) % 1)

    study = a_search(epochs[0], reduction_factor=epochs[1], seed=seed)
    done = simulate(study, quality, workers=2, seconds=seconds)
    wide = [rung for rung, spans in done.rungs_by_time().items() if len(spans) > 1]
    assert wide
    assert all(done.most_live(*rung) == 2 for rung in wide)
    assert _busy_share(done, 2) > 0.85


def test_an_idle_worker_begins_the_next_bracket_while_a_wide_rung_waits_for_its_last_trial() -> None:
    study = a_search(27)
    history = _at_rung(study, count=27, running=(26,))
    action = next_action(study, history, NOW)
    assert isinstance(action, Start)
    assert (action.bracket, action.until) == (1, 3)


def test_an_idle_worker_waits_for_a_rung_whose_winners_would_be_gone_before_it_is_back() -> None:
    study = a_search(9)
    assert next_action(study, _at_rung(study, count=9, running=(8,)), NOW) == Wait()


def test_failed_trials_count_as_the_worst_of_their_rung_and_hold_nobody_up() -> None:
    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.OUT_OF_MEMORY if trial.number in {0, 4, 8} else None

    done = simulate(a_search(), quality, workers=2, fail=fail)
    counts = {rung: len(spans) for rung, spans in done.rungs_by_time().items()}
    assert counts[0, 1] == 3
    assert not {0, 4, 8} & {trial.number for trial in done.history.trials.values() if trial.rung}
    assert {done.history.trials[number].state for number in (0, 4, 8)} == {TrialState.INFEASIBLE}


def test_a_rung_whose_trials_all_failed_ends_its_bracket_only() -> None:
    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.TRAINER_ERROR if trial.bracket == 0 else None

    done = simulate(a_search(), quality, workers=2, fail=fail)
    counts = {rung: len(spans) for rung, spans in done.rungs_by_time().items()}
    assert counts == {(0, 0): 9, (1, 0): 5, (1, 1): 1, (2, 0): 3}


def test_a_promoted_trial_that_fails_is_not_replaced_by_one_that_was_cut() -> None:
    def fail(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.DIVERGED if trial.rung == 1 else None

    done = simulate(a_search(budget={"trials": 9}), quality, workers=2, fail=fail)
    assert {rung: len(spans) for rung, spans in done.rungs_by_time().items()} == {(0, 0): 9, (0, 1): 3}


def test_a_value_that_is_not_a_number_is_never_promoted() -> None:
    study = a_search()
    done = simulate(study, lambda _, report: math.nan if report == 1 else 1.0, workers=2)
    assert {rung for rung in done.rungs_by_time() if rung[0] == 0} == {(0, 0)}


def test_of_two_equals_the_lower_number_goes_on() -> None:
    done = simulate(a_search(), lambda _, __: 0.5, workers=2)
    assert [trial.number for trial in done.history.trials.values() if trial.bracket == 0 and trial.rung >= 1] == [0, 1, 2]


def test_losers_are_cut_as_soon_as_their_rung_decides_before_winners_go_on() -> None:
    study = a_search()
    history = _at_rung(study, count=9)
    action = next_action(study, history, NOW)
    assert action == Cut((0, 1, 2, 3, 4, 5), TrialReason.RUNG_CUT)
    for number in action.numbers:
        history = history.with_trial(history.trials[number].ended(action.reason, NOW))
    assert next_action(study, history, NOW) == Promote(8, 1, 3)


def test_an_asynchronous_study_promotes_as_soon_as_one_is_in_the_best_third() -> None:
    study = a_search(mode="async", budget={"trials": 20})
    assert next_action(study, _at_rung(study, count=3), NOW) == Promote(2, 1, 3)
    assert isinstance(next_action(study, _at_rung(study, count=2), NOW), Start)


def test_an_asynchronous_study_promotes_nobody_twice() -> None:
    study = a_search(mode="async", budget={"trials": 20})
    history = _at_rung(study, count=5)
    history = history.with_trial(history.trials[4].promoted(1, 3).started(NOW))
    assert isinstance(next_action(study, history, NOW), Start)


@pytest.mark.parametrize(("trials", "counts"), [(9, [9, 3, 1]), (27, [27, 9, 3]), (4, [4, 1, 1]), (1, [1, 1, 1])])
def test_an_asynchronous_study_promotes_what_it_may_after_its_last_trial(trials: int, counts: list[int]) -> None:
    done = simulate(a_search(mode="async", budget={"trials": trials}), lambda _, report: 0.5 + report / 100)
    assert [len(spans) for spans in done.rungs_by_time().values()] == counts
    ends = Counter(trial.reason for trial in done.history.trials.values())
    assert ends[TrialReason.EPOCHS_DONE] == counts[-1]
    assert ends[TrialReason.RUNG_CUT] == trials - counts[-1]


def test_an_asynchronous_study_keeps_its_workers_busy_to_the_last_epochs() -> None:
    done = simulate(a_search(mode="async", budget={"epochs": 90}, workers=4), quality, workers=4)
    assert sum(trial.reports for trial in done.history.trials.values()) == 90
    assert _busy_share(done, 4) > 0.85


def stops_after(*numbers: int, report: int) -> Callable[[Trial, int], bool]:
    return lambda trial, given: trial.number in numbers and given == report


def better_late(parameters: Mapping[str, Value], report: int) -> float:
    return report / 100


def test_a_synchronous_rung_waits_for_nobody_who_stopped_early() -> None:
    study = a_search(27, min_epochs=3, budget={"trials": 9})
    done = simulate(study, quality, workers=2, stop=stops_after(*range(0, 9, 2), report=2))
    assert done.reason is StudyReason.BUDGET_SPENT
    ends = Counter(trial.reason for trial in done.history.trials.values())
    assert ends[TrialReason.NO_IMPROVEMENT] == 5
    assert sum(ends.values()) == 9


def test_a_good_trial_that_stopped_early_keeps_its_place_at_every_rung_above_and_trains_no_further() -> None:
    def values(parameters: Mapping[str, Value], report: int) -> float:
        return 1.0 if report == 2 else 0.5 + report / 100  # at its second report the first trial is above all others

    study = a_search(27, min_epochs=3, budget={"trials": 9})
    done = simulate(study, values, stop=stops_after(0, report=2))
    without = simulate(study, values, stop=None)
    first = done.history.trials[0]
    assert (first.state, first.reason, first.reports, first.rung) == (TrialState.COMPLETED, TrialReason.NO_IMPROVEMENT, 2, 0)
    counts = [{rung: len(spans) for rung, spans in found.rungs_by_time().items()} for found in (without, done)]
    assert counts == [{(0, 0): 9, (0, 1): 3, (0, 2): 1}, {(0, 0): 9, (0, 1): 2}]


def test_a_poor_trial_that_stopped_early_keeps_nobody_from_going_on() -> None:
    study = a_search(27, min_epochs=3, budget={"trials": 9})
    done = simulate(study, better_late, stop=stops_after(8, report=2))
    assert {rung: len(spans) for rung, spans in done.rungs_by_time().items()} == {(0, 0): 9, (0, 1): 3, (0, 2): 1}


@pytest.mark.parametrize(("value", "action"), [(1.0, Promote(17, 2, 9)), (-1.0, Promote(16, 1, 3))])
def test_who_stopped_early_counts_at_the_asynchronous_rungs_above_if_good_enough_for_them(value: float, action: Promote) -> None:
    study = a_search(mode="async", budget={"trials": 30})
    history = _at_rung(study, count=18)
    for number in range(6):
        early = history.trials[number]
        ended = replace(early, state=TrialState.COMPLETED, reason=TrialReason.NO_IMPROVEMENT, value=value, best_value=value)
        history = replace(history.with_trial(ended), values={**history.values, number: (value,)})
    best = replace(history.trials[17].promoted(1, 3).started(NOW), reports=3, value=2.0, best_value=2.0).paused()
    history = replace(history.with_trial(best), values={**history.values, 17: (2.0, 2.0, 2.0)})
    # Alone at its rung the best trial would wait for two more; five good ones that stopped early are there with it.
    assert next_action(study, history, NOW) == action


def test_who_was_promoted_and_then_stopped_early_takes_one_place_above_its_rung() -> None:
    study = a_search(mode="async", budget={"trials": 30})
    history = _at_rung(study, count=6)
    gone = replace(history.trials[5].promoted(1, 3).started(NOW), reports=2)
    early = replace(gone, state=TrialState.COMPLETED, reason=TrialReason.NO_IMPROVEMENT)
    action = next_action(study, history.with_trial(early), NOW)
    # Two of six may go on: it is one of them.
    assert isinstance(action, Promote)
    assert action.rung == 1


def test_who_stopped_early_does_not_stand_for_the_one_trial_that_reaches_the_top() -> None:
    study = a_search(mode="async", budget={"trials": 4})
    done = simulate(study, better_late, stop=stops_after(0, report=1))
    assert max(trial.reports for trial in done.history.trials.values()) == 9


@pytest.mark.parametrize("mode", ["sync", "async"])
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100), stops=st.dictionaries(st.integers(0, 16), st.integers(1, 9), max_size=8), after=st.integers(1, 60)
)
def test_a_replay_of_early_stops_gives_the_same_decisions(mode: str, seed: int, stops: dict[int, int], after: int) -> None:
    study = a_search(mode=mode, budget={"trials": 17}, seed=seed)

    def stop(trial: Trial, report: int) -> bool:
        return stops.get(trial.number) == report

    whole = simulate(study, quality, stop=stop)
    begun = simulate(study, quality, stop=stop, stop_after_reports=after)
    resumed = simulate(study, quality, stop=stop, history=begun.history)
    outcome = [
        {number: (trial.state, trial.reason, trial.reports, trial.rung) for number, trial in found.history.trials.items()}
        for found in (whole, resumed)
    ]
    assert outcome[0] == outcome[1]
    assert all(trial.state.is_end for trial in whole.history.trials.values())


def test_a_model_of_a_rung_takes_who_waits_below_it_for_pending_and_leaves_out_who_was_cut_there() -> None:
    study = a_search(mode="async", budget={"trials": 20})
    history = _at_rung(study, 12)
    for number in range(5):  # a model asks for no fewer: one for the parameter, and a few more
        trial = replace(history.trials[number].promoted(1, 3).started(NOW), reports=3, value=0.5, best_value=0.5).paused()
        history = history.with_trial(trial).with_value(number, 0.5).with_value(number, 0.5)
    history = history.with_trial(history.trials[11].ended(TrialReason.RUNG_CUT, NOW))
    evidence = rung_evidence(study, history, startup_trials=1)
    assert (evidence.report, evidence.measured) == (3, 5)
    assert evidence.pending == [history.trials[number].parameters for number in range(5, 11)]


def _at_rung(study: Study, count: int, running: tuple[int, ...] = ()) -> History:
    """So many trials paused at the lowest rung, the higher the number the better; some of them still on their way there."""
    history = History()
    for number in range(count):
        trial = a_trial(number, parameters={"learning_rate": 1e-4 + number * 1e-5}, until=1).started(NOW)
        if number not in running:
            value = number / 100
            trial = replace(trial, reports=1, value=value, best_value=value, best_report=1).paused()
            history = history.with_value(number, value)
        history = history.with_trial(trial)
    return history


def _busy_share(done: Simulation, workers: int) -> float:
    return sum(attempt.ended - attempt.began for attempt in done.attempts) / done.seconds / workers


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_promotions_and_cuts_go_by_the_strategys_name(mode: str) -> None:
    study = a_search(mode=mode, budget={"trials": 9})
    actions = simulate(study, lambda parameters, _: as_number(parameters["learning_rate"]), workers=2).actions
    assert {action.why.by for action in actions if isinstance(action, Promote) and action.why} == {"hyperband"}
    assert {why.by for action in actions if isinstance(action, Cut) for why in action.why} == {"hyperband"}
