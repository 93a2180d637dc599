"""What there is to choose from, and what a study may ask of its model."""

import json
from pathlib import Path
from typing import Any

import pytest

from service.catalog.hub import Hub, HubCache
from service.catalog.model_checks import check_models, check_requirements
from service.catalog.models import INSTALLED, Models
from service.domain.base_models import Place
from service.domain.errors import ModelNotFound, UnusableModel
from tests.builders import a_definition, a_document
from tests.unit.catalog_shelf import FakeHub, a_remote_model, write_cached_model, write_model

MIT = "---\nlicense: mit\n---\nAbout it."
GPT2 = {"model_type": "gpt2", "n_layer": 3, "n_positions": 1024, "n_embd": 64, "n_head": 4, "vocab_size": 500}
T5 = {"model_type": "t5", "num_layers": 4, "n_positions": 512, "d_model": 64, "num_heads": 4}


def models_in(tmp_path: Path, hub: Hub | None = None) -> Models:
    return Models([tmp_path / "root"], HubCache(own=tmp_path / "cache" / "hub", ordinary=tmp_path / "ordinary"), hub, {})


def complaints(models: Models, requirements: dict[str, Any] | None = None, **trainer: Any) -> list[tuple[str, str]]:
    """What is said of the models of a study, and where."""
    written = {**a_document()["trainer"], "model": "tiny", **trainer}
    definition = a_definition(trainer=written, requirements=requirements or {})
    found = [*check_models(definition, models), *check_requirements(definition, models)]
    return [(violation.pointer, violation.detail) for violation in found]


def test_every_model_on_this_machine_is_listed_once_with_its_place_and_card(tmp_path: Path) -> None:
    (write_model(tmp_path / "root" / "tiny") / "README.md").write_text(MIT)
    write_model(tmp_path / "root" / "owner" / "decoder", **GPT2)
    write_model(tmp_path / "root" / "no" / "trainer", model_type="mamba")
    write_cached_model(tmp_path / "ordinary", "a/model")
    write_cached_model(tmp_path / "cache" / "hub", "a/model")
    (write_cached_model(tmp_path / "cache" / "hub", "half/model") / "model.safetensors").unlink()
    found = {model.name: model for model in models_in(tmp_path).here()}
    assert {name: model.place for name, model in found.items() if model.place is not Place.BUILTIN} == {
        "a/model": Place.CACHE, "owner/decoder": Place.FOLDER, "tiny": Place.FOLDER,
    }  # fmt: skip
    assert found["tiny"].card is not None
    assert found["tiny"].card.licence == "mit"
    assert found["a/model"].card is None
    assert found["owner/decoder"].header.kinds == {"causal-lm"}


def test_an_installed_package_is_listed(tmp_path: Path) -> None:
    models = Models([], HubCache(own=tmp_path / "hub", ordinary=tmp_path / "ordinary"), None, INSTALLED)
    [found] = [model for model in models.here() if model.place is Place.PACKAGE]
    assert found.card is not None
    assert (found.card.licence, "snli" in found.card.datasets) == ("apache-2.0", True)


def test_a_model_of_the_hub_is_described_without_being_downloaded(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {"a/model": a_remote_model(card=MIT)})
    found = models_in(tmp_path, hub).describe("a/model")
    assert (found.place, found.header.parameters, found.header.weights_bytes) == (Place.HUB, 1000, 4000)
    assert found.card is not None
    assert (found.card.licence, hub.downloaded) == ("mit", [])


def test_the_card_of_a_cached_model_is_read_from_the_hub_where_it_can_be(tmp_path: Path) -> None:
    write_cached_model(tmp_path / "ordinary", "a/model")
    found = models_in(tmp_path, FakeHub(tmp_path, {"a/model": a_remote_model(card=MIT)})).describe("a/model")
    assert found.card is not None
    assert (found.place, found.card.licence) == (Place.CACHE, "mit")
    assert models_in(tmp_path, FakeHub(tmp_path)).describe("a/model").card is None


def test_only_models_with_weights_on_this_machine_have_a_folder_to_try(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "root" / "tiny")
    models = models_in(tmp_path, FakeHub(tmp_path, {"a/model": a_remote_model()}))
    assert models.folder("tiny") == folder
    for name in ("a/model", "builtin://resnet-small"):
        with pytest.raises(ModelNotFound, match="not on this machine"):
            models.folder(name)


def test_a_built_in_architecture_becomes_a_folder_once(tmp_path: Path) -> None:
    models = models_in(tmp_path)
    folder = models.fetch("builtin://vit-small", weights=False)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "vit"
    assert json.loads((folder / "preprocessor_config.json").read_text())["size"] == {"height": 32, "width": 32}
    (folder / "left").touch()
    assert models.fetch("builtin://vit-small", weights=False) == folder
    assert (folder / "left").exists()


def test_a_built_in_architecture_that_is_not_there_lists_those_that_are(tmp_path: Path) -> None:
    for name in ("builtin://", "builtin://../x", "builtin://bert"):
        with pytest.raises(ModelNotFound, match="builtin://resnet-small and builtin://vit-small"):
            models_in(tmp_path).look(name, weights=False)


def test_an_architecture_without_weights_is_refused_and_told_what_it_is_for(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="set `initialisation: random`"):
        models_in(tmp_path).fetch("builtin://vit-small")


