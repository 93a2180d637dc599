"""The definition of a fork."""

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces import FloatParameter
from service.domain.amending import amended
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition
from service.domain.forking import forked_document, forked_name
from service.domain.study import Study
from tests.builders import a_study, fine_tuning

RATE = {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True}
LOSS = {"metric": "validation/loss", "direction": "minimize"}


def forked(changes: dict[str, Any] | None = None, study: Study | None = None, **more: Any) -> StudyDefinition:
    return parse_definition(forked_document(study or a_study(), changes or {}, **more))


def test_a_fork_is_the_old_study_but_for_its_name_and_what_it_knows() -> None:
    old = a_study(
        initial=[{"learning_rate": 1e-3}], budget={"trials": 4, "wall_clock": "2h"}, constraints=["learning_rate < 0.005"],
        final={"top": 2}, strategy={"kind": "hyperband"},
    )  # fmt: skip
    found = forked(study=old)
    assert (found.name, found.warm_start, found.initial) == ("intents-fork", (old.id,), ())
    same = {"name": "intents", "warm_start": (), "initial": old.definition.initial}
    assert found.model_copy(update=same) == old.definition


def test_a_fork_chooses_anew_what_its_study_had_left_open() -> None:
    for strategy in ({"kind": "auto"}, {"kind": "bayesian", "sampler": {"kind": "auto"}}):
        study = a_study(strategy=strategy)
        settled = replace(study, definition=amended(study.definition, {"budget": {"trials": 90}}))
        assert settled.definition.strategy != study.definition.strategy
        assert forked(study=settled).strategy == study.definition.strategy


def test_changes_are_merged_key_by_key() -> None:
    batch_size = {"kind": "int", "low": 8, "high": 9}
    found = forked({"budget": {"trials": 50}, "trainer": {"epochs": 5}, "space": {"batch_size": batch_size}})
    assert (found.budget.trials, found.trainer.epochs) == (50, 5)
    assert set(found.space) == {"learning_rate", "batch_size"}


def test_one_bound_of_a_parameter_may_change() -> None:
    parameter = forked({"space": {"learning_rate": {"high": 1e-3}}}).space["learning_rate"]
    assert isinstance(parameter, FloatParameter)
    assert (parameter.low, parameter.high, parameter.log) == (1e-5, 1e-3, True)


def test_a_parameter_in_a_group_is_found_under_either_name() -> None:
    old = a_study(space={"learning_rate": RATE, "lora": {"rank": {"kind": "int", "low": 2, "high": 8}}})
    for changes in ({"space": {"lora": {"rank": {"high": 64}}}}, {"space": {"lora.rank": {"high": 64}}}):
        assert forked(changes, old).space["lora.rank"].model_dump()["high"] == 64
    assert "lora.rank" not in forked({"space": {"lora": {"rank": None}}}, old).space


def test_a_new_group_may_come_with_the_changes() -> None:
    assert "lora.rank" in forked({"space": {"lora": {"rank": {"kind": "int", "low": 2, "high": 8}}}}).space


def test_what_is_searched_no_longer_has_the_trainers_default_and_not_the_lowest_value() -> None:
    old = a_study(space={"learning_rate": RATE, "weight_decay": {"kind": "float", "low": 0.2, "high": 0.3}})
    assert fine_tuning(old.definition.trainer).weight_decay == 0.2, "the first value made the trainer whole"
    plain = fine_tuning(a_study().definition.trainer).weight_decay
    assert fine_tuning(forked({"space": {"weight_decay": None}}, old).trainer).weight_decay == plain
    changes = {"space": {"weight_decay": None}, "trainer": {"weight_decay": 0.2}}
    assert fine_tuning(forked(changes, old).trainer).weight_decay == 0.2, "said explicitly"


def test_what_the_trainer_itself_said_of_a_parameter_stays_when_it_is_searched_no_longer() -> None:
    trainer = {"kind": "text-classification", "model": "tiny", "data": {"train": "dataset://a/b.csv"}, "weight_decay": 0.07}
    old = a_study(trainer=trainer, space={"learning_rate": RATE, "weight_decay": {"kind": "float", "low": 0.2, "high": 0.3}})
    assert fine_tuning(forked({"space": {"weight_decay": None}}, old).trainer).weight_decay == 0.07


def test_another_objective_replaces_one_or_several_and_leaves_nothing_to_know() -> None:
    single = forked({"objective": LOSS})
    assert (single.objectives[0].metric, single.warm_start) == ("validation/loss", ())
    several = forked({"objectives": [{"metric": "validation/accuracy", "direction": "maximize"}, LOSS]})
    assert [one.metric for one in several.objectives] == ["validation/accuracy", "validation/loss"]
    assert several.warm_start == ()
    assert forked({"outcomes": ["validation/loss <= 0.5"]}).warm_start == ()


def test_a_fork_of_a_study_with_several_objectives_has_them_too() -> None:
    several = a_study(
        objective={"metric": "validation/accuracy", "direction": "maximize"},
        objectives=[{"metric": "validation/accuracy", "direction": "maximize"}, LOSS],
    )
    found = forked({"budget": {"trials": 9}}, several)
    assert found.objectives == several.definition.objectives
    assert len(forked({"objective": LOSS}, several).objectives) == 1


def test_a_space_that_is_given_takes_the_place_of_the_old_one_before_the_changes() -> None:
    narrow = FloatParameter(kind="float", low=1e-4, high=1e-3, log=True)
    found = forked({"space": {"learning_rate": {"high": 2e-3}}}, space={"learning_rate": narrow}).space["learning_rate"]
    assert isinstance(found, FloatParameter)
    assert (found.low, found.high) == (1e-4, 2e-3)


def test_what_the_changes_say_of_name_and_warm_start_holds() -> None:
    found = forked({"name": "another", "warm_start": [], "initial": [{"learning_rate": 1e-3}]})
    assert (found.name, found.warm_start, len(found.initial)) == ("another", (), 1)


_WORDS = ["name", "space", "trainer", "objective", "objectives", "outcomes", "budget", "learning_rate", "weight_decay", "lora"]
_KEYS = st.sampled_from([*_WORDS, "lora.rank", "low"])
_CHANGES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 9) | st.sampled_from(["", "a", "maximize"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(_WORDS), _CHANGES, max_size=4))
def test_whatever_is_changed_is_a_definition_or_is_refused_as_one(changes: dict[str, Any]) -> None:
    old = a_study(space={"learning_rate": RATE, "lora": {"rank": {"kind": "int", "low": 2, "high": 8}}})
    with contextlib.suppress(InvalidDefinition):
        forked(changes, old)


@pytest.mark.parametrize(
    ("name", "fork"),
    [
        ("intents", "intents-fork"),
        ("intents-fork", "intents-fork-2"),
        ("intents-fork-2", "intents-fork-3"),
        ("intents-fork-99", "intents-fork-100"),
        ("fork", "fork-fork"),
        ("n" * 100, "n" * 95 + "-fork"),
        ("n" * 95 + "-fork", "n" * 93 + "-fork-2"),
    ],
)
def test_forks_of_forks_are_counted(name: str, fork: str) -> None:
    assert forked_name(name) == fork
    assert len(fork) <= 100
