"""Searching for several objectives: models find fronts that chance does not, and the same history gives the same next trial."""

import math
from collections.abc import Mapping
from typing import Any

import pytest

from search_spaces import Configuration
from service.domain.front import front_of
from service.domain.history import History
from service.domain.pareto import dominates, hypervolume
from service.domain.study import Study
from service.search import Start, next_action, simulate
from tests.builders import NOW, a_document, a_study, as_number

OBJECTIVES = [
    {"metric": "validation/loss", "direction": "minimize"},
    {"metric": "validation/accuracy", "direction": "maximize"},
]
NAMES = ("dropout", "label_smoothing", "warmup_fraction", "weight_decay")
SPACE: Mapping[str, Any] = {name: {"kind": "float", "low": 0.0, "high": 0.9} for name in NAMES}
NSGA2 = {"kind": "bayesian", "sampler": {"kind": "nsga2", "population": 12}}
TPE = {"kind": "bayesian", "sampler": {"kind": "tpe"}}


def a_study_of_two(strategy: Mapping[str, Any], seed: int = 0, trials: int = 60, **changes: Any) -> Study:
    trainer = {**a_document()["trainer"], "epochs": 1}
    document = {"objectives": OBJECTIVES, "space": SPACE, "strategy": strategy, "budget": {"trials": trials}, "seed": seed}
    return a_study(**{"trainer": trainer, **document, **changes})


def loss(parameters: Configuration, _report: int) -> float:
    """The first objective of ZDT1 (Zitzler et al. 2000)."""
    return as_number(parameters["dropout"]) / 0.9


def accuracy(parameters: Configuration, _report: int) -> Mapping[str, float]:
    """The second one, turned round."""
    first, *others = [as_number(parameters.get(name, 0.45)) / 0.9 for name in NAMES]
    far = 1 + 9 * sum(others) / len(others)
    return {"validation/accuracy": -far * (1 - math.sqrt(first / far))}


def volume(study: Study) -> float:
    history = simulate(study, loss, measure=accuracy, workers=2).history
    found = front_of(study, history, reference=(1.1, -6.0)).volume
    assert found is not None
    return found


@pytest.mark.parametrize("strategy", [TPE, NSGA2], ids=["tpe", "nsga2"])
def test_a_model_finds_a_larger_front_than_chance_in_as_many_trials(strategy: Mapping[str, Any]) -> None:
    seeds = range(4)
    led = [volume(a_study_of_two(strategy, seed)) for seed in seeds]
    drawn = [volume(a_study_of_two({"kind": "random"}, seed)) for seed in seeds]
    assert all(one > other for one, other in zip(led, drawn, strict=True))
    assert sum(led) > 1.1 * sum(drawn)


@pytest.mark.parametrize("strategy", [TPE, NSGA2], ids=["tpe", "nsga2"])
def test_a_replay_goes_on_as_if_nothing_had_happened(strategy: Mapping[str, Any]) -> None:
    study = a_study_of_two(strategy, trials=30)
    whole = simulate(study, loss, measure=accuracy).history
    half = simulate(study, loss, measure=accuracy, stop_after_reports=17).history
    again = simulate(study, loss, measure=accuracy, history=half).history
    assert [trial.parameters for trial in again.trials.values()] == [trial.parameters for trial in whole.trials.values()]


def test_children_have_their_parents_conditions_and_keep_the_constraints() -> None:
    space = {
        **SPACE,
        "schedule": {"kind": "categorical", "choices": ["linear", "cosine"]},
        "warmup_fraction": {**SPACE["warmup_fraction"], "when": {"schedule": "linear"}},
        "frozen_layers": {"kind": "int", "low": 0, "high": 6},
    }
    study = a_study_of_two(NSGA2, space=space, constraints=["dropout + weight_decay <= 1"])
    history = simulate(study, loss, measure=accuracy).history
    bred = [trial.parameters for trial in history.trials.values()][12:]
    assert all(study.definition.search_space.contains(parameters) for parameters in bred)
    assert {"warmup_fraction" in parameters for parameters in bred} == {True, False}
    assert len({study.definition.search_space.key(parameters) for parameters in bred}) == len(bred)


def test_a_small_space_is_tried_to_its_end_and_nothing_twice() -> None:
    space = {"frozen_layers": {"kind": "int", "low": 0, "high": 4}, "epochs": {"kind": "constant", "value": 1}}
    study = a_study_of_two({"kind": "bayesian", "sampler": {"kind": "nsga2", "population": 4}}, space=space, trials=40)

    def layers(parameters: Configuration, _report: int) -> float:
        return as_number(parameters["frozen_layers"])

    history = simulate(study, layers, measure=lambda parameters, _: {"validation/accuracy": layers(parameters, 1)}).history
    assert sorted(as_number(trial.parameters["frozen_layers"]) for trial in history.trials.values()) == [0, 1, 2, 3, 4]


def test_the_front_is_what_no_other_trial_dominates() -> None:
    study = a_study_of_two({"kind": "random"}, trials=25)
    history = simulate(study, loss, measure=accuracy).history
    front = front_of(study, history)
    costs = {number: (values[0], -values[1]) for number, values in points_of(history).items()}
    wanted = [number for number, one in costs.items() if not any(dominates(other, one) for other in costs.values())]
    assert sorted(member.trial.number for member in front.members) == wanted
    assert [member.values[0] for member in front.members] == sorted(member.values[0] for member in front.members)
    assert front.reference is not None
    flat = [(values[0], -values[1]) for values in points_of(history).values()]
    assert front.volume == pytest.approx(hypervolume(flat, (front.reference[0], -front.reference[1])))


def test_a_front_of_very_many_members_is_told_without_its_volume(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.domain.front._MOST_MEASURED", {2: 0})
    study = a_study_of_two({"kind": "random"}, trials=5)
    front = front_of(study, simulate(study, loss, measure=accuracy).history)
    assert front.members
    assert front.volume is None


def test_a_study_without_a_report_has_an_empty_front() -> None:
    front = front_of(a_study_of_two({"kind": "random"}), History())
    assert (front.members, front.reference, front.volume) == ((), None, None)


def test_until_there_are_parents_children_are_drawn_at_random() -> None:
    study = a_study_of_two(NSGA2)
    history = simulate(study, loss, measure=accuracy, stop_after_reports=11).history
    sources = [started(study, simulate(study, loss, measure=accuracy, stop_after_reports=many).history) for many in (11, 12)]
    assert len(history.values) == 11
    assert sources == ["random", "nsga2"]


def started(study: Study, history: History) -> str:
    action = next_action(study, history, NOW)
    assert isinstance(action, Start)
    assert action.why is not None
    return action.why.by


def points_of(history: History) -> Mapping[int, tuple[float, ...]]:
    found = {number: history.point_of(trial) for number, trial in history.trials.items()}
    return {number: values for number, values in found.items() if values is not None}
