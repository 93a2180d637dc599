"""Presets: each gives a valid study, and a study's own keys come before the preset's."""

import copy
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import FloatParameter, Space, contains, grid_values
from search_spaces.presets import Preset, presets
from service.cli import run
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.errors import InvalidDefinition, NotFound, Violation
from service.domain.presets import expand_preset, preset_named
from service.search.draws import draw_unseen, random_of
from tests.builders import a_document, fine_tuning
from trainers.configs import CONFIGS

ROOT = Path(__file__).parents[2]
NAMES = list(presets())
STRATEGIES: dict[str, dict[str, Any]] = {
    "grid": {"kind": "grid"},
    "random": {"kind": "random"},
    "bayesian": {"kind": "bayesian", "sampler": {"kind": "tpe"}},
    "hyperband": {"kind": "hyperband"},
}
LEARNING_RATE = {"kind": "float", "low": 0.001, "high": 0.002, "log": False, "step": None, "grid": None, "when": None}
FULL, LORA = "text-classification/full", "text-classification/lora"


def a_trainer(name: str, **settings: Any) -> dict[str, Any]:
    return {"kind": presets()[name].task, "model": "tiny", "data": {"train": "dataset://rows/train.csv"}, **settings}


def a_document_with(
    name: str = FULL, space: Mapping[str, Any] | None = None, strategy: str = "random", **settings: Any
) -> dict[str, Any]:
    """A study that names a preset, with keys of its own in `space`, and settings of its own in `trainer`."""
    return a_document(
        trainer=a_trainer(name, **settings),
        space={"preset": name, **(space or {})},
        objective={"metric": "validation/loss", "direction": "minimize"},
        strategy=STRATEGIES[strategy],
        budget={} if strategy in {"grid", "hyperband"} else {"trials": 5},
    )


def a_definition_with(
    name: str = FULL, space: Mapping[str, Any] | None = None, strategy: str = "random", **settings: Any
) -> StudyDefinition:
    return parse_definition(a_document_with(name, space, strategy, **settings))


def violations(document: Any) -> dict[str, str]:
    """What is said about each place in the document."""
    with pytest.raises(InvalidDefinition) as refused:
        parse_definition(document)
    found = {violation.pointer: violation.detail for violation in refused.value.violations}
    assert len(found) == len(refused.value.violations)
    return found


def test_there_is_a_preset_for_each_task_and_method() -> None:
    methods = {task: {preset.method for preset in presets().values() if preset.task == task} for task in CONFIGS}
    assert methods == {
        "text-classification": {"full", "lora", "frozen"},
        "token-classification": {"full", "lora", "frozen"},
        "causal-lm": {"full", "lora"},
        "seq2seq": {"full", "lora"},
        "image-classification": {"full", "lora", "frozen", "scratch"},
        "simulated": set(),
    }
    assert sorted(NAMES) == NAMES


@pytest.mark.parametrize("task", ["causal-lm", "seq2seq"])
def test_adapters_of_models_that_write_are_at_all_linear_layers(task: str) -> None:
    lora = fine_tuning(a_definition_with(f"{task}/lora").trainer).lora
    assert lora is not None
    assert lora.target_modules == "all-linear"


def test_a_preset_is_named_as_its_file() -> None:
    files = {f"{file.parent.name}/{file.stem}" for file in (ROOT / "search_spaces/presets").glob("*/*.yaml")}
    assert files == set(NAMES)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", NAMES)
def test_a_preset_gives_a_valid_study_under_every_strategy(name: str, strategy: str) -> None:
    study = a_definition_with(name, strategy=strategy)
    assert set(study.space) == set(presets()[name].space)
    assert study.trainer.epochs == presets()[name].trainer["epochs"]


@pytest.mark.parametrize("name", NAMES)
def test_every_range_is_cited_and_nothing_else(name: str) -> None:
    preset = presets()[name]
    assert list(preset.sources) == list(preset.space)
    assert all(source.strip() for sources in preset.sources.values() for source in sources)
    assert all(preset.sources.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_searches_nothing_that_it_sets_nor_how_long_a_trial_runs(name: str) -> None:
    preset = presets()[name]
    settings = {f"{key}.{part}" for key, value in preset.trainer.items() if isinstance(value, Mapping) for part in value}
    assert not {*preset.trainer, *settings} & set(preset.space)
    assert "epochs" not in preset.space


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_of_a_preset_is_small(name: str) -> None:
    space = presets()[name].space
    floats = [parameter for parameter in space.values() if isinstance(parameter, FloatParameter)]
    assert all(1 < len(list(grid_values(parameter) or ())) <= 3 for parameter in floats)
    assert (Space(space).grid_size() or 0) <= 144


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**31 - 1), number=st.integers(0, 1000))
def test_whatever_is_drawn_from_a_preset_is_a_valid_configuration(name: str, seed: int, number: int) -> None:
    study = a_definition_with(name)
    drawn = draw_unseen(study.search_space, set(), random_of(seed, number, "draw"))
    assert drawn is not None
    configuration = study.configured(drawn).model_dump(mode="json")
    for key, value in drawn.items():
        assert contains(study.space[key], value)
        found: Any = configuration
        for part in key.split("."):
            found = found[part]
        assert found == value


