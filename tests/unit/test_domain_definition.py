"""Study definitions: strict, and every refusal points at what is wrong in the document as it was sent."""

import copy
import json
import math
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.pointers import pointer
from tests.builders import a_definition, a_document
from trainers.configs import CONFIGS, TrainingConfig

TRAINER = a_document()["trainer"]
KINDS = {
    "hyperband": {"kind": "hyperband", "mode": "async", "min_epochs": 2, "sampler": {"kind": "tpe", "startup_trials": 5}},
    "bayesian": {"kind": "bayesian", "sampler": {"kind": "gp"}},
    "random": {"kind": "random"},
    "grid": {"kind": "grid"},
}
FINITE = {
    "batch_size": {"kind": "categorical", "choices": [8, 16]},
    "dropout": {"kind": "float", "low": 0, "high": 0.5, "grid": [0, 0.5]},
}


def violations(document: Any) -> dict[str, str]:
    """What is said about each place in the document."""
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(document)
    found = {violation.pointer: violation.detail for violation in refused.value.violations}
    assert len(found) == len(refused.value.violations)
    assert all(found.values())
    return found


def resolve(document: Any, place: str) -> Any:
    """What an RFC 6901 pointer points at; raises LookupError or TypeError where there is nothing."""
    for part in place.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        document = document[int(key) if isinstance(document, list) else key]
    return document


def changed(place: str, value: Any) -> dict[str, Any]:
    """The document with another value at this pointer."""
    document = copy.deepcopy(a_document(strategy=KINDS["hyperband"], checkpoints={"keep": 3}, resources={}))
    parent, _, last = place.rpartition("/")
    resolve(document, parent)[last] = value
    return document


