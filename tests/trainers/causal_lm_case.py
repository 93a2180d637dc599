"""Sums and small stories, and a tiny Llama and GPT-2 that know their letters."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

_SPLITS = {"train": 64, "validation": 20, "test": 12}
_NAMES = ("ann", "bob", "cat", "dan")
_THINGS = ("red hats", "old maps", "big cups", "wet dogs")


def letters(*, bos: bool) -> PreTrainedTokenizerFast:
    """A token for each byte; with `bos` a text begins with <s>. There is no token for padding."""
    special = ["<s>", "</s>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    numbers = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(BPE(vocab=numbers, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", model_max_length=64)


def write_llama(folder: Path, *, tied: bool = True) -> None:
    folder.mkdir()
    tokenizer = letters(bos=True)
    torch.manual_seed(0)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=tied, initializer_range=0.1,
            bos_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)


def write_gpt2(folder: Path) -> None:
    folder.mkdir()
    tokenizer = letters(bos=False)
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.1,
            bos_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)


def pairs() -> list[tuple[str, str]]:
    """Questions and answers, each question once."""
    rows = [(f"{one}+{other}", str(one + other)) for one in range(10) for other in range(10)]
    return [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]


def stories() -> list[str]:
    rows = [f"{name} has {count} {thing}." for name in _NAMES for thing in _THINGS for count in range(2, 10)]
    return [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]


def write(folder: Path, *, tied: bool = True) -> None:
    write_llama(folder / "tiny", tied=tied)
    _write_rows(folder, [{"question": question, "answer": answer} for question, answer in pairs()])


def write_plain(folder: Path) -> None:
    write_gpt2(folder / "tiny")
    _write_rows(folder, [{"text": text} for text in stories()])


def measure(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    rows = []
    for row in _rows(place, split):
        prompt = [0, *tokenizer.encode(f"{row['question']}=", add_special_tokens=False)]
        answer = [*tokenizer.encode(row["answer"], add_special_tokens=False), 1]
        rows.append((torch.tensor([[*prompt, *answer]]), torch.tensor([[*[-100] * len(prompt), *answer]])))
    return judged(AutoModelForCausalLM.from_pretrained(exported), rows)


def measure_plain(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    stream = [token for row in _rows(place, split) for token in [*tokenizer.encode(row["text"]), 1]]
    rows = [torch.tensor([stream[at : at + 32]]) for at in range(0, len(stream), 32)]
    return judged(AutoModelForCausalLM.from_pretrained(exported), [(row, row) for row in rows if row.shape[1] > 1])


@torch.inference_mode()
def judged(model: Any, rows: list[tuple[Tensor, Tensor]]) -> Mapping[str, float]:
    """Rows one by one, with the model's own loss: tokens and labels, each of shape (1, tokens)."""
    model.eval()
    loss, right, tokens = 0.0, 0, 0
    for ids, labels in rows:
        output = model(input_ids=ids, labels=labels)
        wanted = labels[0, 1:] >= 0
        right += int((output.logits[0, :-1].argmax(-1) == labels[0, 1:])[wanted].sum())
        loss += float(output.loss) * int(wanted.sum())
        tokens += int(wanted.sum())
    return {"loss": loss / tokens, "accuracy": right / tokens}


def _rows(place: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (place / f"{split}.jsonl").read_text().splitlines()]


def _write_rows(folder: Path, rows: list[dict[str, str]]) -> None:
    at = 0
    for split, count in _SPLITS.items():
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows[at : at + count]))
        at += count


_FILES = {split: f"dataset://{split}.jsonl" for split in _SPLITS}

DOCUMENT: dict[str, Any] = {
    "kind": "causal-lm",
    "model": "tiny",
    "data": {**_FILES, "prompt": "question", "template": "{prompt}="},
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "max_length": 32,
}
PLAIN_DOCUMENT = {**DOCUMENT, "data": {**_FILES, "text": "text"}}

CASE = (write, DOCUMENT, measure, {"epochs": 20, "learning_rate": 1e-2, "dropout": 0.0}, {"accuracy": 0.5, "loss": 1.6})
LORA_CASE = (
    partial(write, tied=False),
    {**DOCUMENT, "lora": {"rank": 4, "dropout": 0.1}},
    measure,
    {"epochs": 40, "learning_rate": 3e-2, "dropout": 0.0},
    {"accuracy": 0.4, "loss": 4.7},  # the frozen part has random weights
)
EXPLODES = {"lora": {"rank": 4, "target_modules": ("lm_head",)}}
PLAIN_CASE = (write_plain, PLAIN_DOCUMENT, measure_plain, {"epochs": 20, "learning_rate": 1e-2}, {"accuracy": 0.7, "loss": 1.0})
