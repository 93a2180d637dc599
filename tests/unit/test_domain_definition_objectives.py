"""Several objectives and outcomes, as a client sends them."""

import json
from typing import Any

import pytest

from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.outcomes import Outcome, outcome_of
from tests.builders import a_definition, a_document, fine_tuning

ACCURACY = {"metric": "validation/accuracy", "direction": "maximize"}
LATENCY = {"metric": "model/latency_ms", "direction": "minimize"}
LOSS = {"metric": "validation/loss", "direction": "minimize"}


def refused(document: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(InvalidDefinition) as caught:
        parse_definition(document)
    return {violation.pointer: violation.detail for violation in caught.value.violations}


def test_one_objective_is_a_tuple_of_one_and_stands_alone_in_the_file() -> None:
    definition = a_definition()
    assert definition.objectives == (definition.objective,)
    assert "objectives" not in definition.model_dump()


def test_of_several_objectives_the_first_is_the_objective() -> None:
    definition = a_definition(objectives=[LATENCY, ACCURACY])
    assert [one.metric for one in definition.objectives] == ["model/latency_ms", "validation/accuracy"]
    assert definition.objective == definition.objectives[0]


def test_what_is_shown_of_several_objectives_can_be_sent_again() -> None:
    definition = a_definition(objectives=[ACCURACY, LATENCY], outcomes=["model/megabytes <= 100"])
    assert parse_definition(definition.model_dump(mode="json")) == definition
    assert StudyDefinition.model_validate_json(definition.model_dump_json()) == definition


def test_a_copy_with_another_objective_has_that_one_alone() -> None:
    other = a_definition(objective=LOSS)
    assert a_definition().model_copy(update={"objective": other.objective}).objectives == other.objectives


def test_the_trainer_measures_what_an_objective_or_an_outcome_names() -> None:
    assert fine_tuning(a_definition().trainer).measure == ()
    assert fine_tuning(a_definition(objectives=[ACCURACY, LATENCY]).trainer).measure == ("latency_ms",)
    limited = a_definition(outcomes=["model/megabytes <= 100", "validation/loss <= 2"])
    assert fine_tuning(limited.trainer).measure == ("megabytes",)


def test_what_the_trainer_is_asked_to_measure_is_kept() -> None:
    trainer = {**a_document()["trainer"], "measure": ["megabytes"]}
    study = a_definition(trainer=trainer, objectives=[ACCURACY, LATENCY])
    assert fine_tuning(study.trainer).measure == ("megabytes", "latency_ms")


@pytest.mark.parametrize(
    ("changes", "pointer", "part"),
    [
        ({"objectives": [ACCURACY]}, "/objectives", "at least 2"),
        ({"objectives": []}, "/objectives", "at least 2"),
        ({"objectives": "accuracy"}, "/objectives", "valid array"),
        ({"objectives": [{"metric": "validation/accuracy"}, LOSS]}, "/objectives/0/direction", "is required"),
        ({"objectives": [ACCURACY, LATENCY, LOSS, ACCURACY, LOSS]}, "/objectives", "at most 4"),
        ({"objectives": [ACCURACY, {**LOSS, "metric": "model/age"}]}, "/objectives/1/metric", "`model/latency_ms`"),
        ({"objectives": [ACCURACY, LOSS, ACCURACY]}, "/objectives/2/metric", "an objective already"),
        ({"objectives": [ACCURACY, LOSS], "objective": LOSS}, "/objective", "leave `objective` out"),
        ({"objectives": [ACCURACY, LOSS], "budget": {"trials": 4, "target": 0.9}}, "/budget/target", "`outcomes`"),
        ({"objectives": [ACCURACY, LOSS], "strategy": {"kind": "hyperband"}}, "/strategy/kind", "one objective"),
        ({"objectives": [ACCURACY, LOSS], "strategy": {"kind": "median"}}, "/strategy/kind", "one objective"),
        ({"objectives": [ACCURACY, LOSS], "strategy": {"kind": "pbt"}, "budget": {}}, "/strategy/kind", "one objective"),
        (
            {"objectives": [ACCURACY, LOSS], "strategy": {"kind": "bayesian", "sampler": {"kind": "gp"}}},
            "/strategy/sampler/kind",
            "`nsga2`",
        ),
        (
            {"objectives": [ACCURACY, LOSS], "strategy": {"kind": "bayesian", "sampler": {"kind": "cmaes"}}},
            "/strategy/sampler/kind",
            "`nsga2`",
        ),
        ({"objectives": [ACCURACY, LOSS], "warm_start": ["old-abc123"]}, "/warm_start", "leave it out"),
        ({"outcomes": ["validation/loss < 2"]}, "/outcomes/0", "is no outcome"),
        ({"outcomes": ["validation/loss <= 1", "model/age <= 2"]}, "/outcomes/1", "reports"),
        ({"outcomes": ["validation/loss >= 2", "validation/loss <= 1"]}, "/outcomes/1", "nothing keeps it beside"),
        ({"outcomes": ["validation/loss <= 1"] * 11}, "/outcomes", "at most 10"),
        ({"outcomes": [""]}, "/outcomes/0", "at least 1 character"),
        ({"outcomes": ["validation/loss <= 1"], "warm_start": ["old-abc123"]}, "/warm_start", "leave it out"),
    ],
)
def test_what_does_not_go_together_is_refused_where_it_stands(changes: dict[str, Any], pointer: str, part: str) -> None:
    found = refused(a_document(**changes))
    assert set(found) == {pointer}
    assert part in found[pointer]


def test_a_study_without_any_objective_is_refused() -> None:
    document = a_document()
    del document["objective"]
    assert set(refused(document)) == {"/objective"}


def test_a_value_that_takes_a_second_objective_away_is_refused() -> None:
    trainer = {
        "kind": "seq2seq", "model": "t5", "data": {"train": "dataset://pairs/train.csv"}, "epochs": 2, "generated_rows": 10,
    }  # fmt: skip
    document = a_document(
        trainer=trainer,
        space={"generated_rows": {"kind": "categorical", "choices": [0, 10]}},
        objectives=[LOSS, {"metric": "validation/rouge_l", "direction": "maximize"}],
    )
    assert "does not report `validation/rouge_l`" in refused(document)["/space/generated_rows/choices/0"]


@pytest.mark.parametrize("kind", ["random", "sobol", "auto"])
def test_strategies_that_need_no_order_take_several_objectives(kind: str) -> None:
    assert len(a_definition(objectives=[ACCURACY, LOSS], strategy={"kind": kind}).objectives) == 2


@pytest.mark.parametrize(("trials", "kind"), [(20, "tpe"), (1000, "nsga2")])
def test_auto_leads_several_objectives_by_what_suits_the_number_of_trials(trials: int, kind: str) -> None:
    plan = a_definition(objectives=[ACCURACY, LOSS], strategy={"kind": "auto"}, budget={"trials": trials}).plan
    assert plan.strategy.model_dump()["sampler"]["kind"] == kind
    assert plan.reason is not None
    assert kind in plan.reason


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model/megabytes <= 100", Outcome("model/megabytes", "<=", 100)),
        (" validation/f1>=.5 ", Outcome("validation/f1", ">=", 0.5)),
        ("validation/loss <= 1e-2", Outcome("validation/loss", "<=", 0.01)),
        ("validation/r2 >= -0.5", Outcome("validation/r2", ">=", -0.5)),
        ("validation/loss", None),
        ("validation/loss == 1", None),
        ("validation/loss <= one", None),
        ("validation/loss <= 1e999", None),
        ("validation/loss <= 1 2", None),
    ],
)
def test_an_outcome_is_a_metric_a_relation_and_a_number(text: str, expected: Outcome | None) -> None:
    assert outcome_of(text) == expected


def test_the_schema_asks_for_nothing_that_a_file_may_leave_out() -> None:
    required = StudyDefinition.model_json_schema()["required"]
    assert "objectives" not in required
    assert "outcomes" not in required
    assert json.loads(a_definition().model_dump_json())["outcomes"] == []