def test_the_smallest_document_has_defaults_for_the_rest() -> None:
    study = a_definition()
    assert (study.seed, study.checkpoints.keep, study.resources.max_concurrent_trials, study.resources.gpus_per_trial) == (
        0,
        5,
        1,
        0,
    )
    assert (study.max_reports, study.budget.trials) == (3, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_survives_being_written_and_read(kind: str) -> None:
    study = a_definition(strategy=KINDS[kind], space=FINITE, budget={"wall_clock": "1h", "trials": 9}, seed=7)
    assert StudyDefinition.model_validate_json(study.model_dump_json()) == study
    assert parse_definition(json.loads(study.model_dump_json())) == study
    assert parse_definition(study.model_dump(mode="json")) == study


def test_the_document_that_was_sent_is_not_changed() -> None:
    document = a_document(space={"batch_size": {"kind": "int", "low": 8, "high": 16}})
    before = copy.deepcopy(document)
    parse_definition(document)
    assert document == before


@pytest.mark.parametrize(
    "place",
    [
        "/extra", "/trainer/extra", "/trainer/data/extra", "/space/learning_rate/extra", "/objective/extra", "/strategy/extra",
        "/strategy/sampler/extra", "/budget/extra", "/resources/extra", "/checkpoints/extra", "/strategy/hyperband",
        "/strategy/sampler/tpe", "/space/learning_rate/float", "/trainer/text-classification",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, 1, {"kind": "float"}])
def test_an_unknown_key_is_refused_wherever_it_is(place: str, value: Any) -> None:
    found = violations(changed(place, value))
    assert list(found) == [place]
    assert "not a key" in found[place]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("/name", 5), ("/name", ""), ("/name", "a" * 101), ("/name", "-a"), ("/name", "a/b"), ("/name", "ä"), ("/name", "a\n"),
        ("/seed", 1.0), ("/seed", "1"), ("/seed", True), ("/seed", -1), ("/seed", 2**31), ("/seed", 10**400), ("/trainer", []),
        ("/trainer/epochs", "3"), ("/trainer/epochs", 3.0), ("/trainer/epochs", True), ("/trainer/epochs", 0),
        ("/trainer/model", ""), ("/trainer/model", None), ("/trainer/kind", "juggling"), ("/trainer/kind", ["x"]),
        ("/trainer/data", "dataset://a/b.csv"), ("/trainer/data/train", 5), ("/trainer/data/validation_fraction", 1),
        ("/space", {}), ("/space", []), ("/space/learning_rate", 3), ("/space/learning_rate", None),
        ("/space/learning_rate/low", "1e-5"), ("/space/learning_rate/high", 10**400), ("/space/learning_rate/log", "yes"),
        ("/space/learning_rate/kind", "normal"), ("/objective", None), ("/objective/direction", "max"),
        ("/objective/metric", 5), ("/strategy", "random"), ("/strategy/kind", "annealing"), ("/strategy/kind", ["random"]),
        ("/strategy/sampler/kind", "gp"), ("/strategy/sampler/startup_trials", 0), ("/strategy/reduction_factor", 1),
        ("/strategy/mode", "maybe"), ("/budget", 4), ("/budget/trials", "4"), ("/budget/wall_clock", "2 hours"),
        ("/resources/cpus_per_trial", True), ("/resources/gpus_per_trial", 1.5), ("/resources/gpus_per_trial", 65),
        ("/resources/gpus_per_trial", "half"), ("/resources/max_concurrent_trials", 0),
        ("/checkpoints/keep", 0),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_where_it_is(place: str, value: Any) -> None:
    assert list(violations(changed(place, value))) == [place]


@pytest.mark.parametrize(
    "place",
    [
        "/name", "/trainer", "/space", "/objective", "/trainer/model", "/trainer/data", "/trainer/kind",
        "/strategy/kind", "/space/learning_rate/kind",
        "/trainer/data/train", "/space/learning_rate/low", "/objective/metric", "/objective/direction",
    ],
)  # fmt: skip
def test_a_missing_key_is_asked_for_where_it_belongs(place: str) -> None:
    document = copy.deepcopy(a_document())
    parent, _, last = place.rpartition("/")
    del resolve(document, parent)[last]
    found = violations(document)
    assert list(found) == [place]
    assert "required" in found[place]


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 2, 64.0])
def test_a_trial_holds_a_share_of_a_gpu_or_several_whole_ones(gpus: float) -> None:
    assert a_definition(resources={"gpus_per_trial": gpus}).resources.gpus_per_trial == gpus


def test_how_many_trials_share_a_gpu_may_be_left_to_be_measured() -> None:
    resources = a_definition(resources={"gpus_per_trial": "auto"}).resources
    assert (resources.gpus_per_trial, resources.gpus, resources.packed(4).gpus_per_trial) == ("auto", 1.0, 0.25)


def test_an_unknown_kind_of_trainer_is_answered_with_those_there_are() -> None:
    said = violations(changed("/trainer/kind", "juggling"))["/trainer/kind"]
    assert [kind for kind in CONFIGS if f"`{kind}`" in said] == list(CONFIGS)


@pytest.mark.parametrize("kind", [kind for kind, config in CONFIGS.items() if issubclass(config, TrainingConfig)])
def test_what_is_wrong_in_any_kind_of_trainer_is_said_without_the_name_of_its_kind(kind: str) -> None:
    trainer = {"kind": kind, "model": "tiny", "data": {"train": 5}, "lora": {"rank": 0, "wings": 2}, "epochs": "three"}
    found = violations(a_document(trainer=trainer, objective={"metric": "validation/loss", "direction": "minimize"}))
    assert set(found) == {"/trainer/data/train", "/trainer/lora/rank", "/trainer/lora/wings", "/trainer/epochs"}


def test_all_that_is_wrong_is_said_at_once() -> None:
    document = a_document(name="", seed=-1, objective={"metric": 5, "direction": "up"}, wings=2)
    assert set(violations(document)) == {"/name", "/seed", "/objective/metric", "/objective/direction", "/wings"}


