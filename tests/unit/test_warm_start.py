"""What a new study can know of the trials of earlier ones."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import warm_start as carrying
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.history import History, PriorTrial
from service.domain.study import WarmStart
from service.domain.trial import Trial, TrialState
from service.domain.warm_start import LeftOut, carried_over, unlike, warm_start
from tests.builders import NOW, a_definition, a_document, a_study, a_trial

RATE = {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}
DROPOUT = {"kind": "float", "low": 0.0, "high": 0.3}
OPTIMIZER = {"kind": "categorical", "choices": ["adamw", "adafactor"]}
TRAINER = a_document()["trainer"]
OLD = a_definition()


def a_space(trainer: Mapping[str, Any] | None = None, **space: Any) -> StudyDefinition:
    return a_definition(space=space, trainer={**TRAINER, **(trainer or {})})


def completed(number: int = 0, values: int = 3, **changes: Any) -> Trial:
    facts = {"state": TrialState.COMPLETED, "reports": values, "value": 0.5, "best_value": 0.5, "best_report": 1}
    return a_trial(number, **{**facts, **changes})


def moved(new: StudyDefinition, old: StudyDefinition = OLD, **parameters: Any) -> Mapping[str, Any] | str:
    """The parameters that a trial has in the new space, or why it has none there."""
    found = carried_over(new, old, completed(parameters=parameters), [0.1, 0.5, 0.3])
    return found.reason if isinstance(found, LeftOut) else found.parameters


def test_another_value_of_what_was_settled_since_it_matters_little_is_taken_for_the_settled_one() -> None:
    old = a_space(learning_rate=RATE, dropout=DROPOUT)
    settled = a_space(learning_rate=RATE, dropout={"kind": "constant", "value": 0.1})
    trial = completed(parameters={"learning_rate": 1e-3, "dropout": 0.2})
    assert carried_over(settled, old, trial, [0.1]) == LeftOut("out_of_range")
    found = carried_over(settled, old, trial, [0.1], frozenset({"dropout", "learning_rate"}))
    assert isinstance(found, PriorTrial)
    assert found.parameters == {"learning_rate": 1e-3, "dropout": 0.1}


def test_a_trial_of_the_same_space_is_known_as_it_was() -> None:
    found = carried_over(OLD, OLD, completed(7), [0.1, 0.5, 0.3])
    assert found == PriorTrial("intents-abc123", 7, {"learning_rate": 1e-3}, (0.1, 0.5, 0.3), is_whole=True)


def test_a_parameter_that_is_new_has_the_value_that_the_old_trainer_had() -> None:
    old = a_space({"dropout": 0.2}, learning_rate=RATE)
    new = a_space(learning_rate=RATE, dropout=DROPOUT)
    assert moved(new, old, learning_rate=1e-3) == {"learning_rate": 1e-3, "dropout": 0.2}
    assert moved(new, a_space({"dropout": 0.5}, learning_rate=RATE), learning_rate=1e-3) == "out_of_range"


def test_a_parameter_of_a_group_that_the_old_trainer_did_not_have_is_unknown() -> None:
    new = a_space(**{"learning_rate": RATE, "lora.rank": {"kind": "int", "low": 4, "high": 16}})
    assert moved(new, learning_rate=1e-3) == "unknown_value"


def test_a_value_outside_the_new_range_does_not_carry_over() -> None:
    assert moved(a_space(learning_rate={**RATE, "high": 5e-4}), learning_rate=1e-3) == "out_of_range"


def test_what_is_searched_no_longer_must_be_as_the_new_trainer_says() -> None:
    old = a_space(learning_rate=RATE, dropout=DROPOUT)
    new = a_space({"dropout": 0.1}, learning_rate=RATE)
    assert moved(new, old, learning_rate=1e-3, dropout=0.1) == {"learning_rate": 1e-3}
    assert moved(new, old, learning_rate=1e-3, dropout=0.2) == "other_setting"
    assert moved(a_space({"dropout": 0.0}, learning_rate=RATE), old, learning_rate=1e-3, dropout=0) == {"learning_rate": 1e-3}


def test_what_does_not_exist_beside_the_others_must_be_as_the_new_trainer_says_too() -> None:
    old = a_space(optimizer=OPTIMIZER, weight_decay={"kind": "float", "low": 0.0, "high": 0.3})
    decay = {"kind": "float", "low": 0.0, "high": 0.3, "when": {"optimizer": "adamw"}}
    new = a_space({"weight_decay": 0.1}, optimizer=OPTIMIZER, weight_decay=decay)
    assert moved(new, old, optimizer="adamw", weight_decay=0.2) == {"optimizer": "adamw", "weight_decay": 0.2}
    assert moved(new, old, optimizer="adafactor", weight_decay=0.2) == "other_setting"
    assert moved(new, old, optimizer="adafactor", weight_decay=0.1) == {"optimizer": "adafactor"}


def test_a_constraint_of_the_new_space_holds_for_what_carries_over() -> None:
    new = a_definition(constraints=["learning_rate <= 5e-4"])
    assert moved(new, learning_rate=1e-3) == "constraint_not_met"
    assert moved(new, learning_rate=1e-4) == {"learning_rate": 1e-4}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"value": None}, "no_value"),
        ({"parent": 3, "parent_report": 1}, "copy_or_repeat"),
        ({"repeats": 3}, "copy_or_repeat"),
    ],
)
def test_trials_that_say_nothing_of_a_configuration_are_left_out(changes: Any, reason: str) -> None:
    assert carried_over(OLD, OLD, completed(**changes), []) == LeftOut(reason)


def test_reports_that_are_taken_at_other_steps_do_not_compare() -> None:
    new = a_space({"report_every": 10, "max_steps": 30}, learning_rate=RATE)
    assert moved(new, learning_rate=1e-3) == "other_reports"


@pytest.mark.parametrize("state", [TrialState.PRUNED, TrialState.STOPPED, TrialState.RUNNING, TrialState.FAILED])
def test_a_trial_that_was_not_completed_is_not_whole(state: TrialState) -> None:
    found = carried_over(OLD, OLD, completed(state=state), [0.1])
    assert isinstance(found, PriorTrial)
    assert not found.is_whole


def test_a_trial_of_another_length_is_not_whole() -> None:
    found = carried_over(a_definition(trainer={**TRAINER, "epochs": 5}), OLD, completed(), [0.1, 0.2, 0.3])
    assert isinstance(found, PriorTrial)
    assert not found.is_whole


def test_studies_of_another_trainer_metric_or_direction_are_unlike() -> None:
    assert unlike(OLD, a_definition(name="other", seed=5)) is None
    for metric, direction in (("validation/loss", "minimize"), ("validation/accuracy", "minimize")):
        assert unlike(OLD, a_definition(objective={"metric": metric, "direction": direction})) is not None
    tokens = {"kind": "token-classification", "model": "m", "data": {"train": "dataset://a/b.conll"}, "epochs": 3}
    assert "token-classification" in (unlike(OLD, a_definition(trainer=tokens)) or "")


def test_what_became_of_all_trials_is_counted_by_reason() -> None:
    trials = [completed(0), completed(1, value=None), completed(2, parameters={"learning_rate": 0.5}), completed(3)]
    history = History({trial.number: trial for trial in trials}, {0: (0.5,), 3: (0.7,)})
    known, became = warm_start(OLD, [(a_study(), history), (a_study(), history)])
    assert [prior.values for prior in known] == [(0.5,), (0.7,)] * 2
    assert became == WarmStart(4, {"no_value": 2, "out_of_range": 2})


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=30, unique=True), most=st.sampled_from([2, 4, 10]))
def test_of_too_many_the_best_and_the_latest_are_kept(values: list[float], most: int) -> None:
    trials = [
        completed(number, value=value, best_value=value, created_at=NOW + timedelta(seconds=number))
        for number, value in enumerate(values)
    ]
    history = History({trial.number: trial for trial in trials}, {number: (value,) for number, value in enumerate(values)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carrying, "MOST_PRIOR", most)
        known, became = warm_start(OLD, [(a_study(), history)])
    numbers = [prior.number for prior in known]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == min(most, len(values))
    assert values.index(max(values)) in numbers
    assert len(values) - 1 in numbers
    assert became.because.get("too_many", 0) == len(values) - len(numbers)


def test_several_objectives_cannot_use_what_one_tells() -> None:
    maximize = {"metric": "validation/accuracy", "direction": "maximize"}
    document = {key: value for key, value in a_document().items() if key != "objective"}
    new = parse_definition({**document, "objectives": [maximize, {"metric": "validation/loss", "direction": "minimize"}]})
    assert carried_over(new, OLD, completed(), [0.5]) == LeftOut("several_objectives")
