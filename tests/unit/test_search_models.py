"""Proposals led by a model: better than chance, and no trouble with the odd values that studies hold."""

import math
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

import pytest

from search_spaces import Value, contains
from service.domain.history import History
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialReason, TrialState
from service.search import Start, next_action, simulate
from service.search.evidence import Observation
from service.search.gaussian_process import gaussian_process_proposals
from tests.builders import NOW, a_study, a_trial, as_number

BOWL = {
    "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "dropout": {"kind": "float", "low": 0.0, "high": 0.9},
    "weight_decay": {"kind": "float", "low": 0.0, "high": 1.0},
}
LOSS = {"metric": "validation/loss", "direction": "minimize"}
TPE = {"kind": "bayesian", "sampler": {"kind": "tpe", "startup_trials": 8}}
GP = {"kind": "bayesian", "sampler": {"kind": "gp", "startup_trials": 8}}
ODD = {
    "learning_rate": {"kind": "float", "low": 1e-6, "high": 1e-1, "log": True},
    "dropout": {"kind": "float", "low": 0.2, "high": 0.2},
    "batch_size": {"kind": "int", "low": 8, "high": 39, "step": 8},
    "max_length": {"kind": "int", "low": 8, "high": 512, "log": True},
    "model": {"kind": "categorical", "choices": ["a", "b"]},
    "data.test": {"kind": "categorical", "choices": [None, "dataset://a/b.csv"]},
}


TINY = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": 1}


def a_search(strategy: dict[str, Any], trials: int, seed: int = 0, **changes: Any) -> Study:
    definition: dict[str, Any] = {"trainer": TINY, "space": BOWL, "objective": LOSS, "budget": {"trials": trials}, **changes}
    return replace(a_study(strategy=strategy, seed=seed, **definition), state=StudyState.RUNNING, started_at=NOW)


def bowl(parameters: Mapping[str, Value], report: int) -> float:
    """Best, 0, at a learning rate of 1e-3, a dropout of 0.3 and a weight decay of 0.8."""
    rate, dropout, decay = (as_number(parameters[name]) for name in ("learning_rate", "dropout", "weight_decay"))
    return ((math.log10(rate) + 3) / 5) ** 2 + (dropout - 0.3) ** 2 + (decay - 0.8) ** 2


def best_values(strategy: dict[str, Any], trials: int, seeds: int) -> list[float]:
    found = []
    for seed in range(seeds):
        study = a_search(strategy, trials, seed)
        best = simulate(study, bowl, workers=2).history.best(study.definition.objective)
        assert best is not None
        found.append(best.best_value or 0.0)
    return found


def test_a_parzen_estimator_finds_better_than_chance() -> None:
    assert median(best_values(TPE, 35, 20)) < 0.7 * median(best_values({"kind": "random"}, 35, 20))


def test_a_gaussian_process_finds_much_better_than_chance() -> None:
    assert median(best_values(GP, 16, 5)) < 0.3 * median(best_values({"kind": "random"}, 16, 5))


def test_hyperband_with_a_model_finds_better_than_without() -> None:
    def results(sampler: str) -> list[float]:
        strategy = {"kind": "hyperband", "sampler": {"kind": sampler}}
        trainer = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "epochs": 9}
        found = []
        for seed in range(24):
            study = a_search(strategy, 60, seed, trainer=trainer)
            done = simulate(study, lambda parameters, report: bowl(parameters, report) + 1 / report, workers=2)
            best = done.history.best(study.definition.objective)
            assert best is not None
            found.append((best.best_value or 0.0) - 1 / 9)
        return found

    assert median(results("tpe")) < 0.75 * median(results("random"))


def test_a_gaussian_process_may_be_led_either_way() -> None:
    history = simulate(a_search(GP, 9), bowl).history
    upside_down = replace(
        history,
        trials={number: replace(trial, best_value=-(trial.best_value or 0.0)) for number, trial in history.trials.items()},
        values={number: tuple(-value for value in values) for number, values in history.values.items()},
    )
    accuracy = {"metric": "validation/accuracy", "direction": "maximize"}
    down = next_action(a_search(GP, 10), history, NOW)
    up = next_action(a_search(GP, 10, objective=accuracy), upside_down, NOW)
    assert isinstance(down, Start)
    assert isinstance(up, Start)
    assert up.parameters == pytest.approx(down.parameters)


@pytest.mark.parametrize("strategy", [TPE, GP], ids=["tpe", "gp"])
def test_odd_parameters_come_back_as_the_values_that_the_space_holds(strategy: dict[str, Any]) -> None:
    study = a_search({**strategy, "sampler": {**strategy["sampler"], "startup_trials": 2}}, 6, space=ODD)
    done = simulate(study, lambda parameters, _: as_number(parameters["batch_size"]))
    assert len(done.history.trials) == 6
    for trial in done.history.trials.values():
        assert list(trial.parameters) == list(ODD)
        assert all(contains(study.definition.space[name], value) for name, value in trial.parameters.items())