@pytest.mark.parametrize("name", ["a/b", "~", "~1", "a/b~c/d", "", "/"])
def test_a_pointer_escapes_what_it_must(name: str) -> None:
    (place,) = violations(a_document(space={name: {"kind": "int", "low": "x", "high": 2}}))
    assert resolve({"space": {name: {"low": "x"}}}, place) == "x"
    assert pointer(["space", name, "low"]) == place


@pytest.mark.parametrize("name", ["float", "int", "kind", "choices"])
def test_a_parameter_may_be_called_as_a_kind(name: str) -> None:
    document = {"kind": "float", "float": 1, "low": "a", "high": 1}
    assert set(violations(a_document(space={name: document}))) == {f"/space/{name}/low", f"/space/{name}/float"}


def test_a_choice_that_the_trainer_does_not_take_is_refused_once_and_where_it_is_whatever_json_it_is() -> None:
    space = {"batch_size": {"kind": "categorical", "choices": [16, {"a": 1}, 8, [2]]}}
    assert set(violations(a_document(space=space))) == {"/space/batch_size/choices/1", "/space/batch_size/choices/3"}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["/budget/target", "/space/learning_rate/high", "/trainer/dropout", "/extra"])
def test_what_is_no_finite_number_is_refused(place: str, value: float) -> None:
    assert "JSON" in violations(changed(place, value))[""]


@pytest.mark.parametrize(
    "value",
    [date(2030, 1, 2), {1, 2}, b"bytes", object(), {(1, 2): 3}, 10**5000],
    ids=lambda value: type(value).__name__,
)
def test_what_yaml_can_hold_and_json_cannot_is_refused(value: Any) -> None:
    assert "JSON" in violations(a_document(name=value))[""]


def test_a_document_that_holds_itself_is_refused() -> None:
    document = a_document()
    document["trainer"] = {**TRAINER, "again": document}
    assert "JSON" in violations(document)[""]


@pytest.mark.parametrize("depth", [500, 100_000])
def test_a_document_that_is_nested_too_deeply_is_refused(depth: int) -> None:
    nested: list[Any] = []
    for _ in range(depth):
        nested = [nested]
    assert list(violations(a_document(name=nested))) == [""]


@pytest.mark.parametrize("document", [None, [], "text", 5, True, {}, {5: "five"}, [a_document()]])
def test_what_is_no_definition_at_all_is_refused(document: Any) -> None:
    assert violations(document)


def test_half_a_surrogate_pair_is_refused() -> None:
    assert violations(a_document(trainer={**TRAINER, "model": "\ud800"}))


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "low", "a/b", "tpe", "float"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(document: Any, here: str = "") -> Iterator[str]:
    """Pointers to all there is in a document."""
    yield here
    children = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, child in children:
        yield from places(child, here + pointer([key]))


_WHOLE = changed(
    "/space", {**a_document()["space"], **FINITE, "data.train": {"kind": "categorical", "choices": ["dataset://a/b.csv"]}}
)


@given(place=st.sampled_from(sorted(places(_WHOLE))[1:]), value=_JUNK)
def test_every_violation_points_into_the_document_or_at_what_is_missing_there(place: str, value: Any) -> None:
    document = copy.deepcopy(_WHOLE)
    parent, _, last = place.rpartition("/")
    above = resolve(document, parent)
    above[int(last) if isinstance(above, list) else last.replace("~1", "/")] = value
    try:
        parse_definition(document)
    except InvalidDefinition as refused:
        for violation in refused.violations:
            assert isinstance(resolve(document, violation.pointer.rpartition("/")[0]), dict | list)
            if "required" not in violation.detail:
                resolve(document, violation.pointer)


