"""What every trainer promises, whatever its task."""

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.trainers.cases import CASES, Case, a_config, a_trainer, sources_of
from trainers.configs import metrics_of
from trainers.contract import Goal, Report, Trainer, TrainerError

_LETTERS = {".safetensors", ".json", ".txt"}


def said(reports: list[Report]) -> list[Report]:
    """Reports without what they took of time and of a GPU's memory."""
    return [replace(report, seconds=0.0, gpu_memory=None) for report in reports]


def weights(trainer: Trainer) -> dict[str, Tensor]:
    model: Any = getattr(trainer, "_model", None)  # all have one but those that train nothing, and tests may look
    return {} if model is None else {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_it_learns(any_case: Case, any_place: Path) -> None:
    reports = list(a_trainer(any_case, any_place, **any_case.learns).reports())
    for name, wanted in any_case.reaches.items():
        reached = reports[-1].metrics[f"validation/{name}"]
        assert reached <= wanted if name == "loss" else reached >= wanted, f"{name} is {reached}"
    assert reports[-1].metrics["train/loss"] < reports[0].metrics["train/loss"]


def test_there_is_a_report_an_epoch_with_every_metric(any_case: Case, any_place: Path) -> None:
    reports = list(a_trainer(any_case, any_place).reports())
    assert [(report.number, report.epoch, report.last) for report in reports] == [
        (1, 1.0, False),
        (2, 2.0, False),
        (3, 3.0, True),
    ]
    assert all(report.seconds > 0 for report in reports)
    steps = reports[0].step
    assert [report.step for report in reports] == [steps, 2 * steps, 3 * steps]
    assert all(set(report.metrics) == metrics_of(a_config(any_case)) for report in reports)


def test_there_is_a_report_every_so_many_steps(any_case: Case, any_place: Path) -> None:
    per_epoch = next(a_trainer(any_case, any_place).reports()).step
    reports = list(a_trainer(any_case, any_place, report_every=2, max_steps=5).reports())
    assert [(report.number, report.step, report.last) for report in reports] == [(1, 2, False), (2, 4, False), (3, 5, True)]
    assert [report.epoch for report in reports] == [step / per_epoch for step in (2, 4, 5)]
    assert len(reports) == a_config(any_case, report_every=2, max_steps=5).reports


def test_the_same_seed_gives_the_same_reports_and_another_seed_others(any_case: Case, any_place: Path) -> None:
    one, again, other = (said(list(a_trainer(any_case, any_place, epochs=2, seed=seed).reports())) for seed in (3, 3, 4))
    assert one == again
    assert one != other


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_trial_stopped_after_any_report_goes_on_as_if_it_had_not(
    any_case: Case, any_place: Path, tmp_path: Path, stop_after: int
) -> None:
    whole = a_trainer(any_case, any_place)
    wanted = said(list(whole.reports()))
    first = a_trainer(any_case, any_place)
    running = first.reports()
    reports = [next(running) for _ in range(stop_after)]
    first.save(tmp_path)
    torch.manual_seed(999)  # another process would be in another random state
    second = a_trainer(any_case, any_place)
    second.load(tmp_path)
    reports += list(second.reports())
    assert said(reports) == wanted
    assert same(weights(whole), weights(second))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trial_paused_in_the_middle_of_an_epoch_goes_on_as_if_it_had_not(
    case: Case, place: Path, tmp_path: Path, precision: str
) -> None:
    whole = a_trainer(case, place, precision=precision)
    wanted = said(list(whole.reports()))
    middle = wanted[0].step + 1
    first = a_trainer(case, place, interrupted_at=middle, precision=precision)
    reports = list(first.reports())
    assert len(reports) == 1, "the trial was asked to pause a step after its first report"
    first.save(tmp_path)
    second = a_trainer(case, place, precision=precision)
    second.load(tmp_path)
    reports += list(second.reports())
    assert said(reports) == wanted
    assert same(weights(whole), weights(second))


def test_micro_batches_add_up_to_the_batch(case: Case, place: Path) -> None:
    changes = {"epochs": 1, "dropout": 0.0, **_without_adapter_dropout(case), **case.alone}
    whole = list(a_trainer(case, place, **changes).reports())
    parts = list(a_trainer(case, place, micro_batch_size=3, **changes).reports())
    assert parts[0].metrics["train/loss"] == pytest.approx(whole[0].metrics["train/loss"], rel=1e-3)
    assert parts[0].metrics["validation/loss"] == pytest.approx(whole[0].metrics["validation/loss"], rel=1e-2)


def test_a_state_holds_no_pickle(case: Case, place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(case, place, epochs=1)
    list(trainer.reports())
    trainer.save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}


def test_a_kill_while_saving_leaves_the_state_before_it(
    case: Case, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever saves writes beside the old state and renames; a trainer must not touch anything else."""
    wanted = said(list(a_trainer(case, place).reports()))
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    first = a_trainer(case, place)
    running = first.reports()
    next(running)
    first.save(old)
    next(running)
    monkeypatch.setattr("trainers.checkpoint.save_file", _killed)
    with pytest.raises(KeyboardInterrupt):
        first.save(new)
    second = a_trainer(case, place)
    second.load(old)
    assert said(list(second.reports())) == wanted[1:]


def test_an_export_gives_the_reported_metrics_without_us(any_case: Case, any_place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(any_case, any_place)
    report = list(trainer.reports())[-1]
    trainer.export(tmp_path)
    for name, value in any_case.measure(tmp_path, any_place, "validation").items():
        assert report.metrics[f"validation/{name}"] == pytest.approx(value, abs=1e-5), name


def test_the_test_rows_are_measured_on_the_export(any_case: Case, any_place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(any_case, any_place, epochs=1)
    list(trainer.reports())
    trainer.export(tmp_path)
    found = trainer.test(tmp_path)
    assert set(found) == {
        name.replace("validation/", "test/") for name in metrics_of(a_config(any_case)) if name.startswith("validation/")
    }
    for name, value in any_case.measure(tmp_path, any_place, "test").items():
        assert found[f"test/{name}"] == pytest.approx(value, abs=1e-5), name


def test_an_export_holds_no_pickle_and_no_path_of_this_machine(any_case: Case, any_place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(any_case, any_place, epochs=1)
    trainer.export(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= _LETTERS
    assert not [path for path in files if path.suffix != ".safetensors" and str(any_place) in path.read_text()]


def test_exporting_changes_nothing(any_case: Case, any_place: Path, tmp_path: Path) -> None:
    wanted = said(list(a_trainer(any_case, any_place).reports()))
    trainer = a_trainer(any_case, any_place)
    reports = []
    for report in trainer.reports():
        reports.append(report)
        folder = tmp_path / str(report.number)
        folder.mkdir()
        trainer.export(folder)
    assert said(reports) == wanted


def test_the_analysis_is_json_and_agrees_with_the_report(case: Case, place: Path) -> None:
    trainer = a_trainer(case, place, epochs=1)
    report = next(trainer.reports())
    found = json.loads(json.dumps(trainer.analysis(), allow_nan=False))
    assert found["task"] == a_config(case).kind
    assert found["rows"] == trainer.facts["rows"]["validation"]
    for name, value in found["metrics"].items():
        assert report.metrics[f"validation/{name}"] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_facts_are_json_and_count_rows_and_parameters(case: Case, place: Path) -> None:
    facts = json.loads(json.dumps(a_trainer(case, place).facts))
    assert set(facts["rows"]) == {"train", "validation", "test"}
    assert set(facts["dropped"]) == {"empty", "duplicate", "in_other_split"}
    assert 0 < facts["trained_parameters"] <= facts["parameters"]
    assert all(len(sha256) == 64 for sha256 in facts["sha256"].values())


def test_a_loss_that_is_no_number_ends_the_trial_as_diverged(case: Case, place: Path) -> None:
    trainer = a_trainer(case, place)
    with torch.no_grad():
        trained = [one for one in trainer._model.parameters() if one.requires_grad]  # type: ignore[attr-defined]
        trained[-1].fill_(math.nan)
    with pytest.raises(TrainerError, match="lower the learning rate") as raised:
        list(trainer.reports())
    assert raised.value.reason == "diverged"


def test_a_loss_that_explodes_ends_the_trial_as_diverged(case: Case, place: Path) -> None:
    changes = {"optimizer": "sgd", "learning_rate": 10.0, "gradient_clip": 0.0, "divergence_factor": 1.5, **case.explodes}
    trainer = a_trainer(case, place, epochs=30, **changes)
    with pytest.raises(TrainerError, match="lower the learning rate") as raised:
        list(trainer.reports())
    assert raised.value.reason == "diverged"


def test_a_trial_that_no_longer_gets_better_ends_early(any_case: Case, any_place: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"epochs": 9, "early_stopping": {"patience": 2, "min_gain": 1e6}}
    goal = Goal("train/loss", "minimize")
    reports = list(a_trainer(any_case, any_place, goal=goal, **changes).reports())
    assert [report.last for report in reports] == [False, False, True], "no later report gains a million on the first"
    first = a_trainer(any_case, any_place, goal=goal, **changes)
    running = first.reports()
    next(running)
    next(running)
    first.save(tmp_path)
    second = a_trainer(any_case, any_place, goal=goal, **changes)
    second.load(tmp_path)
    assert [report.last for report in second.reports()] == [True], "what was waited for is in the state"


def test_short_memory_halves_the_micro_batches_and_goes_on(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roomy = list(a_trainer(case, place, epochs=1, micro_batch_size=2, batch_size=8).reports())
    trainer = a_trainer(case, place, epochs=1, batch_size=8)
    monkeypatch.setattr(trainer._loop, "_gradients", _with_memory_for(2, trainer._loop._gradients))  # type: ignore[attr-defined]
    cramped = list(trainer.reports())
    assert said(cramped) == said(roomy), "8 rows, then 4, then 2 at once: as if 2 had been asked for"
    assert trainer.facts["micro_batch_size"] == 2


def test_memory_too_short_for_a_single_row_ends_the_trial(case: Case, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = a_trainer(case, place, epochs=1)
    monkeypatch.setattr(trainer._loop, "_gradients", _with_memory_for(0, trainer._loop._gradients))  # type: ignore[attr-defined]
    with pytest.raises(TrainerError, match="Not even one row") as raised:
        list(trainer.reports())
    assert raised.value.reason == "out_of_memory"


def test_the_second_trial_of_a_study_prepares_nothing(case: Case, place: Path) -> None:
    a_trainer(case, place)
    before = {path: path.stat().st_ino for path in (place / "cache").iterdir()}
    a_trainer(case, place, seed=5, learning_rate=1e-4)
    assert {path: path.stat().st_ino for path in (place / "cache").iterdir()} == before


def test_a_missing_file_is_named(case: Case, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "tiny", tmp_path / "tiny")
    with pytest.raises(TrainerError, match="dataset://"):
        a_trainer(case, tmp_path)


def test_weights_that_are_cut_short_are_refused(case: Case, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "place")
    (file,) = (tmp_path / "place" / "tiny").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(TrainerError, match="cannot be loaded"):
        a_trainer(case, tmp_path / "place")


def test_broken_rows_are_refused_and_leave_nothing_half_made(case: Case, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place, tmp_path / "place", ignore=shutil.ignore_patterns("cache"))
    for path in sources_of(a_config(case), tmp_path / "place").values():
        path.write_bytes(path.read_bytes()[: len(path.read_bytes()) // 2] + b'\x00\xff"{')
    with pytest.raises(TrainerError) as raised:
        a_trainer(case, tmp_path / "place")
    assert raised.value.reason == "trainer_error"
    assert not list((tmp_path / "place").glob("cache/*")) + list((tmp_path / "place").glob("cache/.*"))


@pytest.mark.parametrize("number", [0, 2], ids=["text-classification", "token-classification"])
def test_texts_longer_than_an_encoder_has_positions_for_are_refused(number: int, tmp_path: Path) -> None:
    CASES[number].write(tmp_path)
    a_trainer(CASES[number], tmp_path, max_length=64)
    with pytest.raises(TrainerError, match="`max_length` is 65, but the model has 64 positions: lower it"):
        a_trainer(CASES[number], tmp_path, max_length=65)


@pytest.mark.parametrize("number", [0, 2], ids=["text-classification", "token-classification"])
def test_spans_cannot_be_hidden_without_a_mask_token(number: int, tmp_path: Path) -> None:
    CASES[number].write(tmp_path)
    backend = AutoTokenizer.from_pretrained(tmp_path / "tiny").backend_tokenizer
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path / "tiny")
    a_trainer(CASES[number], tmp_path, augmentation={"token_dropout": 0.1})
    with pytest.raises(TrainerError, match="The tokenizer has no mask token: leave out `span_masking`"):
        a_trainer(CASES[number], tmp_path, augmentation={"span_masking": 0.1})


def _without_adapter_dropout(case: Case) -> dict[str, Any]:
    return {"lora": {**case.document["lora"], "dropout": 0.0}} if "lora" in case.document else {}


def _with_memory_for(rows: int, gradients: Any) -> Any:
    """A loop's `_gradients` on a device that holds so many rows at once."""

    def limited(batch: Any, weight: float, work: Any) -> float:
        def loss(some: Any, epoch: int) -> Tensor:
            found: Tensor = work.loss(some, epoch)
            if len(some) > rows:  # at the end of a forward pass, when all that it changes has changed
                raise torch.OutOfMemoryError("CUDA out of memory")
            return found

        value: float = gradients(batch, weight, replace(work, loss=loss))
        return value

    return limited


def _killed(*_: Any, **__: Any) -> None:
    raise KeyboardInterrupt


BOTH: dict[str, Any] = {"measure": ("megabytes", "latency_ms")}


def test_what_is_measured_of_the_model_is_measured_once_and_kept_by_the_state(case: Case, place: Path, tmp_path: Path) -> None:
    whole = a_trainer(case, place, **BOTH)
    running = whole.reports()
    first = next(running)
    assert set(first.metrics) == metrics_of(a_config(case, **BOTH))
    assert first.metrics["model/latency_ms"] > 0
    whole.save(tmp_path)
    second = a_trainer(case, place, **BOTH)
    second.load(tmp_path)
    for report in [*running, *second.reports()]:
        assert report.metrics["model/megabytes"] == first.metrics["model/megabytes"]
        assert report.metrics["model/latency_ms"] == first.metrics["model/latency_ms"]


def test_measuring_the_model_changes_nothing_else(case: Case, place: Path) -> None:
    plain = a_trainer(case, place)
    without = said(list(plain.reports()))
    asked = a_trainer(case, place, **BOTH)
    found = said(list(asked.reports()))
    left = [{name: value for name, value in one.metrics.items() if not name.startswith("model/")} for one in found]
    assert left == [one.metrics for one in without]
    assert same(weights(plain), weights(asked))


def test_the_megabytes_are_those_of_the_exported_weights(case: Case, place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(case, place, epochs=1, **BOTH)
    report = next(trainer.reports())
    trainer.export(tmp_path)
    tensors = [tensor for path in tmp_path.glob("*.safetensors") for tensor in load_file(path).values()]
    written = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert report.metrics["model/megabytes"] * 1e6 == pytest.approx(written, rel=0.01)
