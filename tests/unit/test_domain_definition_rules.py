"""What a definition's parts must say of each other: its space fits its trainer, its strategy its space, its budget both."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.definition import MAX_GRID, Objective, parse_definition
from service.domain.errors import InvalidDefinition
from tests.builders import a_definition, a_document

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
def test_a_parameter_that_the_trainer_does_not_have_is_refused_with_those_it_has(name: str) -> None:
    found = violations(space={name: choices("csv")})
    assert list(found) == [f"/space/{name}"]
    assert "`learning_rate`" in found[f"/space/{name}"]


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
    assert study.trainer.data.train == "dataset://a/1.csv"
    assert study.configured({"data.train": "dataset://a/2.csv"}).data.train == "dataset://a/2.csv"


def test_what_stands_in_the_trainer_is_not_replaced_by_what_is_searched() -> None:
    study = a_definition(space={"epochs": a_range(1, 9, "int")})
    assert study.max_reports == TRAINER["epochs"]


def test_a_trial_is_configured_with_its_parameters_and_the_rest_of_the_trainer() -> None:
    space = {"batch_size": choices(8, 16), "data.text": choices("text", "title"), "dropout": a_range(0, 0.5)}
    study = a_definition(space=space, trainer={**TRAINER, "seed": 7})
    config = study.configured({"batch_size": 16, "data.text": "title", "dropout": 0.1 + 0.2})
    assert (config.batch_size, config.data.text, config.dropout) == (16, "title", 0.1 + 0.2)
    assert (config.seed, config.data.train, config.epochs) == (7, "dataset://intents/train.csv", 3)
    assert study.trainer.data.text == "text"


def test_the_reports_of_a_trial_are_its_epochs() -> None:
    study = a_definition(space={"epochs": a_range(1, 9, "int")})
    assert (study.reports_of({"epochs": 9}), study.reports_of({})) == (9, 3)


@pytest.mark.parametrize("space", [{}, {"data.train": choices("builtin://api-docs")}])
def test_a_builtin_data_set_brings_its_own_splits(space: dict[str, Any]) -> None:
    changes = (
        {"space": space, "trainer": WITHOUT_DATA} if space else {"trainer": {**TRAINER, "data": {"train": "builtin://api-docs"}}}
    )
    data = a_definition(**changes).trainer.data
    assert (data.train, data.validation, data.test) == tuple(
        f"builtin://api-docs/{split}" for split in ("train", "validation", "test")
    )


def test_a_split_that_is_given_goes_before_the_builtin_one() -> None:
    data = {"train": "builtin://api-docs", "validation": "dataset://a/b.csv", "test": None}
    read = a_definition(trainer={**TRAINER, "data": data}).trainer.data
    assert (read.validation, read.test) == ("dataset://a/b.csv", "builtin://api-docs/test")


def test_a_searched_data_set_brings_its_own_splits_and_not_those_of_the_one_it_replaces() -> None:
    space = {"data.train": choices("builtin://api-docs", "builtin://digits", "dataset://a/b.csv")}
    study = a_definition(space=space, trainer=WITHOUT_DATA)
    found = [study.configured({"data.train": train}).data for train in ("builtin://digits", "dataset://a/b.csv")]
    assert [(data.train, data.validation, data.test) for data in found] == [
        ("builtin://digits/train", "builtin://digits/validation", "builtin://digits/test"),
        ("dataset://a/b.csv", None, None),
    ]


@pytest.mark.parametrize("train", ["builtin://api-docs/train", "dataset://a/b.csv"])
def test_one_split_alone_brings_no_others(train: str) -> None:
    data = a_definition(trainer={**TRAINER, "data": {"train": train}}).trainer.data
    assert (data.train, data.validation, data.test) == (train, None, None)


@pytest.mark.parametrize("metric", ["accuracy", "validation/Accuracy", "", "test/accuracy"])
def test_an_objective_that_the_trainer_does_not_report_is_refused_with_those_it_reports(metric: str) -> None:
    found = violations(objective={"metric": metric, "direction": "maximize"})
    assert "`validation/accuracy`" in found["/objective/metric"]


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


@pytest.mark.parametrize("budget", [{"trials": 1}, {"epochs": 5}, {"wall_clock": "1h"}, {"gpu_hours": 0.5}])
@pytest.mark.parametrize("strategy", [{"kind": "random"}, {"kind": "bayesian"}, {"kind": "hyperband", "mode": "async"}])
def test_any_limit_is_an_end(strategy: Any, budget: Any) -> None:
    assert a_definition(strategy=strategy, budget=budget).budget.is_bounded


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