@pytest.mark.parametrize("name", NAMES)
def test_a_study_is_stored_with_its_preset_written_out(name: str) -> None:
    study = a_definition_with(name, strategy="hyperband")
    stored = json.loads(study.model_dump_json())
    assert "preset" not in stored["space"]
    assert parse_definition(stored) == study
    assert StudyDefinition.model_validate_json(study.model_dump_json()) == study


def test_a_key_of_the_space_takes_the_place_of_the_presets() -> None:
    study = a_definition_with(space={"learning_rate": LEARNING_RATE})
    assert study.space["learning_rate"].model_dump() == LEARNING_RATE
    assert study.space["layer_decay"] == presets()[FULL].space["layer_decay"]


def test_a_further_key_of_the_space_is_searched_too() -> None:
    study = a_definition_with(space={"dropout": {**LEARNING_RATE, "low": 0.0, "high": 0.5}})
    assert list(study.space) == [*presets()[FULL].space, "dropout"]


def test_null_takes_a_parameter_out_and_the_trainers_own_value_holds() -> None:
    study = a_definition_with(space={"weight_decay": None})
    assert set(study.space) == set(presets()[FULL].space) - {"weight_decay"}
    assert fine_tuning(study.trainer).weight_decay == CONFIGS["text-classification"].model_fields["weight_decay"].default


def test_null_for_what_the_preset_does_not_search_is_refused_there() -> None:
    found = violations(a_document_with(space={"wait/decay": None, "dropout": None}))
    assert set(found) == {"/space/wait~1decay", "/space/dropout"}
    assert "`weight_decay`" in found["/space/dropout"]


def test_a_space_without_any_parameter_left_is_refused() -> None:
    assert set(violations(a_document_with(space=dict.fromkeys(presets()[FULL].space)))) == {"/space"}


def test_what_the_trainer_sets_wins_and_is_not_searched() -> None:
    study = a_definition_with(batch_size=64, epochs=2)
    assert "batch_size" not in study.space
    trainer = fine_tuning(study.trainer)
    assert (trainer.batch_size, trainer.epochs, trainer.warmup_fraction) == (64, 2, 0.1)


def test_what_the_trainer_sets_is_searched_where_the_space_names_it_too() -> None:
    choices = {"kind": "categorical", "choices": [4, 8], "ordered": False, "when": None}
    study = a_definition_with(space={"batch_size": choices}, batch_size=64)
    assert study.space["batch_size"].model_dump(mode="json") == choices
    assert fine_tuning(study.trainer).batch_size == 64


def test_a_group_is_merged_key_by_key() -> None:
    study = a_definition_with("causal-lm/lora", lora={"rank": 4, "alpha": 8.0})
    lora = fine_tuning(study.trainer).lora
    assert lora is not None
    assert (lora.rank, lora.alpha, lora.target_modules) == (4, 8.0, "all-linear")
    assert "lora.rank" not in study.space
    assert "lora.dropout" in study.space


def test_a_group_that_the_trainer_turns_off_is_not_searched() -> None:
    study = a_definition_with(LORA, lora=None)
    assert fine_tuning(study.trainer).lora is None
    assert set(study.space) == {"learning_rate", "batch_size"}


def test_neither_the_document_nor_the_preset_is_changed() -> None:
    document, before = a_document_with(LORA), copy.deepcopy(presets()[LORA])
    sent = copy.deepcopy(document)
    parse_definition(document)
    assert document == sent
    assert presets()[LORA] == before
    assert presets()[LORA].trainer["lora"] == {"alpha": 16.0}


@pytest.mark.parametrize(
    "name", ["text-classification/fulll", "", "full", "../x", "\ud800", 3, None, True, [], {"kind": "float"}]
)
def test_an_unknown_preset_is_refused_with_those_there_are_for_the_task(name: Any) -> None:
    found = violations({**a_document_with(), "space": {"preset": name}})
    assert set(found) == {"/space/preset"}
    assert "`text-classification/full`" in found["/space/preset"]
    assert "causal-lm" not in found["/space/preset"]


def test_a_preset_for_another_kind_of_trainer_is_refused() -> None:
    found = violations({**a_document_with(), "space": {"preset": "causal-lm/lora"}})
    assert set(found) == {"/space/preset"}
    assert "is for trainer `causal-lm`, not for `text-classification`" in found["/space/preset"]


