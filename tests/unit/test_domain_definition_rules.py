"""What a definition's parts must say of each other: its space fits its trainer, its strategy its space, its budget both."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.definition import Objective, parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.strategy_rules import MAX_GRID
from tests.builders import a_definition, a_document, fine_tuning
from trainers.configs import TextClassificationConfig

TRAINER = a_document()["trainer"]
WITHOUT_DATA = {key: value for key, value in TRAINER.items() if key != "data"}
LOSS = "validation/loss"


def violations(**changes: Any) -> dict[str, str]:
    """What is said about each place in the document."""
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(a_document(**changes))
    return {violation.pointer: violation.detail for violation in refused.value.violations}


def a_range(low: float, high: float, kind: str = "float", **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "low": low, "high": high, **changes}


def choices(*values: Any) -> dict[str, Any]:
    return {"kind": "categorical", "choices": list(values)}


@pytest.mark.parametrize(
    ("name", "parameter", "place"),
    [
        ("dropout", a_range(0, 1), "/high"),
        ("dropout", a_range(-0.1, 0.5), "/low"),
        ("batch_size", a_range(0, 8, "int"), "/low"),
        ("batch_size", choices(8, 0, 16), "/choices/1"),
        ("batch_size", choices(8, "16"), "/choices/1"),
        ("batch_size", choices("8", 16), "/choices/0"),
        ("batch_size", choices(True), "/choices/0"),
        ("batch_size", choices(None), "/choices/0"),
        ("epochs", a_range(1, 1001, "int"), "/high"),
        ("model", choices("a", ""), "/choices/1"),
        ("precision", choices("fp32", "int4"), "/choices/1"),
        ("data.train", choices("dataset://a/b.csv", ""), "/choices/1"),
    ],
)
def test_a_value_that_the_trainer_does_not_take_is_refused_where_it_is(name: str, parameter: Any, place: str) -> None:
    assert list(violations(space={name: parameter})) == [f"/space/{name}{place}"]


@pytest.mark.parametrize(
    ("name", "parameter"), [("epochs", a_range(1, 3)), ("epochs", a_range(-2, -1, "int")), ("data.train", a_range(1, 2, "int"))]
)
def test_both_ends_of_a_range_are_looked_at(name: str, parameter: Any) -> None:
    assert list(violations(space={name: parameter})) == [f"/space/{name}/low", f"/space/{name}/high"]


@pytest.mark.parametrize(
    "name",
    ["wings", "a.b", "data.wings", "data.train.csv", "data.validation.x", "epochs.x", "data..train", ".", "", "DROPOUT", "data."],
)
def test_a_parameter_that_the_trainer_does_not_have_is_refused_where_it_stands(name: str) -> None:
    assert list(violations(space={name: choices("csv")})) == [f"/space/{name}"]


@pytest.mark.parametrize(
    ("name", "meant"), [("learning_rates", "learning_rate"), ("DROPOUT", "dropout"), ("lora.rnak", "lora.rank")]
)
def test_where_a_parameter_is_spelled_almost_right_that_alone_is_named(name: str, meant: str) -> None:
    said = violations(space={name: choices(1)})[f"/space/{name}"]
    assert said.endswith(f"has no parameter `{name}`: did you mean `{meant}`?")
    said = violations(constraints=[f"{name} >= 1"])["/constraints/0"]
    assert said.endswith(f"did you mean `{meant}`?")


def test_the_keys_there_are_are_listed_with_those_of_groups() -> None:
    said = violations(space={"lora.wings": choices(1)})["/space/lora.wings"]
    for name in ("lora.rank", "augmentation.token_dropout", "early_stopping.patience", "data.lowercase", "learning_rate"):
        assert f"`{name}`" in said
    assert not any(f"`{name}`" in said for name in ("lora", "kind", "max_steps", "report_every"))


@pytest.mark.parametrize(
    ("name", "parameter", "beside"),
    [
        ("lora.rank", choices(4, 64), {"alpha": 16.0}),
        ("lora.target_modules", choices("auto", "all-linear"), {"rank": 8}),
        ("augmentation.token_dropout", choices(0.0, 0.3), {"span_masking": 0.0}),
        ("early_stopping.patience", choices(1, 5), {"min_gain": 0.0}),
        ("data.lowercase", choices(False, True), {"text": "text", "train": TRAINER["data"]["train"]}),
    ],
)
@pytest.mark.parametrize("absent", [{}, {"lora": None, "early_stopping": None}])
def test_a_key_of_a_group_that_is_not_given_is_searched_with_the_groups_defaults(
    name: str, parameter: dict[str, Any], beside: dict[str, Any], absent: dict[str, Any]
) -> None:
    study = a_definition(space={name: parameter}, trainer={**TRAINER, **absent})
    group, _, key = name.partition(".")
    for value in parameter["choices"]:
        configured = study.configured({name: value}).model_dump(mode="json")[group]
        assert {**configured, **beside, key: value} == configured


def test_a_group_that_is_given_keeps_the_rest_of_its_keys() -> None:
    study = a_definition(space={"lora.rank": a_range(4, 64, "int")}, trainer={**TRAINER, "lora": {"alpha": 3.0}})
    lora = fine_tuning(study.configured({"lora.rank": 32})).lora
    assert lora is not None
    assert (lora.rank, lora.alpha) == (32, 3.0)


def test_a_group_that_needs_another_key_asks_for_it_where_it_is_searched() -> None:
    found = violations(space={"early_stopping.min_gain": a_range(0, 0.1)})
    assert list(found) == ["/space/early_stopping.min_gain"]
    assert "`early_stopping.patience`" in found["/space/early_stopping.min_gain"]
    given = {**TRAINER, "early_stopping": {"patience": 2}}
    assert a_definition(space={"early_stopping.min_gain": a_range(0, 0.1)}, trainer=given)


def test_a_group_that_does_not_go_with_the_rest_of_the_trainer_is_refused() -> None:
    found = violations(space={"lora.rank": a_range(4, 64, "int")}, trainer={**TRAINER, "frozen_layers": 2})
    assert list(found) == ["/trainer"]


def test_choices_may_be_of_different_kinds_where_the_trainer_takes_both() -> None:
    study = a_definition(space={"frozen_layers": choices(0, 2, "all")})
    assert [fine_tuning(study.configured({"frozen_layers": value})).frozen_layers for value in (2, "all")] == [2, "all"]
    assert list(violations(space={"frozen_layers": choices(0, "some")})) == ["/space/frozen_layers/choices/1"]


def test_values_that_do_not_go_together_are_refused_where_the_second_is() -> None:
    space = {"problem": choices("single-label", "multi-label"), "label_smoothing": a_range(0, 0.1)}
    found = violations(space=space)
    assert list(found) == ["/space/label_smoothing/high"]
    assert "where `problem` is 'multi-label'" in found["/space/label_smoothing/high"]


MANY = {"seed": choices(*range(1, 301)), "max_length": choices(*range(4, 304)), "batch_size": choices(*range(1, 301))}


def test_of_so_many_values_that_pairs_would_take_long_a_spread_is_looked_at() -> None:
    assert a_definition(space=MANY)
    space = {**MANY, "problem": choices("single-label", "multi-label"), "label_smoothing": a_range(0, 0.1)}
    assert list(violations(space=space)) == ["/space/label_smoothing/high"]


def test_what_the_trainer_says_of_a_searched_key_is_held_against_no_other() -> None:
    trainer = {**TRAINER, "data": {"train": "dataset://a/b.csv", "validation_fraction": 0.6}}
    space = {"data.validation_fraction": a_range(0.1, 0.2), "data.test_fraction": a_range(0.1, 0.5)}
    assert a_definition(trainer=trainer, space=space)
    found = violations(trainer=trainer, space={**space, "data.validation_fraction": a_range(0.1, 0.7)})
    assert list(found) == ["/space/data.test_fraction/high"]


@pytest.mark.parametrize(
    ("name", "parameter", "trainer"),
    [
        ("max_steps", a_range(10, 100, "int"), {"report_every": 5}),
        ("report_every", choices(5, 10), {"max_steps": 50}),
        ("report_every", choices("epoch"), {}),
    ],
)
def test_all_trials_report_alike(name: str, parameter: dict[str, Any], trainer: dict[str, Any]) -> None:
    assert list(violations(space={name: parameter}, trainer={**TRAINER, **trainer})) == [f"/space/{name}"]


def test_epochs_beside_a_length_in_steps_are_refused() -> None:
    trainer = {**TRAINER, "max_steps": 50, "report_every": 5}
    found = violations(space={"epochs": a_range(1, 3, "int")}, trainer=trainer)
    assert "max_steps" in found["/space/epochs"]


@pytest.mark.parametrize("name", ["kind", "kind.x"])
def test_the_kind_of_trainer_cannot_vary(name: str) -> None:
    assert list(violations(space={name: choices("text-classification")})) == [f"/space/{name}"]


def test_whole_data_cannot_vary_only_what_is_in_it() -> None:
    assert list(violations(space={"data": choices("dataset://a/b.csv")})) == ["/space/data/choices/0"]


def test_every_parameter_that_does_not_fit_is_named() -> None:
    space = {
        "dropout": a_range(0, 2),
        "wings": a_range(0, 1),
        "learning_rate": a_range(1e-5, 1e-3),
        "epochs": a_range(0, 9, "int"),
    }
    assert list(violations(space=space)) == ["/space/dropout/high", "/space/wings", "/space/epochs/low"]


def test_a_range_that_makes_no_sense_is_refused_as_a_whole() -> None:
    assert list(violations(space={"dropout": a_range(0.5, 0.1)})) == ["/space/dropout"]


@pytest.mark.parametrize("trainer", [WITHOUT_DATA, {**WITHOUT_DATA, "data": {}}])
def test_what_is_searched_need_not_stand_in_the_trainer(trainer: dict[str, Any]) -> None:
    study = a_definition(trainer=trainer, space={"data.train": choices("dataset://a/1.csv", "dataset://a/2.csv")})
    assert fine_tuning(study.trainer).data.train == "dataset://a/1.csv"
    assert fine_tuning(study.configured({"data.train": "dataset://a/2.csv"})).data.train == "dataset://a/2.csv"


def test_what_stands_in_the_trainer_is_not_replaced_by_what_is_searched() -> None:
    study = a_definition(space={"epochs": a_range(1, 9, "int")})
    assert study.max_reports == TRAINER["epochs"]


def test_a_trial_is_configured_with_its_parameters_and_the_rest_of_the_trainer() -> None:
    space = {"batch_size": choices(8, 16), "data.text": choices("text", "title"), "dropout": a_range(0, 0.5)}
    study = a_definition(space=space, trainer={**TRAINER, "seed": 7})
    config = study.configured({"batch_size": 16, "data.text": "title", "dropout": 0.1 + 0.2})
    assert isinstance(config, TextClassificationConfig)
    assert (config.batch_size, config.data.text, config.dropout) == (16, "title", 0.1 + 0.2)
    assert (config.seed, config.data.train, config.epochs) == (7, "dataset://intents/train.csv", 3)
    assert study.configured({}) == study.trainer
    assert study.trainer.model_dump()["data"]["text"] == "text"


def test_the_reports_of_a_trial_are_its_epochs() -> None:
    study = a_definition(space={"epochs": a_range(1, 9, "int")})
    assert (study.reports_of({"epochs": 9}), study.reports_of({})) == (9, 3)


@pytest.mark.parametrize(("max_steps", "report_every", "reports"), [(100, 10, 10), (101, 10, 11), (5, 10, 1)])
def test_the_reports_of_a_trial_whose_length_is_in_steps_are_counted_in_those(
    max_steps: int, report_every: int, reports: int
) -> None:
    study = a_definition(trainer={**TRAINER, "max_steps": max_steps, "report_every": report_every})
    assert (study.max_reports, study.reports_of({"learning_rate": 1e-3})) == (reports, reports)


@pytest.mark.parametrize("space", [{}, {"data.train": choices("builtin://api-docs")}])
def test_a_builtin_data_set_brings_its_own_splits(space: dict[str, Any]) -> None:
    changes = (
        {"space": space, "trainer": WITHOUT_DATA} if space else {"trainer": {**TRAINER, "data": {"train": "builtin://api-docs"}}}
    )
    data = fine_tuning(a_definition(**changes).trainer).data
    assert (data.train, data.validation, data.test) == tuple(
        f"builtin://api-docs/{split}" for split in ("train", "validation", "test")
    )


def test_a_split_that_is_given_goes_before_the_builtin_one() -> None:
    data = {"train": "builtin://api-docs", "validation": "dataset://a/b.csv", "test": None}
    read = fine_tuning(a_definition(trainer={**TRAINER, "data": data}).trainer).data
    assert (read.validation, read.test) == ("dataset://a/b.csv", "builtin://api-docs/test")


def test_a_searched_data_set_brings_its_own_splits_and_not_those_of_the_one_it_replaces() -> None:
    space = {"data.train": choices("builtin://api-docs", "builtin://digits", "dataset://a/b.csv")}
    study = a_definition(space=space, trainer=WITHOUT_DATA)
    found = [fine_tuning(study.configured({"data.train": train})).data for train in ("builtin://digits", "dataset://a/b.csv")]
    assert [(data.train, data.validation, data.test) for data in found] == [
        ("builtin://digits/train", "builtin://digits/validation", "builtin://digits/test"),
        ("dataset://a/b.csv", None, None),
    ]


@pytest.mark.parametrize("train", ["builtin://api-docs/train", "dataset://a/b.csv"])
def test_one_split_alone_brings_no_others(train: str) -> None:
    data = fine_tuning(a_definition(trainer={**TRAINER, "data": {"train": train}}).trainer).data
    assert (data.train, data.validation, data.test) == (train, None, None)


@pytest.mark.parametrize("metric", ["accuracy", "validation/Accuracy", "", "test/accuracy"])
def test_an_objective_that_the_trainer_does_not_report_is_refused_with_those_it_reports(metric: str) -> None:
    found = violations(objective={"metric": metric, "direction": "maximize"})
    assert "`validation/accuracy`" in found["/objective/metric"]


ANSWERS = {"kind": "seq2seq", "model": "t5", "data": {"train": "dataset://a/b.csv"}}


@pytest.mark.parametrize(
    ("trainer", "metric", "fits"),
    [
        ({**TRAINER, "problem": "regression"}, "validation/rmse", True),
        ({**TRAINER, "problem": "regression"}, "validation/accuracy", False),
        ({**TRAINER, "problem": "multi-label"}, "validation/f1_micro", True),
        (TRAINER, "validation/f1_micro", False),
        ({**ANSWERS, "generated_rows": 9}, "validation/rouge_l", True),
        (ANSWERS, "validation/rouge_l", False),
        (ANSWERS, "validation/perplexity", True),
    ],
)
def test_what_an_objective_may_be_depends_on_the_configuration(trainer: dict[str, Any], metric: str, *, fits: bool) -> None:
    changes = {"trainer": trainer, "objective": {"metric": metric, "direction": "maximize"}}
    if fits:
        assert a_definition(**changes).objective.metric == metric
    else:
        assert list(violations(**changes)) == ["/objective/metric"]


@pytest.mark.parametrize(
    ("trainer", "metric", "space", "place"),
    [
        (TRAINER, "validation/accuracy", {"problem": choices("single-label", "regression")}, "/space/problem/choices/1"),
        ({**ANSWERS, "generated_rows": 9}, "validation/rouge_l", {"generated_rows": a_range(0, 9, "int")},
         "/space/generated_rows/low"),
    ],
)  # fmt: skip
def test_a_value_with_which_the_objective_is_not_reported_is_refused(
    trainer: dict[str, Any], metric: str, space: dict[str, Any], place: str
) -> None:
    found = violations(trainer=trainer, space=space, objective={"metric": metric, "direction": "maximize"})
    assert list(found) == [place]
    assert metric in found[place]


@given(one=st.floats(allow_nan=False), other=st.floats(allow_nan=False), is_max=st.booleans())
def test_an_objective_orders_values(one: float, other: float, *, is_max: bool) -> None:
    objective = Objective(metric=LOSS, direction="maximize" if is_max else "minimize")
    assert objective.better(one, other) == ((one > other) if is_max else (one < other))
    assert objective.better(one, other) == (objective.sort_key(one) < objective.sort_key(other))
    assert objective.reaches(one, other) != objective.better(other, one)


@pytest.mark.parametrize("strategy", ["random", "bayesian"])
@pytest.mark.parametrize("budget", [{}, {"target": 0.9}])
def test_a_strategy_without_an_end_needs_a_budget(strategy: str, budget: dict[str, Any]) -> None:
    assert list(violations(strategy={"kind": strategy}, budget=budget)) == ["/budget"]


@pytest.mark.parametrize("budget", [{"trials": 1}, {"epochs": 50}, {"wall_clock": "1h"}, {"gpu_hours": 0.5}])
@pytest.mark.parametrize("strategy", [{"kind": "random"}, {"kind": "bayesian"}, {"kind": "hyperband", "mode": "async"}])
def test_any_limit_is_an_end(strategy: Any, budget: Any) -> None:
    assert a_definition(strategy=strategy, budget=budget, resources={"gpus_per_trial": 1}).is_bounded


def test_hours_of_gpu_are_no_end_of_a_study_that_uses_none() -> None:
    assert list(violations(strategy={"kind": "random"}, budget={"gpu_hours": 0.5})) == ["/budget"]


@pytest.mark.parametrize("strategy", [{"kind": "hyperband"}, {"kind": "grid"}])
def test_a_strategy_that_ends_by_itself_needs_no_budget(strategy: dict[str, Any]) -> None:
    assert not a_definition(strategy=strategy, budget={}, space={"batch_size": choices(8, 16)}).budget.is_bounded


def test_a_grid_needs_values_for_every_parameter() -> None:
    space = {"dropout": a_range(0, 0.5), "batch_size": choices(8), "learning_rate": a_range(1e-5, 1e-3)}
    assert list(violations(strategy={"kind": "grid"}, space=space)) == ["/space/dropout", "/space/learning_rate"]


@pytest.mark.parametrize(("trials", "fits"), [(5, False), (6, True), (None, True)])
def test_a_grid_fits_its_budget(trials: int | None, *, fits: bool) -> None:
    changes: dict[str, Any] = {
        "strategy": {"kind": "grid"},
        "space": {"batch_size": choices(8, 16), "dropout": a_range(0, 0.5, grid=[0, 0.1, 0.2])},
        "budget": {} if trials is None else {"trials": trials},
    }
    if fits:
        assert a_definition(**changes).budget.trials == trials
    else:
        assert "6" in violations(**changes)["/budget/trials"]


@pytest.mark.parametrize("high", [MAX_GRID, 2**31 - 1])
def test_a_grid_that_is_too_large_is_refused(high: int) -> None:
    found = violations(strategy={"kind": "grid"}, space={"seed": a_range(0, high, "int")}, budget={})
    assert str(high + 1) in found["/space"]


def test_the_largest_grid_is_let_through() -> None:
    assert a_definition(strategy={"kind": "grid"}, space={"seed": a_range(1, MAX_GRID, "int")}, budget={})


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_hyperband_decides_the_epochs_itself(mode: str) -> None:
    found = violations(strategy={"kind": "hyperband", "mode": mode}, space={"epochs": a_range(1, 9, "int")})
    assert list(found) == ["/space/epochs"]


@pytest.mark.parametrize(("min_epochs", "fits"), [(1, True), (3, True), (4, False)])
def test_hyperbands_lowest_rung_is_not_above_the_trainers_epochs(min_epochs: int, *, fits: bool) -> None:
    strategy = {"kind": "hyperband", "min_epochs": min_epochs}
    if fits:
        assert a_definition(strategy=strategy)
    else:
        assert "3" in violations(strategy=strategy)["/strategy/min_epochs"]


def test_hyperbands_lowest_rung_counts_reports_where_the_length_is_in_steps() -> None:
    trainer = {**TRAINER, "max_steps": 90, "report_every": 10}
    assert a_definition(strategy={"kind": "hyperband", "min_epochs": 9}, trainer=trainer)
    found = violations(strategy={"kind": "hyperband", "min_epochs": 10}, trainer=trainer)
    assert "9 reports" in found["/strategy/min_epochs"]


def test_asynchronous_hyperband_never_ends_without_a_budget() -> None:
    assert list(violations(strategy={"kind": "hyperband", "mode": "async"}, budget={"target": 0.9})) == ["/budget"]


def test_all_that_does_not_fit_is_said_at_once() -> None:
    found = violations(
        strategy={"kind": "hyperband", "mode": "async", "min_epochs": 4},
        space={"epochs": a_range(1, 9, "int"), "dropout": a_range(0, 1)},
        objective={"metric": "accuracy", "direction": "maximize"},
        budget={},
    )
    assert list(found) == ["/space/dropout/high", "/objective/metric", "/space/epochs", "/strategy/min_epochs", "/budget"]
