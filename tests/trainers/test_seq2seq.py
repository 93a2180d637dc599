"""The sequence-to-sequence trainer: sources, targets, and what it writes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from service.catalog.headers import ENCODER_DECODERS
from tests.trainers import seq2seq_case
from tests.trainers.seq2seq_case import words
from tests.trainers.test_causal_lm import warned
from tests.trainers.test_contract import weights
from trainers.configs import Seq2SeqConfig, metrics_of
from trainers.contract import TrainerError, TrialContext
from trainers.losses import IGNORED
from trainers.prepared import Prepared
from trainers.seq2seq import Seq2Seq, prepare

_END = 1


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("numbers")
    seq2seq_case.write(folder)
    return folder


def a_trainer(place: Path, **changes: Any) -> Seq2Seq:
    config = Seq2SeqConfig.model_validate({**seq2seq_case.DOCUMENT, **changes})
    sources = {name: place / name.removeprefix("dataset://") for name in config.data.named.values()}
    return Seq2Seq(config, TrialContext(cache=place / "cache", sources=sources, models={"tiny": place / "tiny"}))


def rows_made(folder: Path, rows: Sequence[Mapping[str, str]], tokenizer: Any = None, **changes: Any) -> Prepared:
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "validation.jsonl").write_text(json.dumps({"source": "nine", "target": "9"}))
    data = {"train": str(folder / "train.jsonl"), "validation": str(folder / "validation.jsonl"), "prefix": "say: "}
    config = Seq2SeqConfig.model_validate({"kind": "seq2seq", "model": "tiny", "data": data, **changes})
    return prepare(config, tokenizer or words(start=False), folder, TrialContext(cache=folder / "cache"))


def test_a_source_has_its_prefix_and_a_target_its_end(tmp_path: Path) -> None:
    made = rows_made(tmp_path, [{"source": "one two", "target": "1 2"}])
    assert words(start=False).decode(made.ragged("train")[0]) == "say: one two </s>"
    assert words(start=False).decode(made.ragged("train-targets")[0]) == "1 2 </s>"
    assert made.facts["tokens"] == {"train": 3, "validation": 2}


def test_a_target_gets_its_end_where_the_tokenizer_gives_none(tmp_path: Path) -> None:
    tokenizer = words(start=False)
    tokenizer.backend_tokenizer.post_processor = None
    rows = [{"source": "one", "target": "1"}, {"source": "two", "target": "1 2 3"}]
    targets = rows_made(tmp_path, rows, tokenizer, max_target_length=3).ragged("train-targets")
    assert [tokenizer.decode(targets[row]) for row in range(2)] == ["1 </s>", "1 2 </s>"]


def test_long_sources_and_targets_are_cut_before_their_end_and_counted(tmp_path: Path) -> None:
    rows = [{"source": "one two three", "target": "1 2 3"}, {"source": "one", "target": "1"}]
    made = rows_made(tmp_path, rows, max_length=4, max_target_length=3)
    assert words(start=False).decode(made.ragged("train")[0]) == "say: one two </s>"
    assert words(start=False).decode(made.ragged("train-targets")[0]) == "1 2 </s>"
    assert made.facts["cut"] == made.facts["cut_targets"] == {"train": 1, "validation": 0}


def test_a_row_without_source_or_target_is_empty_and_a_source_may_have_several_targets(tmp_path: Path) -> None:
    rows = [("one", "1"), ("one", "2"), ("one", "1"), ("", "1"), ("one", " ")]
    made = rows_made(tmp_path, [{"source": source, "target": target} for source, target in rows])
    assert made.facts["rows"]["train"] == 2
    assert made.facts["dropped"] == {"empty": 2, "duplicate": 1, "in_other_split": 0}


def test_all_targets_of_a_source_are_in_one_split(tmp_path: Path) -> None:
    rows = [{"source": "nine", "target": "1"}, {"source": "one", "target": "9"}]
    assert rows_made(tmp_path, rows).facts["dropped"]["in_other_split"] == 1


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    tokenizer = words(start=False)
    tokenizer.eos_token = None
    with pytest.raises(TrainerError, match="no end-of-text token"):
        rows_made(tmp_path, [{"source": "one", "target": "1"}], tokenizer)


@pytest.mark.parametrize("setting", ["max_length", "max_target_length"])
def test_a_row_longer_than_the_model_has_positions_is_refused(tmp_path: Path, setting: str) -> None:
    seq2seq_case.write_for_bart(tmp_path)
    with pytest.raises(TrainerError, match=f"`{setting}` is 65, but the model has 64 positions: lower it"):
        a_trainer(tmp_path, **{setting: 65})


def test_a_step_trains_on_the_models_own_loss(place: Path) -> None:
    trainer = a_trainer(place, dropout=0.0)
    rows, loss = [0, 3, 5], 0.0
    with torch.inference_mode():
        for row in rows:
            source, target = (
                torch.from_numpy(ragged[row].copy()).long()[None]
                for ragged in (trainer._sources["train"], trainer._targets["train"])
            )
            loss += float(trainer._model(input_ids=source, labels=target).loss) * target.numel()
    assert float(trainer._loss(rows, 0).detach()) == pytest.approx(loss, rel=1e-5)
    assert trainer._weight(rows) == sum(len(trainer._targets["train"][row]) for row in rows)


def test_nothing_is_written_where_no_rows_are_asked_for(place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(place, generated_rows=0, epochs=1)
    report = next(trainer.reports())
    trainer.export(tmp_path)
    assert set(report.metrics) == metrics_of(trainer._config)
    assert set(trainer.test(tmp_path)) == {"test/loss", "test/perplexity", "test/accuracy"}
    assert "written" not in trainer.analysis()


def test_the_analysis_shows_what_was_written_and_what_was_wanted(place: Path) -> None:
    trainer = a_trainer(place, generated_rows=5, epochs=1)
    report = next(trainer.reports())
    found = trainer.analysis()
    rows = [json.loads(line) for line in (place / "validation.jsonl").read_text().splitlines()][:5]
    assert {(one["text"], one["label"]) for one in found["written"]} == {(row["source"], row["target"]) for row in rows}
    assert found["metrics"]["rouge_l"] == pytest.approx(report.metrics["validation/rouge_l"], rel=1e-4)


def test_more_rows_may_be_asked_for_than_there_are(place: Path) -> None:
    next(a_trainer(place, generated_rows=1000, epochs=1).reports())


def test_gradient_checkpointing_changes_nothing_but_memory(place: Path) -> None:
    dear, cheap = (
        [dict(report.metrics) for report in a_trainer(place, gradient_checkpointing=saving, dropout=0.0, epochs=2).reports()]
        for saving in (False, True)
    )
    for one, other in zip(dear, cheap, strict=True):
        assert one == pytest.approx(other, rel=1e-4)


def test_frozen_layers_are_those_of_the_encoder(place: Path) -> None:
    trainer = a_trainer(place, frozen_layers=1, epochs=1)
    before = weights(trainer)
    list(trainer.reports())
    changed = {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}
    assert not [name for name in changed if name.startswith(("encoder.block.0.", "shared"))]
    assert any(name.startswith("encoder.block.1.") for name in changed)
    assert any(name.startswith("decoder.block.0.") for name in changed)


def test_a_models_own_way_to_generate_is_kept_and_neither_writing_nor_saving_warns(tmp_path: Path) -> None:
    seq2seq_case.write_for_bart(tmp_path)
    told = GenerationConfig(
        decoder_start_token_id=_END, eos_token_id=_END, pad_token_id=0, num_beams=4, early_stopping=True, length_penalty=2.0
    )
    told.save_pretrained(tmp_path / "tiny")
    trainer = a_trainer(tmp_path, epochs=1)
    (tmp_path / "export").mkdir()

    def write_and_save() -> None:
        list(trainer.reports())
        trainer.export(tmp_path / "export")

    assert not warned(write_and_save)
    kept = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "export").generation_config
    assert (kept.num_beams, kept.early_stopping, kept.length_penalty, kept.eos_token_id) == (4, True, 2.0, _END)


_BART = {
    "vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 64,
    "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 3, "decoder_start_token_id": 1, "forced_eos_token_id": None,
}  # fmt: skip
_T5 = {
    "vocab_size": 64, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
    "pad_token_id": 0, "eos_token_id": 1,
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(ENCODER_DECODERS))
def test_every_encoder_decoder_reads_targets_as_its_own_loss_does(model_type: str, place: Path) -> None:
    torch.manual_seed(0)
    config = CONFIG_MAPPING[model_type](**(_T5 if "t5" in model_type else _BART))
    model: Any = AutoModelForSeq2SeqLM.from_config(config).eval()
    trainer = a_trainer(place)
    trainer._model = model
    labels = torch.tensor([[5, 6, 7, _END], [5, _END, IGNORED, IGNORED]])
    inputs = {"input_ids": torch.tensor([[8, 9, _END], [8, _END, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    with torch.inference_mode():
        wanted = model(**inputs, labels=labels)
        logits = model(**inputs, **trainer._decoder_inputs(labels), use_cache=False).logits
    assert torch.allclose(logits, wanted.logits, atol=1e-5)