def test_running_trials_keep_the_next_proposal_away() -> None:
    study = a_search(TPE, 100)
    history = simulate(study, bowl, stop_after_reports=20).history
    history = replace(history, trials={number: trial for number, trial in history.trials.items() if trial.state.is_end})
    alone = _next_rates(study, history, 1)[0]
    rates = _next_rates(study, history, 6)
    assert rates[0] == alone
    assert len(set(rates)) == 6


def test_a_model_learns_to_keep_away_from_what_fails() -> None:
    def diverges(trial: Trial, report: int) -> TrialReason | None:
        return TrialReason.DIVERGED if as_number(trial.parameters["learning_rate"]) > 1e-3 else None

    def share_of_failures(reason_counts: bool) -> float:  # noqa: FBT001 - two cases of one measurement
        failed = asked = 0
        for seed in range(6):
            fail = diverges if reason_counts else _lost_above
            done = simulate(a_search(TPE, 40, seed), lambda parameters, _: 1.0 + as_number(parameters["dropout"]), fail=fail)
            late = [trial for trial in done.history.trials.values() if trial.number >= 20]
            failed += sum(trial.reason is not TrialReason.EPOCHS_DONE for trial in late)
            asked += len(late)
        return failed / asked

    assert share_of_failures(True) < 0.25
    assert share_of_failures(False) > share_of_failures(True)


@pytest.mark.parametrize("reports", [0, 1])
def test_a_model_keeps_away_from_what_is_infeasible_however_well_it_began(reports: int) -> None:
    study = a_search(TPE, 40, trainer={**TINY, "epochs": 2})

    def too_large(trial: Trial, report: int) -> TrialReason | None:
        is_large = as_number(trial.parameters["learning_rate"]) > 1e-3
        return TrialReason.OUT_OF_MEMORY if is_large and report > reports else None

    done = simulate(study, lambda parameters, _: 1.0 + as_number(parameters["dropout"]), fail=too_large)
    ends = [trial.state for trial in done.history.trials.values()]
    assert ends[:20].count(TrialState.INFEASIBLE) > 2 * ends[20:].count(TrialState.INFEASIBLE)
    assert len({tuple(trial.parameters.values()) for trial in done.history.trials.values()}) == 40


def test_a_trial_that_stopped_early_tells_a_model_as_much_as_a_whole_one() -> None:
    study = a_search(TPE, 12, trainer={**TINY, "epochs": 3})
    whole = simulate(study, bowl).history
    stopped = replace(
        whole,
        trials={number: replace(trial, reports=1, reason=TrialReason.NO_IMPROVEMENT) for number, trial in whole.trials.items()},
        values={number: values[:1] for number, values in whole.values.items()},
    )
    longer = a_search(TPE, 13, trainer={**TINY, "epochs": 3})
    assert next_action(longer, stopped, NOW) == next_action(longer, whole, NOW)
    lost = {number: replace(trial, reason=TrialReason.RETRIES_EXHAUSTED) for number, trial in stopped.trials.items()}
    assert next_action(longer, replace(stopped, trials=lost), NOW) != next_action(longer, whole, NOW)


def test_a_model_is_not_misled_by_values_that_are_not_numbers() -> None:
    def holes(parameters: Mapping[str, Value], report: int) -> float:
        return math.nan if as_number(parameters["dropout"]) > 0.6 else bowl(parameters, report)

    for strategy in (TPE, GP):
        study = a_search(strategy, 12)
        assert len(simulate(study, holes).history.trials) == 12


def test_only_so_many_observations_are_shown_to_a_gaussian_process() -> None:
    study = a_search(GP, 5000)
    trials = [
        a_trial(number, parameters={"learning_rate": 10 ** (-1 - 5 * _part(number, 1)), "dropout": 0.9 * _part(number, 2),
                                    "weight_decay": _part(number, 3)}) for number in range(1200)
    ]  # fmt: skip
    observations = [Observation(trial.parameters, bowl(trial.parameters, 1)) for trial in trials]
    first = next(gaussian_process_proposals(study.definition, observations, 1200))
    assert bowl(first, 1) < 0.05


def _part(number: int, salt: int) -> float:
    return (number * (0.618034 + salt * 0.1)) % 1


def _lost_above(trial: Trial, report: int) -> TrialReason | None:
    return TrialReason.RETRIES_EXHAUSTED if as_number(trial.parameters["learning_rate"]) > 1e-3 else None


def _next_rates(study: Study, history: History, count: int) -> list[Value]:
    rates = []
    for _ in range(count):
        start = next_action(study, history, NOW)
        assert isinstance(start, Start)
        history = history.with_trial(a_trial(start.number, parameters=start.parameters, until=start.until).started(NOW))
        rates.append(start.parameters["learning_rate"])
    return rates