@pytest.mark.parametrize("priority", [0, 101, 50.5, "high"])
def test_a_priority_is_a_whole_number_from_1_to_100(priority: Any) -> None:
    assert a_definition().priority == 50
    assert {a_definition(priority=each).priority for each in (1, 100)} == {1, 100}
    with pytest.raises(InvalidDefinition) as refused:
        a_definition(priority=priority)
    assert [violation.pointer for violation in refused.value.violations] == ["/priority"]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "The document is empty, and has to be an object"),
        ([], "The document has to be an object"),
        (a_document(strategy="hyperband"), "/strategy: is 'hyperband', and has to be an object: write `{kind: hyperband}`"),
        (
            a_document(strategy={"kind": "bayesian", "sampler": "tpe"}),
            "/strategy/sampler: is 'tpe', and has to be an object: write",
        ),
        (a_document(space={"dropout": "float"}), "/space/dropout: is 'float', and has to be an object: write `{kind: float}`"),
        (a_document(budget=30), "/budget: is 30, and has to be an object of keys and values"),
        (a_document(resources=None), "/resources: has no value"),
        (a_document(name="né"), "/name: is 'né', but one has letters from a to z, digits, spaces, dots, dashes and underscores"),
        (
            a_document(space={"dropout": {"kind": "categorical", "choices": []}}),
            "/space/dropout/choices: is empty: give at least 1",
        ),
        (a_document(budgt={"trials": 1}), "/budgt: is not a key here: did you mean `budget`?"),
        (a_document(budget={"trails": 1}), "/budget/trails: is not a key here: did you mean `trials`?"),
        (a_document(wings=1), "/wings: is not a key here: check its spelling or remove it"),
        (
            a_document(space={"dropout": {"kind": "float", "low": 0.0, "high": 0.3, "logs": True}}),
            "/space/dropout/logs: is not a key here: did you mean `log`?",
        ),
        (
            a_document(trainer={**a_document()["trainer"], "epoch": 1}),
            "/trainer/epoch: is not a key here: did you mean `epochs`?",
        ),
        (
            a_document(trainer={"kind": "simulated", "metrics": {"validation/loss": "1 if a = 2 else 0"}, "values": {"a": 1}}),
            "/trainer/metrics/validation/loss: has `=` at character 8: write `==`",
        ),
        (
            a_document(trainer={"kind": "simulated", "metrics": {"loss": 1}, "values": {"a": 1}}),
            "/trainer/metrics/loss: is 'loss', but one is `train/`, `validation/`, `test/` or `model/`",
        ),
    ],
)
def test_what_is_refused_is_told_in_words_that_say_what_to_write(document: Any, said: str) -> None:
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(document)
    assert said in str(refused.value)


def test_a_place_is_told_plainly_and_pointed_at_exactly() -> None:
    with pytest.raises(InvalidDefinition, match=r"^/trainer/metrics/validation/loss: ") as refused:
        parse_definition(a_document(trainer={"kind": "simulated", "metrics": {"validation/loss": "1 +"}}))
    assert refused.value.violations[0].pointer == "/trainer/metrics/validation~1loss"


def test_every_example_of_the_schema_is_valid() -> None:
    schema = StudyDefinition.model_json_schema()
    jsonschema_rs.meta.validate(schema)
    examples = [(node, example) for node in nodes(schema) for example in node.get("examples", ())]
    assert len(examples) > 30
    for node, example in examples:
        jsonschema_rs.validate({**node, "$defs": schema["$defs"]}, example)


def test_the_schema_accepts_what_the_service_accepts() -> None:
    validator = jsonschema_rs.Draft202012Validator(StudyDefinition.model_json_schema())
    for kind in KINDS.values():
        validator.validate(a_document(strategy=kind, budget={"wall_clock": "1h30m"}))
        validator.validate(a_definition(strategy=kind, space=FINITE).model_dump(mode="json"))
    assert not validator.is_valid(a_document(strategy={"kind": "grid", "grid": 1}))


def nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every object in a schema that describes a value."""
    if isinstance(schema, dict):
        if isinstance(schema.get("examples", []), list):
            yield schema
        for key, child in schema.items():
            if key != "examples":
                yield from nodes(child)
    elif isinstance(schema, list):
        for child in schema:
            yield from nodes(child)
