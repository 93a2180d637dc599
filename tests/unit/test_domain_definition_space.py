"""A definition's space: groups, conditions and constraints, each refused where the client wrote it."""

from random import Random
from typing import Any

import pytest

from search_spaces import ConstantParameter, NoConfiguration
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition, Violation
from service.domain.grouped import said_of
from tests.builders import a_definition, a_document, fine_tuning

TRAINER = a_document()["trainer"]


def violations(**changes: Any) -> dict[str, str]:
    """What is said about each place in the document."""
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(a_document(**changes))
    found = {violation.pointer: violation.detail for violation in refused.value.violations}
    assert len(found) == len(refused.value.violations)
    return found


def choices(*values: Any, **changes: Any) -> dict[str, Any]:
    return {"kind": "categorical", "choices": list(values), **changes}


def a_range(low: float, high: float, kind: str = "int", **changes: Any) -> dict[str, Any]:
    return {"kind": kind, "low": low, "high": high, **changes}


OPTIMIZER = choices("adamw", "sgd", "adafactor")
GROUPED = {"lora": {"rank": a_range(4, 64, log=True), "alpha": a_range(1.0, 64.0, "float")}}


def test_a_group_is_kept_with_dots() -> None:
    study = a_definition(space={**GROUPED, "dropout": a_range(0, 0.5, "float")})
    assert list(study.space) == ["lora.rank", "lora.alpha", "dropout"]
    assert study == a_definition(
        space={
            "lora.rank": GROUPED["lora"]["rank"],
            "lora.alpha": GROUPED["lora"]["alpha"],
            "dropout": study.space["dropout"].model_dump(),
        }
    )
    assert parse_definition(study.model_dump(mode="json")) == study


def test_a_condition_of_a_group_is_one_of_everything_in_it() -> None:
    lora = {
        "when": {"optimizer": ["adamw", "sgd"]},
        "rank": a_range(4, 8),
        "alpha": a_range(1, 2, "float", when={"optimizer": "sgd"}),
        "dropout": a_range(0, 0.5, "float", when={"lora.rank": 8}),
    }
    study = a_definition(space={"lora": lora, "optimizer": OPTIMIZER})
    assert [study.space[f"lora.{name}"].when for name in ("rank", "alpha", "dropout")] == [
        {"optimizer": ["adamw", "sgd"]},
        {"optimizer": ["sgd"]},
        {"optimizer": ["adamw", "sgd"], "lora.rank": 8},
    ]


