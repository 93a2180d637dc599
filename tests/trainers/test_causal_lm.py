"""The causal language model trainer: what is predicted from what, and what comes of rows that do not fit."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging as transformers_logging

from service.catalog.headers import DECODERS
from tests.trainers import causal_lm_case
from tests.trainers.causal_lm_case import letters, pairs
from tests.trainers.test_contract import same, weights
from trainers.causal_lm import CausalLm, prepare
from trainers.configs import CausalLmConfig
from trainers.contract import TrainerError, TrialContext
from trainers.prepared import Prepared

_START, _END = 0, 1
_CHAT = "{{ '<s>' }}{% for message in messages %}{{ message['role'] + ':' + message['content'] }}{% endfor %}{{ '|' }}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sums")
    causal_lm_case.write(folder)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stories")
    causal_lm_case.write_plain(folder)
    return folder


def a_trainer(place: Path, document: Mapping[str, Any] = causal_lm_case.DOCUMENT, **changes: Any) -> CausalLm:
    config = CausalLmConfig.model_validate({**document, **changes})
    sources = {name: place / name.removeprefix("dataset://") for name in config.data.named.values()}
    return CausalLm(config, TrialContext(cache=place / "cache", sources=sources, models={"tiny": place / "tiny"}))


def rows_made(
    folder: Path, rows: Sequence[Mapping[str, str]], tokenizer: Any = None, max_length: int = 16, **columns: str
) -> Prepared:
    """What is made of some training rows; the validation row is always the same."""
    (folder / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (folder / "validation.jsonl").write_text(json.dumps({"prompt": "v", "answer": "w", "text": "v"}))
    data = {"train": str(folder / "train.jsonl"), "validation": str(folder / "validation.jsonl"), **columns}
    config = CausalLmConfig(kind="causal-lm", model="tiny", data=data, max_length=max_length)  # type: ignore[arg-type]
    return prepare(config, letters(bos=True) if tokenizer is None else tokenizer, folder, TrialContext(cache=folder / "cache"))


def spelled(tokens: Any, tokenizer: Any = None) -> str:
    text: str = (tokenizer or letters(bos=True)).decode(tokens)
    return text


def halves(made: Prepared, row: int = 0) -> tuple[str, str]:
    """What is read and what is predicted of a training row."""
    tokens, start = made.ragged("train")[row], int(made.array("train-starts")[row])
    return spelled(tokens[:start]), spelled(tokens[start:])


def test_the_answer_and_its_end_are_predicted_from_the_prompt(tmp_path: Path) -> None:
    made = rows_made(tmp_path, [{"prompt": "1+1", "answer": " 2\n"}], template="Q {prompt} A ")
    assert halves(made) == ("<s>Q 1+1 A ", "2</s>")
    assert made.facts["tokens"] == {"train": 2, "validation": 2}


def test_braces_in_a_prompt_or_a_template_mean_nothing(tmp_path: Path) -> None:
    made = rows_made(tmp_path, [{"prompt": "{0}{x", "answer": "a"}], template="{}{prompt}%s")
    assert halves(made)[0] == "<s>{}{0}{x%s"


def test_a_tokenizer_that_begins_no_text_gets_no_beginning(tmp_path: Path) -> None:
    made = rows_made(tmp_path, [{"prompt": "p", "answer": "a"}], letters(bos=False), template="{prompt}:")
    assert halves(made) == ("p:", "a</s>")


def test_an_answer_to_nothing_is_predicted_from_the_end_of_another_text(tmp_path: Path) -> None:
    made = rows_made(tmp_path, [{"prompt": "", "answer": "a"}], letters(bos=False), template="{prompt}")
    assert halves(made) == ("</s>", "a</s>")


def test_a_long_prompt_loses_its_beginning_so_that_the_answer_stays(tmp_path: Path) -> None:
    rows = [{"prompt": "abcdefgh", "answer": "xyz"}, {"prompt": "ab", "answer": "xyz"}]
    made = rows_made(tmp_path, rows, max_length=8, template="{prompt}=")
    assert halves(made) == ("<s>gh=", "xyz</s>"), "8 tokens with the answer, its end and the beginning of text"
    assert halves(made, 1) == ("<s>ab=", "xyz</s>")
    assert made.facts["cut"] == {"train": 1, "validation": 0}


def test_an_answer_that_leaves_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": "a" * count} for count in (6, 5, 20)]
    made = rows_made(tmp_path, rows, max_length=8, template="{prompt}=")
    assert [halves(made, row) for row in range(len(made.ragged("train")))] == [("<s>=", "aaaaa</s>")]
    assert made.facts["rows"] == {"train": 1, "validation": 1}
    assert made.facts["too_long"] == {"train": 2, "validation": 0}


def test_a_split_whose_answers_all_leave_no_room_says_what_to_raise(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"No answer of the train rows fits into the `max_length` of 8 tokens: raise it"):
        rows_made(tmp_path, [{"prompt": "p", "answer": "a" * 20}], max_length=8)


def test_a_pair_without_an_answer_is_empty_and_a_prompt_may_have_several_answers(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": answer} for answer in ("a", " ", "b", "a")]
    made = rows_made(tmp_path, rows)
    assert made.facts["rows"]["train"] == 2
    assert made.facts["dropped"] == {"empty": 1, "duplicate": 1, "in_other_split": 0}


def test_all_answers_to_a_prompt_are_in_one_split(tmp_path: Path) -> None:
    rows = [{"prompt": "v", "answer": "other"}, {"prompt": "p", "answer": "w"}]
    assert rows_made(tmp_path, rows).facts["dropped"]["in_other_split"] == 1


def test_answers_to_nothing_have_nothing_in_common(tmp_path: Path) -> None:
    rows = [{"prompt": "", "answer": letter} for letter in "abcdefgh"]
    (tmp_path / "alone.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    data = {"train": str(tmp_path / "alone.jsonl"), "validation_fraction": 0.25}
    config = CausalLmConfig.model_validate({"kind": "causal-lm", "model": "tiny", "data": data, "max_length": 16})
    made = prepare(config, letters(bos=True), tmp_path, TrialContext(cache=tmp_path / "cache"))
    assert made.facts["rows"] == {"train": 6, "validation": 2}


def test_a_chat_template_wraps_the_prompt(tmp_path: Path) -> None:
    tokenizer = letters(bos=True)
    tokenizer.chat_template = _CHAT
    made = rows_made(tmp_path, [{"prompt": "hi", "answer": "a"}], tokenizer, template="chat")
    assert halves(made) == ("<s>user:hi|", "a</s>"), "the template has the beginning of text in it"


def test_a_tokenizer_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"has no chat template: write a `template` with \{prompt\} in it"):
        rows_made(tmp_path, [{"prompt": "hi", "answer": "a"}], template="chat")


def test_a_chat_template_that_refuses_the_prompt_is_named(tmp_path: Path) -> None:
    tokenizer = letters(bos=True)
    tokenizer.chat_template = "{{ raise_exception('system first') }}"
    with pytest.raises(TrainerError, match=r"takes no single message: system first"):
        rows_made(tmp_path, [{"prompt": "hi", "answer": "a"}], tokenizer, template="chat")


def test_a_tokenizer_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    tokenizer = letters(bos=True)
    tokenizer.eos_token = None
    with pytest.raises(TrainerError, match="no end-of-text token"):
        rows_made(tmp_path, [{"prompt": "hi", "answer": "a"}], tokenizer)


@pytest.mark.parametrize(
    ("second", "rows"),
    [
        ("jk", ["<s>a  b\n", "c</s><s>jk</s>"]),
        ("jkl", ["<s>a  b\n", "c</s><s>jkl"]),  # a last row of one token has nothing to predict
        ("jklm", ["<s>a  b\n", "c</s><s>jkl", "m</s>"]),
    ],
)
def test_documents_are_joined_and_cut_into_rows(tmp_path: Path, second: str, rows: list[str]) -> None:
    made = rows_made(tmp_path, [{"text": " a  b\nc"}, {"text": second}], max_length=6, text="text")
    tokens = made.ragged("train")
    assert [spelled(tokens[row]) for row in range(len(tokens))] == rows
    assert made.array("train-starts").tolist() == [1] * len(rows)
    assert made.facts["rows"]["train"] == 2
    assert made.facts["packed"]["train"] == len(rows)
    assert made.facts["tokens"]["train"] == tokens.lengths.sum() - len(rows)


def test_a_row_longer_than_the_model_has_positions_is_refused(place: Path) -> None:
    with pytest.raises(TrainerError, match="`max_length` is 65, but the model has 64 positions: lower it"):
        a_trainer(place, max_length=65)


def test_a_step_trains_on_the_models_own_loss(place: Path) -> None:
    trainer = a_trainer(place, dropout=0.0)
    rows = [0, 3, 5]
    tokens, starts = trainer._rows.ragged("train"), trainer._rows.array("train-starts")
    loss = 0.0
    with torch.inference_mode():
        for row in rows:
            labels = torch.from_numpy(tokens[row].copy()).long()[None]
            ids, labels[0, : int(starts[row])] = labels.clone(), -100
            loss += float(trainer._model(input_ids=ids, labels=labels).loss) * float(trainer._weight([row]))
    assert float(trainer._loss(rows, 0).detach()) == pytest.approx(loss, rel=1e-5)


def test_label_smoothing_changes_the_loss_that_is_trained_on_and_not_the_validation(place: Path) -> None:
    plain, smooth = (
        next(a_trainer(place, dropout=0.0, learning_rate=1e-9, label_smoothing=smoothing).reports()).metrics
        for smoothing in (0.0, 0.5)
    )
    assert smooth["train/loss"] != pytest.approx(plain["train/loss"], rel=1e-3)
    assert smooth["validation/loss"] == pytest.approx(plain["validation/loss"], rel=1e-5)


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_gradient_checkpointing_changes_nothing_but_memory(place: Path, lora: Any) -> None:
    dear, cheap = (
        [report.metrics for report in a_trainer(place, gradient_checkpointing=saving, lora=lora, epochs=2).reports()]
        for saving in (False, True)
    )
    assert [set(metrics) for metrics in dear] == [set(metrics) for metrics in cheap]
    for one, other in zip(dear, cheap, strict=True):
        assert dict(one) == pytest.approx(dict(other), rel=1e-4)


def test_frozen_layers_keep_their_weights_and_what_is_above_them_learns(place: Path) -> None:
    trainer = a_trainer(place, frozen_layers=1, epochs=1)
    before = weights(trainer)
    list(trainer.reports())
    changed = {name for name, tensor in weights(trainer).items() if not torch.equal(tensor, before[name])}
    assert any(name.startswith("model.layers.1.") for name in changed)
    assert not [name for name in changed if name.startswith(("model.layers.0.", "model.embed_tokens", "lm_head"))]


def test_layer_decay_slows_the_lower_layers(place: Path) -> None:
    groups = a_trainer(place, layer_decay=0.5)._loop._optimizer.param_groups
    assert sorted({group["scale"] for group in groups}) == [0.125, 0.25, 0.5, 1.0], "embeddings, two layers, the norm above them"


def test_the_output_layer_that_is_the_embeddings_stays_so_in_an_export(place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(place, epochs=1)
    list(trainer.reports())
    trainer.export(tmp_path)
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert same(model.state_dict(), weights(trainer))


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_an_export_says_how_to_generate_and_saving_it_warns_of_nothing(place: Path, tmp_path: Path, lora: Any) -> None:
    base = tmp_path / "base"
    base.mkdir()
    causal_lm_case.write(base)
    GenerationConfig(bos_token_id=_START, eos_token_id=_END, pad_token_id=_END, max_new_tokens=7).save_pretrained(base / "tiny")
    trainer = a_trainer(base, epochs=1, lora=lora)
    (tmp_path / "export").mkdir()
    assert not warned(lambda: trainer.export(tmp_path / "export"))
    model: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    told = model.generation_config
    assert (told.bos_token_id, told.eos_token_id, told.pad_token_id, told.max_new_tokens) == (_START, _END, _END, 7)
    assert model.config.use_cache, "training without a cache is no reason to write text without one"


def test_a_model_with_random_weights_is_exported_with_its_end_of_text(place: Path, tmp_path: Path) -> None:
    trainer = a_trainer(place, epochs=1, initialisation="random")
    trainer.export(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).generation_config.eos_token_id == _END


def test_the_analysis_of_packed_documents_is_about_the_documents(plain: Path) -> None:
    trainer = a_trainer(plain, causal_lm_case.PLAIN_DOCUMENT, epochs=1)
    report = next(trainer.reports())
    found = trainer.analysis()
    documents = [json.loads(line)["text"] for line in (plain / "validation.jsonl").read_text().splitlines()]
    assert {mistake["text"] for mistake in found["mistakes"]} == set(documents)
    assert sum(mistake["tokens"] for mistake in found["mistakes"]) == found["tokens"] == trainer.facts["tokens"]["validation"]
    assert found["by_position"][0]["from"] == 0
    loss = sum(mistake["loss"] * mistake["tokens"] for mistake in found["mistakes"]) / found["tokens"]
    assert loss == pytest.approx(report.metrics["validation/loss"], rel=1e-4)


def test_the_analysis_of_pairs_shows_prompt_and_answer(place: Path) -> None:
    trainer = a_trainer(place, epochs=1)
    next(trainer.reports())
    shown = {mistake["text"] for mistake in trainer.analysis()["mistakes"]}
    assert shown == {f"{question}\n{answer}" for question, answer in pairs()[64:84]}


_SMALL: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
_ENDS: dict[str, Any] = {"bos_token_id": 1, "eos_token_id": 2}
_GPT = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 40, **_ENDS}
_OTHERWISE: dict[str, dict[str, Any]] = {
    "gpt2": _GPT, "gpt_bigcode": _GPT, "openai-gpt": _GPT, "gptj": {**_GPT, "rotary_dim": 8},
    "gpt_neo": {**_SMALL, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    "falcon": _SMALL,
    "bloom": {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 2, **_ENDS},
    "mpt": {"vocab_size": 64, "d_model": 32, "n_layers": 2, "n_heads": 2, "max_seq_len": 40},
    "opt": {**_SMALL, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "xglm": {**_SMALL, "d_model": 32, "num_layers": 2, "attention_heads": 2, "ffn_dim": 64},
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(DECODERS))
def test_every_decoder_computes_only_what_is_asked_for(model_type: str) -> None:
    torch.manual_seed(0)
    model: Any = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[model_type](**_OTHERWISE.get(model_type, {**_SMALL, "head_dim": 16}))
    ).eval()
    ids = torch.tensor([[5, 6, 7, 8, 9], [5, 6, 7, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    kept = torch.tensor([[0, 0, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    with torch.inference_mode():
        some = model(input_ids=ids, attention_mask=mask, logits_to_keep=kept, use_cache=False).logits
        alone = model(input_ids=ids[1:, :3]).logits[0, :2]
        assert torch.allclose(some[:2], model(input_ids=ids[:1]).logits[0, 2:4], atol=1e-5)
    assert torch.allclose(some[2:], alone, atol=1e-5), "what is learned of a row would depend on its padding"


def warned(act: Callable[[], object]) -> list[str]:
    """What transformers logs as a warning or worse."""
    found: list[str] = []

    class Listening(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    before, handler = transformers_logging.get_verbosity(), Listening(logging.WARNING)
    transformers_logging.set_verbosity_warning()
    transformers_logging.add_handler(handler)
    try:
        act()
    finally:
        transformers_logging.remove_handler(handler)
        transformers_logging.set_verbosity(before)
    return found
