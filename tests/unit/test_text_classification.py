"""The text classification trainer on a tiny encoder: it learns, resumes bit for bit, and exports what transformers loads."""

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import make_tiny_encoder, write_intents
from trainers.configs import TextClassificationConfig
from trainers.contract import Interruption, Report, TrainerError, TrialContext, make_trainer
from trainers.models import encoder_layers
from trainers.text_classification import TextClassification


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("place")
    (root / "tiny").mkdir()
    make_tiny_encoder(root / "tiny")
    write_intents(root, train=120, validation=40)
    return root


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def a_config(**changes: Any) -> TextClassificationConfig:
    document: dict[str, Any] = {
        "kind": "text-classification",
        "model": "tiny",
        "data": {"train": "dataset://intents/train.csv", "validation": "dataset://intents/validation.csv"},
        "epochs": 3,
        "batch_size": 16,
        "learning_rate": 5e-3,
        "max_length": 32,
    }
    return TextClassificationConfig.model_validate({**document, **changes})


def a_trainer(place: Path, interrupted_after: int | None = None, **changes: Any) -> TextClassification:
    """`interrupted_after` so many looks, the trainer is asked to pause, once."""
    looks = iter(range(1_000_000))
    context = TrialContext(
        cache=place / "cache",
        sources={f"dataset://intents/{name}.csv": place / f"{name}.csv" for name in ("train", "validation")},
        models={"tiny": place / "tiny"},
        interruption=lambda: Interruption.PAUSE if next(looks) == interrupted_after else None,
    )
    trainer = make_trainer(a_config(**changes), context)
    assert isinstance(trainer, TextClassification)
    return trainer


def said(reports: list[Report]) -> list[Report]:
    """Reports without the time they took."""
    return [replace(report, seconds=0.0) for report in reports]


def weights(trainer: TextClassification) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in trainer._model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_it_learns(place: Path) -> None:
    reports = list(a_trainer(place, epochs=20, learning_rate=1e-2, dropout=0.0).reports())
    assert reports[-1].metrics["validation/accuracy"] > 0.9, "five labels: chance is 0.2"
    assert reports[-1].metrics["train/loss"] < reports[0].metrics["train/loss"] / 2


def test_there_is_a_report_an_epoch_with_every_metric(place: Path) -> None:
    reports = list(a_trainer(place).reports())
    assert [(report.number, report.epoch, report.step) for report in reports] == [(1, 1.0, 8), (2, 2.0, 16), (3, 3.0, 24)]
    assert all(report.seconds > 0 for report in reports)
    names = {"validation/accuracy", "validation/f1_macro", "validation/loss", "train/loss", "train/learning_rate"}
    assert all(set(report.metrics) == names for report in reports)


def test_the_same_seed_gives_the_same_reports_and_another_seed_others(place: Path) -> None:
    one, same, other = (said(list(a_trainer(place, seed=seed).reports())) for seed in (3, 3, 4))
    assert one == same
    assert one != other


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_trial_stopped_after_any_epoch_goes_on_as_if_it_had_not(place: Path, tmp_path: Path, stop_after: int) -> None:
    whole = a_trainer(place)
    wanted = said(list(whole.reports()))
    first = a_trainer(place)
    running = first.reports()
    reports = [next(running) for _ in range(stop_after)]
    first.save(tmp_path)
    torch.manual_seed(999)  # another process would be in another random state
    second = a_trainer(place)
    second.load(tmp_path)
    reports += list(second.reports())
    assert said(reports) == wanted
    assert same(weights(whole), weights(second))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trial_paused_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not(place: Path, tmp_path: Path, precision: str) -> None:
    whole = a_trainer(place, precision=precision, frozen_layers=1)
    wanted = said(list(whole.reports()))
    first = a_trainer(place, interrupted_after=11, precision=precision, frozen_layers=1)
    reports = list(first.reports())
    assert len(reports) == 1, "eight steps an epoch: the eleventh is in the second"
    first.save(tmp_path)
    second = a_trainer(place, precision=precision, frozen_layers=1)
    second.load(tmp_path)
    reports += list(second.reports())
    assert said(reports) == wanted
    assert same(weights(whole), weights(second))


def test_a_state_holds_no_pickle_and_nothing_that_the_pretrained_model_has(place: Path, tmp_path: Path) -> None:
    whole, frozen = tmp_path / "whole", tmp_path / "frozen"
    for folder, layers in ((whole, 0), (frozen, 2)):
        folder.mkdir()
        trainer = a_trainer(place, epochs=1, frozen_layers=layers)
        list(trainer.reports())
        trainer.save(folder)
    assert {path.suffix for path in whole.iterdir()} == {".safetensors", ".json"}
    assert (frozen / "state.safetensors").stat().st_size < (whole / "state.safetensors").stat().st_size / 4


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(place: Path) -> None:
    trainer = a_trainer(place)
    with torch.no_grad():
        trainer._model.classifier.weight.fill_(float("nan"))
    with pytest.raises(TrainerError, match="lower the learning rate") as raised:
        list(trainer.reports())
    assert raised.value.reason == "diverged"