@pytest.mark.parametrize(
    ("space", "place", "said"),
    [
        ({"lora": {"rank": a_range(4, 2)}}, "/space/lora/rank", "swap"),
        ({"lora": {"rank": a_range(0, 2)}}, "/space/lora/rank/low", "greater than or equal to 1"),
        ({"lora": {"rank": a_range(1, 2000)}}, "/space/lora/rank/high", "cannot be 2000"),
        ({"lora": {"rank": {"kind": "int", "low": 4}}}, "/space/lora/rank/high", "required"),
        ({"lora": {"rank": {"low": 4, "high": 8}}}, "/space/lora/rank/kind", "required"),
        ({"lora": {"rank": a_range(4, 8), "alpha": 3}}, "/space/lora/alpha", "has to be an object"),
        ({"lora": {"wings": a_range(4, 8)}}, "/space/lora/wings", "no parameter `lora.wings`"),
        ({"lora": {"rank": a_range(4, 8)}, "lora.rank": a_range(4, 8)}, "/space/lora.rank", "twice"),
        ({"lora": {"a/b": a_range(4, 2)}}, "/space/lora/a~1b", "swap"),
        ({"lora": {"when": 3, "rank": a_range(4, 8)}}, "/space/lora/when", "no mapping"),
        ({"lora": {"when": {"optimizer": "adam"}, "rank": a_range(4, 8)}, "optimizer": OPTIMIZER},
         "/space/lora/when/optimizer", "never 'adam'"),
        ({"lora": {"when": {"optimizer": "sgd"}, "rank": a_range(4, 8, when={"optimizer": "adamw"})}, "optimizer": OPTIMIZER},
         "/space/lora/rank/when/optimizer", "leaves no value"),
        ({"lora": {"rank": a_range(4, 8, when={"seed": 1})}}, "/space/lora/rank/when/seed", "no parameter `seed`"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_group_is_refused_where_it_was_written(space: dict[str, Any], place: str, said: str) -> None:
    found = violations(space=space)
    assert list(found) == [place]
    assert said in found[place]


def test_groups_that_are_nested_without_an_end_are_refused() -> None:
    space: dict[str, Any] = a_range(1, 2)
    for _ in range(40):
        space = {"a": space}
    (place,) = violations(space=space)
    assert place.startswith("/space/a/a")


def test_what_others_refuse_later_is_said_of_the_document_as_it_was_sent() -> None:
    document = a_document(space={"data": {"text": choices("text", "title")}})
    with pytest.raises(InvalidDefinition) as refused, said_of(document):
        raise InvalidDefinition([Violation("/space/data.text/choices/1", "no such column"), Violation("/trainer/data", "no")])
    assert [violation.pointer for violation in refused.value.violations] == ["/space/data/text/choices/1", "/trainer/data"]


def test_a_group_changes_a_preset_parameter_by_parameter() -> None:
    document = a_document(
        trainer={key: value for key, value in TRAINER.items() if key != "epochs"},
        space={"preset": "text-classification/lora", "lora": {"rank": a_range(4, 8), "alpha": None}},
    )
    preset = parse_definition({**document, "space": {"preset": "text-classification/lora"}})
    document["space"]["lora"] = {key: value for key, value in document["space"]["lora"].items() if f"lora.{key}" in preset.space}
    study = parse_definition(document)
    assert "lora.alpha" not in study.space
    assert study.space["lora.rank"].model_dump()["high"] == 8
    assert set(study.space) == set(preset.space) - {"lora.alpha"}


def test_a_trial_without_a_parameter_has_what_the_trainer_says() -> None:
    space = {"optimizer": OPTIMIZER, "momentum": a_range(0, 0.5, "float", when={"optimizer": "sgd"}),
             "lora": {"when": {"optimizer": "adamw"}, "rank": a_range(4, 8)}}  # fmt: skip
    study = a_definition(space=space, trainer={**TRAINER, "momentum": 0.8})
    with_lora = fine_tuning(study.configured({"optimizer": "adamw", "lora.rank": 4}))
    without = fine_tuning(study.configured({"optimizer": "sgd", "momentum": 0.2}))
    assert with_lora.lora is not None
    assert (with_lora.lora.rank, with_lora.lora.alpha, with_lora.momentum) == (4, 16.0, 0.8)
    assert (without.lora, without.momentum) == (None, 0.2)


def test_what_a_trainer_needs_must_stand_in_it_where_it_is_not_always_searched() -> None:
    trainer = {key: value for key, value in TRAINER.items() if key != "model"}
    space = {"optimizer": OPTIMIZER, "model": choices("a", "b", when={"optimizer": "sgd"})}
    assert "required" in violations(space=space, trainer=trainer)["/trainer/model"]


def test_values_that_no_trial_has_together_are_not_refused() -> None:
    problem = choices("single-label", "multi-label")
    apart = {"problem": problem, "label_smoothing": a_range(0, 0.1, "float", when={"problem": "single-label"})}
    assert a_definition(space=apart)
    always = {
        "problem": problem,
        "label_smoothing": a_range(0, 0.1, "float", when={"problem": ["single-label", "multi-label"]}),
    }
    assert list(violations(space=always)) == ["/space/label_smoothing/high"]
    limited = {"problem": problem, "label_smoothing": a_range(0, 0.1, "float")}
    assert a_definition(space=limited, constraints=["problem == 'single-label' or label_smoothing == 0"])


def test_parameters_of_which_a_trial_has_but_one_need_not_go_together() -> None:
    space = {
        "seed": choices(1, 2),
        "lora": {"when": {"seed": 1}, "rank": a_range(4, 8)},
        "frozen_layers": a_range(1, 3, when={"seed": 2}),
    }
    assert a_definition(space=space)
    together = {**space, "frozen_layers": a_range(1, 3, when={"seed": [1, 2]})}
    assert list(violations(space=together)) == ["/space/frozen_layers/low"]


def test_a_value_may_be_any_json_that_the_trainer_takes() -> None:
    space = {
        "lora.target_modules": choices("auto", ["query"], ["query", "value"]),
        "optimizer": {"kind": "constant", "value": "sgd"},
    }
    study = a_definition(space=space)
    lora = fine_tuning(study.configured({"lora.target_modules": ["query", "value"], "optimizer": "sgd"})).lora
    assert lora is not None
    assert lora.target_modules == ("query", "value")
    assert isinstance(study.space["optimizer"], ConstantParameter)
    assert list(violations(space={"lora.target_modules": choices("auto", [3])})) == ["/space/lora.target_modules/choices/1"]
    assert list(violations(space={"optimizer": {"kind": "constant", "value": "sdg"}})) == ["/space/optimizer/value"]


LENGTHS = {"batch_size": choices(8, 16, 32), "max_length": choices(64, 128)}


def test_a_constraint_takes_names_of_the_space_and_of_the_trainer() -> None:
    study = a_definition(
        space=LENGTHS,
        trainer={**TRAINER, "lora": {"rank": 8}},
        constraints=["batch_size * max_length <= 2048", "lora.rank <= batch_size"],
    )
    found = {(one["batch_size"], one["max_length"]) for one in study.search_space.grid()}
    assert found == {(8, 64), (8, 128), (16, 64), (16, 128), (32, 64)}
    assert StudyDefinition.model_validate_json(study.model_dump_json()).search_space == study.search_space


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("batch_size <", "cannot be read"),
        ("batch_size", None),
        ("batch_size + 1", "no condition"),
        (
            "wings <= batch_size",
            "`wings`, which is neither in the space nor a key of trainer `text-classification`: there are `batch_size`",
        ),
        ("__import__('os') == batch_size", "not part of the language"),
        ("batch_size.__class__ == 1", "`batch_size.__class__`"),
        ("lora.rank < batch_size", "has no value"),
        ("epochs <= 3", "no parameter of the space"),
        ("1 < 2", "no parameter of the space"),
        ("", "at least 1"),
        ("batch_size > 0 or " * 40 + "batch_size > 0", "at most 500"),
        (3, "valid string"),
    ],
)
def test_a_constraint_that_says_nothing_is_refused_where_it_is(constraint: Any, said: str | None) -> None:
    found = violations(space=LENGTHS, constraints=["batch_size <= 32", constraint])
    assert list(found) == ["/constraints/1" if said else "/constraints"]
    assert said is None or said in found["/constraints/1"]


def test_constraints_that_no_draw_meets_are_refused() -> None:
    found = violations(space=LENGTHS, constraints=["batch_size > max_length"])
    assert "10000 draws" in found["/constraints"]
    assert "`batch_size > max_length` fails most often" in found["/constraints"]
    assert "at most 20" in violations(space=LENGTHS, constraints=["batch_size > 0"] * 21)["/constraints"]


def test_a_space_that_can_be_counted_is_not_refused_as_draws_miss_what_meets_its_constraints() -> None:
    space = {"batch_size": a_range(1, 300), "max_length": a_range(8, 300)}
    only = a_definition(space=space, constraints=["batch_size == 7", "max_length == 91"])
    assert only.search_space.size() == 1
    with pytest.raises(NoConfiguration):
        only.search_space.draw(Random(0))  # noqa: S311 - a search, not a secret


def test_all_that_is_wrong_with_space_and_constraints_is_said_at_once() -> None:
    found = violations(
        space={**LENGTHS, "dropout": a_range(0, 2, "float")},
        constraints=["wings > 1"],
        objective={"metric": "x", "direction": "maximize"},
    )
    assert list(found) == ["/space/dropout/high", "/constraints/0", "/objective/metric"]


@pytest.mark.parametrize(("sample", "trials", "fits"), [(False, 5, False), (True, 5, True), (False, 6, True)])
def test_a_grid_above_the_budget_is_sampled_where_the_strategy_says_so(trials: int, *, sample: bool, fits: bool) -> None:
    changes: dict[str, Any] = {"space": LENGTHS, "strategy": {"kind": "grid", "sample": sample}, "budget": {"trials": trials}}
    if fits:
        assert a_definition(**changes)
    else:
        assert "`sample`" in violations(**changes)["/budget/trials"]


def test_a_grid_has_steps_and_no_more_than_its_constraints_leave() -> None:
    space = {"dropout": a_range(0, 0.5, "float", step=0.25), "batch_size": choices(8, 16, ordered=True)}
    study = a_definition(space=space, strategy={"kind": "grid"}, constraints=["dropout > 0 or batch_size == 8"], budget={})
    assert study.search_space.grid_size() == 5
    found = violations(
        space={"dropout": a_range(0, 0.5, "float", grid=[0.1])}, strategy={"kind": "grid"}, constraints=["dropout > 0.2"]
    )
    assert "no configuration of the grid" in found["/constraints"]


def test_a_copy_with_another_space_searches_that() -> None:
    study = a_definition(space=LENGTHS)
    assert study.search_space.names == ("batch_size", "max_length")
    assert study.model_copy(update={"space": a_definition().space}).search_space.names == ("learning_rate",)
