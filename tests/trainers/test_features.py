"""What frozen layers make of the rows is computed once, and nobody can tell by the results."""

import gc
import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, DebertaV2Config

from tests.trainers.cases import CASES, Case, a_trainer
from tests.trainers.test_contract import weights
from trainers import text_classification
from trainers.configs import TrainingConfig
from trainers.features import FrozenFeatures, Inputs, frozen_features
from trainers.freezing import Freezing, layers_of
from trainers.models import LoadedModel
from trainers.prepared import Ragged


@pytest.fixture(scope="session")
def case() -> Case:
    return CASES[0]


def without(monkeypatch: pytest.MonkeyPatch, case: Case, place: Path, **changes: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(text_classification, "frozen_features", lambda *_: None)
        return a_trainer(case, place, **changes)


@pytest.mark.parametrize("frozen_layers", [1, 2, "all"])
def test_results_are_the_same_with_and_without(
    case: Case, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, frozen_layers: int | str
) -> None:
    changes: dict[str, Any] = {"frozen_layers": frozen_layers, "dropout": 0.3, "precision": "fp32"}
    plain = without(monkeypatch, case, place, **changes)
    wanted = list(plain.reports())
    ours = a_trainer(case, place, **changes)
    found = list(ours.reports())
    assert (ours.facts["frozen_features"], plain.facts["frozen_features"]) == (True, False)
    for one, other in zip(found, wanted, strict=True):
        assert one.metrics == pytest.approx(dict(other.metrics), abs=1e-5)
    for name, tensor in weights(plain).items():
        if not name.endswith("key.bias"):  # it changes no attention, so AdamW follows the rounding of a gradient that is zero
            assert torch.allclose(weights(ours)[name], tensor, atol=1e-5), name
    ours.export(tmp_path)
    assert case.measure(tmp_path, place, "validation")["loss"] == pytest.approx(found[-1].metrics["validation/loss"], abs=1e-5)
    assert ours.test(tmp_path)["test/loss"] == pytest.approx(case.measure(tmp_path, place, "test")["loss"], abs=1e-5)


def test_the_next_trial_runs_no_frozen_layer_at_all(case: Case, place: Path) -> None:
    a_trainer(case, place, frozen_layers=1)
    trainer: Any = a_trainer(case, place, frozen_layers=1, seed=3, epochs=1)
    frozen, above = calls(trainer, 0), calls(trainer, 1)
    list(trainer.reports())
    assert not frozen
    assert above


def test_what_is_kept_is_of_one_model_and_one_number_of_layers(case: Case, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns("cache"))
    cache = tmp_path / "place" / "cache"
    kept = []
    for number in (1, 2, 1):
        a_trainer(case, tmp_path / "place", frozen_layers=number)
        kept.append(len(list(cache.iterdir())))
    assert kept == [2, 3, 3], "the rows, and what each number of layers makes of them"
    model: Any = a_trainer(case, place)._model  # type: ignore[attr-defined]
    torch.nn.init.ones_(model.bert.encoder.layer[0].output.dense.bias)
    model.bert.save_pretrained(tmp_path / "place" / "tiny")
    a_trainer(case, tmp_path / "place", frozen_layers=1)
    assert len(list(cache.iterdir())) == 5, "the rows too: a tokenizer goes by the model's configuration"


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"freeze_embeddings": True},
        {"frozen_layers": 1, "unfreeze_per_epoch": 1},
        {"frozen_layers": 1, "augmentation": {"token_dropout": 0.1}},
        {"frozen_layers": 1, "augmentation": {"span_masking": 0.1}},
        {"frozen_layers": 1, "initialisation": "random"},
    ],
    ids=str,
)
def test_they_are_not_used_where_states_differ_from_epoch_to_epoch_or_trial_to_trial(
    case: Case, place: Path, changes: dict[str, Any]
) -> None:
    assert a_trainer(case, place, **changes).facts["frozen_features"] is False


@pytest.mark.parametrize(("frozen_layers", "usable"), [(1, True), (2, False), ("all", True)])
def test_a_part_that_trains_between_frozen_layers_forbids_them(
    case: Case, place: Path, tmp_path: Path, frozen_layers: int | str, *, usable: bool
) -> None:
    """DeBERTa's convolution stands beside the first layer, and trains unless everything is frozen."""
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns("cache", "*.safetensors", "config.json"))
    vocabulary = len(AutoTokenizer.from_pretrained(place / "tiny"))
    config = DebertaV2Config(
        vocab_size=vocabulary, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        conv_kernel_size=3, relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], norm_rel_ebd="layer_norm",
    )  # fmt: skip
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path / "place" / "tiny")
    trainer = a_trainer(case, tmp_path / "place", frozen_layers=frozen_layers, epochs=1)
    assert trainer.facts["frozen_features"] is usable
    (report,) = list(trainer.reports())
    (tmp_path / "export").mkdir()
    trainer.export(tmp_path / "export")
    measured = case.measure(tmp_path / "export", place, "validation")
    assert report.metrics["validation/loss"] == pytest.approx(measured["loss"], abs=1e-5)


