"""What of a definition may change once its study has begun, and how a search goes on with a larger budget."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from search_spaces import Value
from service.domain.amending import amended, larger
from service.domain.closing import end_trial_with, revived
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.history import History
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import TrialState
from service.search import Start, simulate
from service.search.simulate import Simulation
from tests.builders import NOW, a_definition, a_document, a_study, as_number

FINITE = {"batch_size": {"kind": "categorical", "choices": [8, 16, 32]}, "frozen_layers": {"kind": "int", "low": 0, "high": 3}}
CONTINUOUS = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "weight_decay": {"kind": "float", "low": 0.0, "high": 0.3},
}
STRATEGIES: list[dict[str, Any]] = [
    {"kind": "random"},
    {"kind": "sobol"},
    {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 3}},
    {"kind": "median", "sampler": {"kind": "random"}},
    {"kind": "hyperband"},
    {"kind": "hyperband", "mode": "async"},
    {"kind": "pbt", "population": 2},
]


def trainer(epochs: int) -> dict[str, Any]:
    return {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": epochs}


def a_search(strategy: Mapping[str, Any], trials: int, **changes: Any) -> Study:
    document = {
        "trainer": trainer(9),
        "space": CONTINUOUS,
        "budget": {"trials": trials},
        "resources": {"max_concurrent_trials": 2},
    }
    return a_study(strategy=strategy, **{**document, **changes})


def value(parameters: Mapping[str, Value], report: int) -> float:
    return 1 - sum(as_number(one) for one in parameters.values()) % 0.7 - 0.3 / report


def extended(study: Study, done: Simulation, budget: Mapping[str, Any]) -> tuple[Study, History]:
    """The study and its history as its next driver finds them, all of its checkpoints there."""
    at = NOW + timedelta(seconds=done.seconds)
    ended = replace(study, started_at=NOW, state=StudyState.RUNNING).stopping(done.reason or StudyReason.BUDGET_SPENT).ended(at)
    going_on = ended.extended(larger(ended, budget), at).running(at)
    history = done.history
    for change in revived(history, lambda _: True):
        history = history.with_trial(change.trial)
    return replace(going_on, started_at=at), history


def tried(history: History) -> list[tuple[tuple[str, Value], ...]]:
    return [tuple(trial.parameters.items()) for _, trial in sorted(history.trials.items()) if trial.repeats is None]


@settings(max_examples=60, deadline=None)
@given(
    before=st.one_of(st.none(), st.integers(1, 300)),
    after=st.one_of(st.none(), st.integers(1, 300)),
    workers=st.integers(1, 12),
    epochs=st.sampled_from([1, 2, 9, 100]),
    space=st.sampled_from([FINITE, CONTINUOUS]),
    strategy=st.sampled_from([{"kind": "auto"}, {"kind": "bayesian"}]),
)
def test_what_was_chosen_for_a_study_stays_chosen_whatever_it_may_spend(
    before: int | None,
    after: int | None,
    workers: int,
    epochs: int,
    space: Mapping[str, Any],
    strategy: Mapping[str, Any],
) -> None:
    budget = {"trials": before} if before else {"wall_clock": "1h"}
    definition = a_definition(trainer=trainer(epochs), space=space, strategy=strategy, budget=budget)
    patch = {"budget": {"trials": after, "wall_clock": "2h"}, "resources": {"max_concurrent_trials": workers}}
    changed = amended(definition, patch)
    assert changed.plan == definition.plan
    assert amended(changed, {"budget": {"trials": 7}}).plan == definition.plan
    assert StudyDefinition.model_validate_json(changed.model_dump_json()) == changed, "it is stored and read again"


def test_a_client_may_settle_what_auto_stands_for() -> None:
    chosen = {"kind": "auto", "chosen": {"kind": "sobol"}, "because": "A colleague said so."}
    plan = a_definition(strategy=chosen).plan
    assert (plan.strategy.kind, plan.reason) == ("sobol", "A colleague said so.")


def test_a_strategy_that_the_user_chose_stays_as_it_was_written() -> None:
    definition = a_definition(strategy={"kind": "hyperband"})
    assert amended(definition, {"budget": {"trials": 9}}).strategy == definition.strategy


def test_only_what_is_named_changes() -> None:
    definition = a_definition(budget={"trials": 4, "target": 0.9}, strategy={"kind": "random"}, final={"top": 2}, seed=7)
    changed = amended(definition, {"budget": {"trials": 9, "target": None}})
    assert changed == parse_definition(a_document(budget={"trials": 9}, strategy={"kind": "random"}, final={"top": 2}, seed=7))
    assert amended(definition, {"budget": {"trials": 4}}) is definition


def test_a_limit_below_what_a_first_trial_needs_only_ends_a_study_that_runs() -> None:
    definition = a_definition(trainer=trainer(9), budget={"trials": 9}, strategy={"kind": "pbt", "population": 8, "interval": 3})
    assert amended(definition, {"budget": {"trials": 2, "epochs": 3}}).budget.trials == 2


def test_what_a_definition_may_not_say_an_amended_one_may_not_either() -> None:
    with pytest.raises(InvalidDefinition) as refused:
        amended(a_definition(), {"budget": {"trials": None}})
    assert [one.pointer for one in refused.value.violations] == ["/budget"]
    assert "never end" in refused.value.detail


def test_an_extension_of_a_study_that_has_tried_all_there_is_says_what_to_do() -> None:
    ended = a_search({"kind": "grid"}, 12, space=FINITE).running(NOW).stopping(StudyReason.SPACE_EXHAUSTED).ended(NOW)
    with pytest.raises(InvalidDefinition, match="fork it"):
        larger(ended, {"trials": 20})


@pytest.mark.parametrize("strategy", [{"kind": "random"}, {"kind": "sobol"}])
def test_what_draws_by_number_goes_on_as_if_it_had_had_the_larger_budget_from_the_start(strategy: Mapping[str, Any]) -> None:
    study = a_search(strategy, 5)
    going_on, history = extended(study, simulate(study, value, workers=2), {"trials": 12})
    done = simulate(going_on, value, workers=2, history=history)
    assert tried(done.history) == tried(simulate(a_search(strategy, 12), value, workers=2).history)


def test_a_sample_of_a_grid_goes_on_in_the_order_of_the_grid() -> None:
    strategy = {"kind": "grid", "sample": True}
    study = a_search(strategy, 5, space=FINITE)
    going_on, history = extended(study, simulate(study, value, workers=2), {"trials": 12})
    done = simulate(going_on, value, workers=2, history=history)
    assert tried(done.history) == tried(simulate(a_search(strategy, 12, space=FINITE), value, workers=2).history)


@settings(max_examples=40, deadline=None)
@given(
    strategy=st.sampled_from(STRATEGIES),
    trials=st.integers(3, 12),
    more=st.integers(1, 15),
    workers=st.integers(1, 4),
    epochs=st.one_of(st.none(), st.integers(30, 60)),
    final=st.booleans(),
)
def test_every_search_goes_on_with_new_numbers_and_configurations_and_ends_within_the_larger_budget(
    strategy: Mapping[str, Any],
    trials: int,
    more: int,
    workers: int,
    epochs: int | None,
    final: bool,  # noqa: FBT001 - drawn by hypothesis
) -> None:
    limits = {"trials": trials, **({} if epochs is None else {"epochs": epochs})}
    assume(not final or strategy["kind"] != "pbt")  # which has no configuration to train again
    study = a_search(strategy, trials, budget=limits, **({"final": {"top": 2, "seeds": 2}} if final else {}))
    first = simulate(study, value, workers=workers)
    budget = {"trials": trials + more, **({} if epochs is None else {"epochs": epochs + 9 * more})}
    going_on, history = extended(study, first, budget)
    done = simulate(going_on, value, workers=workers, history=history)
    searched = done.history.searched.trials
    assert done.reason is StudyReason.BUDGET_SPENT
    assert sorted(done.history.trials) == list(range(len(done.history.trials)))
    assert len(searched) <= trials + more
    assert len(set(map(str, tried(done.history)))) == len(searched) or strategy["kind"] == "pbt"
    assert all(trial.state.is_end for trial in done.history.trials.values())
    kept = {number: (trial.parameters, trial.seed) for number, trial in first.history.trials.items()}
    assert {number: (done.history.trials[number].parameters, done.history.trials[number].seed) for number in kept} == kept
    if strategy["kind"] in {"random", "sobol", "bayesian", "median"} and epochs is None:
        assert len(searched) == trials + more


def test_a_final_is_held_once_more_with_the_runs_that_it_has() -> None:
    study = a_search({"kind": "random"}, 4, final={"top": 2, "seeds": 2})
    first = simulate(study, value, workers=2)
    assert sum(trial.repeats is not None for trial in first.history.trials.values()) == 4
    going_on, history = extended(study, first, {"trials": 12})
    done = simulate(going_on, value, workers=2, history=history)
    best = sorted(done.history.searched.trials.values(), key=lambda trial: -(trial.best_value or 0))[:2]
    runs = [(trial.repeats, trial.seed) for trial in done.history.trials.values() if trial.repeats is not None]
    assert len(set(runs)) == len(runs), "no run is made twice"
    for trial in best:
        assert sum(repeats == trial.number for repeats, _ in runs) == 2
    starts = [action for action in done.actions if isinstance(action, Start)]
    assert [one.repeats is None for one in starts] == sorted([one.repeats is None for one in starts], reverse=True), (
        "the search goes first"
    )


def test_trials_that_their_studys_end_stopped_go_on_when_it_does() -> None:
    study = a_search({"kind": "random"}, 6)
    cut_short = simulate(study, value, workers=2, stop_after_reports=13)
    history = cut_short.history
    for trial in history.in_state(TrialState.RUNNING):
        history = history.with_trial(end_trial_with(study.running(NOW).stopping(StudyReason.STOP_REQUESTED), trial, NOW))
    stopped = [trial.number for trial in history.in_state(TrialState.STOPPED)]
    assert stopped
    going_on, history = extended(study, replace(cut_short, history=history, reason=StudyReason.STOP_REQUESTED), {})
    done = simulate(going_on, value, workers=2, history=history)
    assert {done.history.trials[number].state for number in stopped} == {TrialState.COMPLETED}