@pytest.mark.parametrize("trainer", [[], "text", None, 5])
def test_a_trainer_that_is_none_is_refused_where_it_is(trainer: Any) -> None:
    assert set(violations({**a_document_with(), "trainer": trainer})) == {"/trainer"}


def test_a_kind_of_trainer_that_does_not_exist_is_refused_where_it_is() -> None:
    document = a_document_with()
    document["trainer"]["kind"] = "juggling"
    assert all(place.startswith("/trainer") for place in violations(document))


def test_a_missing_trainer_is_asked_for() -> None:
    document = a_document_with()
    del document["trainer"]
    assert set(violations(document)) == {"/trainer"}


def test_what_is_wrong_with_a_users_own_keys_beside_a_preset_is_said_of_those_keys() -> None:
    found = violations(a_document_with("image-classification/full", space={"learning_rate": {"kind": "float"}}, crop=1))
    assert set(found) == {"/space/learning_rate/low", "/space/learning_rate/high", "/trainer/crop"}


def test_a_users_own_grid_is_asked_for_where_the_user_left_it_out() -> None:
    found = violations(a_document_with(space={"learning_rate": LEARNING_RATE}, strategy="grid"))
    assert set(found) == {"/space/learning_rate"}


def test_a_violation_of_a_range_from_the_preset_points_to_the_preset() -> None:
    expanded = expand_preset(a_document_with(LORA, space={"learning_rate": LEARNING_RATE}, epochs=2))
    places = ["/space/lora.rank/high", "/trainer/lora/alpha", "/space/learning_rate/low", "/trainer/epochs", "/trainer", "/space"]
    refused = InvalidDefinition([Violation(place, "is wrong") for place in places])
    sent = {violation.pointer: violation.detail for violation in expanded.as_sent(refused.violations)}
    assert list(sent) == ["/space/learning_rate/low", "/trainer/epochs", "/trainer", "/space", "/space/preset"]
    assert "/space/lora.rank/high: is wrong; /trainer/lora/alpha: is wrong" in sent["/space/preset"]


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["preset", "kind", "lora", "lora.rank", "a/b", "epochs"]), inner, max_size=4)
    ),
    max_leaves=6,
)


@given(_JUNK, st.fixed_dictionaries({"space": _JUNK, "trainer": _JUNK}))
def test_garbage_is_refused_and_never_raises_anything_else(junk: Any, halves: dict[str, Any]) -> None:
    for document in (junk, halves, {**a_document_with(), **halves}, {**a_document_with(), "space": junk}):
        with pytest.raises(InvalidDefinition):
            parse_definition(document)


@given(st.sampled_from(NAMES), st.dictionaries(st.sampled_from(["lora", "epochs", "augmentation", "optimizer"]), _JUNK))
def test_garbage_in_the_trainer_beside_a_preset_points_into_the_document(name: str, junk: dict[str, Any]) -> None:
    try:
        parse_definition(a_document_with(name, **junk))
    except InvalidDefinition as refused:
        for violation in refused.violations:
            assert violation.pointer.startswith("/trainer") or violation.pointer in {"/space", "/space/preset"}


def test_a_preset_is_found_by_its_task_and_method() -> None:
    assert preset_named("seq2seq", "lora") is presets()["seq2seq/lora"]
    with pytest.raises(NotFound, match="GET /v1/presets"):
        preset_named("seq2seq", "scratch")


def test_presets_load_nothing_of_ours_but_search_spaces_and_nothing_heavy() -> None:
    code = (
        "import sys, search_spaces.presets as p; p.presets(); "
        "print([n for n in ('service', 'trainers', 'torch', 'transformers', 'numpy', 'ray') if n in sys.modules])"
    )
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_command_line_lists_presets_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["preset", "ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:] if not line.startswith(" ")] == NAMES


def test_the_command_line_shows_a_preset_with_its_sources(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["preset", "show", FULL]) == 0
    shown = capsys.readouterr()
    assert "1e-05 to 0.0003, log" in shown.out
    assert "16 or 32" in shown.out
    assert "Devlin et al. 2019" in shown.out
    assert "space: {preset: text-classification/full}" in shown.err


def test_the_command_line_shows_a_preset_to_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["preset", "show", LORA, "-o", "json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown.pop("name") == LORA
    assert Preset.model_validate_json(json.dumps(shown)) == presets()[LORA]


def test_the_command_line_says_where_to_look_for_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["preset", "show", "juggling/full"]) == 3
    assert "tuneyard preset ls" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 1])
def test_a_study_of_the_documentation_is_accepted(place: int) -> None:
    blocks = (ROOT / "docs/presets.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    study = parse_definition(yaml.safe_load(blocks[place].partition("```")[0]))
    expected = [
        {"learning_rate", "batch_size", "weight_decay", "layer_decay"},
        {"learning_rate", "lora.rank", "dropout"},
    ]
    assert set(study.space) == expected[place]