class Network(nn.Module):
    """Embeddings, two frozen layers and one that trains, put together in one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        self.way = way
        self.embeddings = nn.Embedding(10, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    @property
    def base_model(self) -> "Network":
        return self

    def forward(self, ids: Tensor) -> Tensor:
        hidden: Tensor = self.embeddings(ids)
        embedded = hidden
        for layer in self.layers:
            match self.way:
                case "calls forward itself":
                    hidden = layer.forward(hidden)
                case "calls each layer twice":
                    hidden = layer(layer(hidden))
                case "names what it gives":
                    hidden = layer(input=hidden)
                case "divides what it gets":
                    hidden = torch.stack([layer(row) for row in hidden])
                case _:
                    hidden = layer(hidden)
        return hidden + embedded if self.way == "comes back to the embeddings" else hidden


@pytest.mark.parametrize(
    ("way", "usable"),
    [
        ("as usual", True),
        ("comes back to the embeddings", True),
        ("calls forward itself", False),
        ("calls each layer twice", False),
        ("names what it gives", False),
        ("divides what it gets", False),
    ],
)
def test_a_network_that_is_put_together_in_another_way_stays_whole(tmp_path: Path, way: str, *, usable: bool) -> None:
    torch.manual_seed(0)
    network = Network(way)
    freezing = Freezing(network, TrainingConfig(model="none", frozen_layers=2))
    rows = {"train": Ragged(np.zeros(0), np.arange(0, 27, 3)), "validation": Ragged(np.zeros(0), np.arange(0, 9, 3))}
    ids = torch.randint(10, (8, 3))
    wanted = network(ids)
    features = FrozenFeatures(network, freezing)

    def forward(some: Sequence[int]) -> Tensor:
        found: Tensor = network(ids[list(some)])
        return found

    assert features.compute(tmp_path, {}, rows, dict.fromkeys(rows, forward), 4) is usable
    if usable:
        features.use("train", range(8), torch.device("cpu"))
        nn.init.zeros_(next(network.layers[0].parameters()))  # nobody asks it any more
    assert torch.allclose(network(ids), wanted, atol=1e-6)


def test_frozen_layers_get_no_dropout_and_no_backward_pass(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = without(monkeypatch, case, place, frozen_layers=1, dropout=0.5, epochs=1)
    seen: list[tuple[bool, bool]] = []
    for layer in layers_of(trainer._model):
        layer.register_forward_hook(lambda module, _, output: seen.append((module.training, output.requires_grad)))
    next(trainer.reports())
    assert set(seen[: 2 * 8 : 2]) == {(False, False)}, "the frozen layer's, over an epoch of eight steps"
    assert set(seen[1 : 2 * 8 : 2]) == {(True, True)}


def test_they_are_not_made_where_they_would_fill_the_disk(
    case: Case, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns("cache"))
    with monkeypatch.context() as patch:
        patch.setattr("trainers.features.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
        assert a_trainer(case, tmp_path / "place", frozen_layers=1).facts["frozen_features"] is False
    a_trainer(case, tmp_path / "place", frozen_layers=1)
    monkeypatch.setattr("trainers.features.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    assert a_trainer(case, tmp_path / "place", frozen_layers=1).facts["frozen_features"] is True, "they are on it already"


@pytest.mark.parametrize(("new_parts", "usable"), [((), True), (("layers.2",), True), (("layers.1",), False)])
def test_a_frozen_part_that_is_new_forbids_them(tmp_path: Path, new_parts: tuple[str, ...], *, usable: bool) -> None:
    """It was drawn by this trial's seed, and what is kept is for trials of other seeds too."""
    network = Network("as usual")
    asked = TrainingConfig(model="none", frozen_layers=2)
    ids = torch.randint(10, (8, 3))
    inputs = Inputs(
        rows={"train": 8, "validation": 8}, forward=lambda _, some: network(ids[list(some)]), depends_on={}, change=False
    )
    (tmp_path / "model").mkdir()
    found = frozen_features(
        LoadedModel(network, new_parts), Freezing(network, asked), asked, tmp_path / "model", tmp_path / "cache", inputs
    )
    assert (found is not None) is usable


def test_the_layers_end_with_the_trial(tmp_path: Path) -> None:
    """Memory of a device must not wait for the collector of garbage."""
    gc.collect()
    gc.disable()
    try:
        layers = [weakref.ref(layer) for layer in layers_of(_with_features(tmp_path))]
        assert [layer() for layer in layers] == [None, None, None]
    finally:
        gc.enable()


def _with_features(cache: Path) -> Network:
    network = Network("as usual")
    ids = torch.randint(10, (8, 3))
    rows = {"train": Ragged(np.zeros(0), np.arange(0, 27, 3))}
    features = FrozenFeatures(network, Freezing(network, TrainingConfig(model="none", frozen_layers=2)))
    assert features.compute(cache, {}, rows, {"train": lambda some: network(ids[list(some)])}, 4)
    features.use("train", range(8), torch.device("cpu"))
    return network


def calls(trainer: Any, layer: int) -> list[None]:
    found: list[None] = []
    trainer._model.bert.encoder.layer[layer].intermediate.register_forward_hook(lambda *_: found.append(None))
    return found


def test_what_is_timed_is_the_whole_model_and_not_what_is_left_of_it(case: Case, place: Path) -> None:
    trainer: Any = a_trainer(case, place, frozen_layers=1, epochs=1, measure=("latency_ms",))
    assert trainer.facts["frozen_features"]
    frozen = calls(trainer, 0)
    report = next(trainer.reports())
    assert frozen, "the frozen layer was run"
    assert report.metrics["model/latency_ms"] > 0
    before = len(frozen)
    trainer._validate()
    assert len(frozen) == before, "and is left out again"