def test_a_gpu_without_memory_ends_the_trial_for_that_reason(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = a_trainer(place)

    def full(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "_model", trainer._model)
    monkeypatch.setattr(trainer._model, "forward", full)
    with pytest.raises(TrainerError, match="16 texts") as raised:
        list(trainer.reports())
    assert raised.value.reason == "out_of_memory"


def test_frozen_layers_and_embeddings_stay_as_they_were(place: Path) -> None:
    trainer = a_trainer(place, frozen_layers=1)
    before = weights(trainer)
    list(trainer.reports())
    after = weights(trainer)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if "embeddings" in name or "layer.0." in name]
    assert any("layer.1." in name for name in changed)
    assert any("classifier" in name for name in changed)


def test_more_frozen_layers_than_there_are_is_refused(place: Path) -> None:
    with pytest.raises(TrainerError, match="the encoder has 2 layers"):
        a_trainer(place, frozen_layers=3)


def test_dropout_is_set_in_the_encoder_and_before_the_head(place: Path) -> None:
    trainer = a_trainer(place, dropout=0.25)
    found = {module.p for module in trainer._model.modules() if isinstance(module, torch.nn.Dropout)}
    assert found == {0.25}


def test_only_matrices_decay(place: Path) -> None:
    groups = a_trainer(place, weight_decay=0.3)._optimizer.param_groups
    assert [(group["weight_decay"], {one.ndim > 1 for one in group["params"]}) for group in groups] == [
        (0.3, {True}),
        (0.0, {False}),
    ]


def test_the_learning_rate_rises_over_the_warm_up_and_falls_to_nothing(place: Path) -> None:
    trainer = a_trainer(place, epochs=5, learning_rate=1.0, warmup_fraction=0.25)  # 40 steps, 10 of them up
    rates = [trainer._learning_rate(step) for step in range(40)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[39] < 0.05


def test_an_export_gives_the_reported_metrics_with_transformers_alone(place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(place, epochs=4, dropout=0.0)
    report = list(trainer.reports())[-1]
    trainer.export(tmp_path)
    model: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer: Any = AutoTokenizer.from_pretrained(tmp_path)
    model.eval()
    with (place / "validation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with torch.inference_mode():
        logits = [model(**tokenizer(row["text"], return_tensors="pt", truncation=True)).logits.double()[0] for row in rows]
    wanted = torch.tensor([model.config.label2id[row["label"]] for row in rows])
    accuracy = (torch.stack(logits).argmax(-1) == wanted).double().mean()
    assert float(accuracy) == pytest.approx(report.metrics["validation/accuracy"], abs=1e-6)
    loss = torch.nn.functional.cross_entropy(torch.stack(logits), wanted)
    assert float(loss) == pytest.approx(report.metrics["validation/loss"], abs=1e-6)


def test_an_export_holds_safetensors_and_text_and_names_its_labels(place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(place, epochs=1)
    trainer.export(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {".safetensors", ".json", ".txt"}
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["id2label"] == {"0": "balance", "1": "card", "2": "loan", "3": "transfer", "4": "travel"}
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".json" and str(place) in path.read_text()]


def test_facts_name_rows_labels_parameters_and_hashes(place: Path) -> None:
    facts = json.loads(json.dumps(a_trainer(place, frozen_layers=1, precision="fp32").facts))
    assert facts["rows"] == {"train": 120, "validation": 40}
    assert facts["labels"] == ["balance", "card", "loan", "transfer", "travel"]
    assert 0 < facts["trained_parameters"] < facts["parameters"]
    assert len(facts["sha256"]["train"]) == 64
    assert facts["training_precision"] == "fp32"


def test_steps_in_bf16_leave_weights_in_fp32(place: Path) -> None:
    trainer = a_trainer(place, precision="bf16", epochs=1)
    list(trainer.reports())
    assert trainer.facts["training_precision"] == "bf16"
    assert {parameter.dtype for parameter in trainer._model.parameters()} == {torch.float32}


def test_the_trainer_takes_the_threads_it_is_given(place: Path) -> None:
    trainer = a_trainer(place)
    assert torch.get_num_threads() == 1
    assert trainer.facts["threads"] == 1


def test_a_gpu_that_is_not_there_is_a_clear_error(place: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    context = TrialContext(cache=place / "cache", models={"tiny": place / "tiny"}, device="cuda")
    with pytest.raises(TrainerError, match="torch finds none"):
        make_trainer(a_config(), context)


def test_a_folder_without_a_model_is_a_clear_error(place: Path, tmp_path: Path) -> None:
    context = TrialContext(cache=place / "cache", models={"tiny": tmp_path})
    with pytest.raises(TrainerError, match="cannot be loaded"):
        make_trainer(a_config(), context)


def test_layers_come_from_the_input_on(place: Path) -> None:
    model = a_trainer(place)._model
    assert encoder_layers(model) == [model.bert.encoder.layer[0], model.bert.encoder.layer[1]]
