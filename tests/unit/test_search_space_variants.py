"""What a study can use when its parameters exist only sometimes."""

from typing import Any

from service.catalog.variants import rows_of, values_of
from tests.builders import a_definition, a_document

TRAINER = a_document()["trainer"]


def choices(*values: Any, **changes: Any) -> dict[str, Any]:
    return {"kind": "categorical", "choices": list(values), **changes}


def test_a_model_that_is_searched_only_sometimes_leaves_the_trainers_own_for_the_other_trials() -> None:
    space = {"optimizer": choices("adamw", "sgd"), "model": choices("large", when={"optimizer": "adamw"})}
    found = [(one.value, one.pointer) for one in values_of(a_definition(space=space), "model")]
    assert found == [("large", "/space/model/choices/0"), ("tiny-encoder", "/trainer/model")]


def test_rows_are_those_that_some_trial_has() -> None:
    space = {
        "data.lowercase": choices(True, False),
        "data.text": choices("text", "title", when={"data.lowercase": True}),
    }
    study = a_definition(space=space, trainer={**TRAINER, "data": {**TRAINER["data"], "text": "body"}})
    found = [(rows.data.model_dump()["lowercase"], rows.data.model_dump()["text"]) for rows in rows_of(study)]
    assert sorted(found) == [(False, "body"), (True, "text"), (True, "title")]


def test_groups_that_no_trial_has_together_are_not_tried_together() -> None:
    space = {
        "data.lowercase": choices(True, False),
        "lora.rank": choices(4, 8, when={"data.lowercase": True}),
        "frozen_layers": choices(1, 2, when={"data.lowercase": False}),
    }
    assert len(list(rows_of(a_definition(space=space)))) == 2