def test_training_from_random_weights_needs_none(tmp_path: Path) -> None:
    (write_model(tmp_path / "root" / "tiny") / "model.safetensors").unlink()
    models = models_in(tmp_path)
    [(pointer, detail)] = complaints(models)
    assert pointer == "/trainer/model"
    assert "`initialisation: random`" in detail
    assert complaints(models, initialisation="random") == []
    assert models.fetch("tiny", weights=False) == tmp_path / "root" / "tiny"


def test_weights_are_needed_as_soon_as_one_trial_starts_from_them(tmp_path: Path) -> None:
    (write_model(tmp_path / "root" / "tiny") / "model.safetensors").unlink()
    space = {"initialisation": {"kind": "categorical", "choices": ["random", "pretrained"]}}
    definition = a_definition(trainer={**a_document()["trainer"], "model": "tiny"}, space=space)
    assert [one.pointer for one in check_models(definition, models_in(tmp_path))] == ["/trainer/model"]


def test_text_needs_a_tokenizer_and_images_do_not(tmp_path: Path) -> None:
    for name, model_type in (("bert", "bert"), ("vit", "vit")):
        (write_model(tmp_path / "root" / name, model_type=model_type) / "tokenizer.json").unlink()
    models = models_in(tmp_path)
    assert models.look("vit").kinds == {"image-classification"}
    with pytest.raises(UnusableModel, match="no tokenizer"):
        models.look("bert", weights=False)


def test_a_model_for_other_trainers_is_refused_with_those_it_fits(tmp_path: Path) -> None:
    write_model(tmp_path / "root" / "tiny", **GPT2)
    [(pointer, detail)] = complaints(models_in(tmp_path))
    assert pointer == "/trainer/model"
    assert "`text-classification` cannot train: use the trainer `causal-lm`, or name a model of another type, such as" in detail


@pytest.mark.parametrize(
    ("config", "layers", "longest", "hidden"),
    [
        (GPT2, 3, 1024, 64),
        (T5, 4, None, 64),
        ({"model_type": "bart", "encoder_layers": 2, "num_hidden_layers": 9, "d_model": 8}, 2, None, 8),
        ({"model_type": "resnet", "depths": [1, 2, 1], "hidden_sizes": [8, 16, 32]}, 3, None, 32),
    ],
)
def test_each_family_calls_its_sizes_differently(
    tmp_path: Path, config: dict[str, Any], layers: int, longest: int | None, hidden: int
) -> None:
    write_model(tmp_path / "root" / "one", **{"num_hidden_layers": None, "max_position_embeddings": None, **config})
    header = models_in(tmp_path).look("one")
    assert (header.layers, header.longest, header.hidden_size) == (layers, longest, hidden)


@pytest.mark.parametrize("value", [-1, 0, 10**400, "many", [1], {}, None, True, 1.5])
def test_numbers_that_make_no_sense_are_not_known_or_do_no_harm(tmp_path: Path, value: Any) -> None:
    keys = ("image_size", "patch_size", "hidden_size", "num_hidden_layers", "hidden_sizes", "depths", "embed_dim", "vocab_size")
    write_model(tmp_path / "root" / "vit", **{"model_type": "vit", **dict.fromkeys(keys, value)})
    header = models_in(tmp_path).look("vit")
    assert header.image_values is None or abs(header.image_values) < 2**60


def test_a_study_without_requirements_takes_any_model(tmp_path: Path) -> None:
    write_model(tmp_path / "root" / "tiny")
    assert complaints(models_in(tmp_path)) == []


@pytest.mark.parametrize(
    ("requirements", "detail"),
    [
        ({"licences": ["apache-2.0"]}, "has the licence mit, and `requirements` ask for apache-2.0"),
        ({"most_parameters": 999}, "has 1,000 parameters, and `requirements` allow 999"),
        ({"most_megabytes": 0.003}, "has 0.004 megabytes, and `requirements` allow 0.003"),
    ],
)
def test_a_model_outside_the_requirements_is_refused(tmp_path: Path, requirements: dict[str, Any], detail: str) -> None:
    hub = FakeHub(tmp_path, {"a/model": a_remote_model(card=MIT)})
    [(pointer, said)] = complaints(models_in(tmp_path, hub), requirements, model="a/model")
    assert pointer == "/trainer/model"
    assert detail in said


def test_a_model_inside_the_requirements_is_taken(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {"a/model": a_remote_model(card=MIT)})
    requirements = {"licences": ["apache-2.0", "MIT"], "most_parameters": 1000, "most_megabytes": 0.004}
    assert complaints(models_in(tmp_path, hub), requirements, model="a/model") == []


def test_a_licence_that_nobody_knows_is_refused_where_one_is_asked_for(tmp_path: Path) -> None:
    write_model(tmp_path / "root" / "tiny")
    [(_, detail)] = complaints(models_in(tmp_path), {"licences": ["mit"]})
    assert "the licence of 'tiny' is not known" in detail
    assert "`license: ...`" in detail


def test_every_choice_of_model_is_held_to_the_requirements(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_model(tmp_path / "root" / name)
    (tmp_path / "root" / "two" / "README.md").write_text(MIT)
    space = {"model": {"kind": "categorical", "choices": ["two", "one"]}}
    definition = a_definition(space=space, requirements={"licences": ["mit"]})
    assert [one.pointer for one in check_requirements(definition, models_in(tmp_path))] == ["/space/model/choices/1"]
