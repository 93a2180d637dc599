"""Numbers in words and in digits, and a tiny T5 and BART that know a word for each token."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, pre_tokenizers, processors
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from trainers.metrics import exact_match, rouge_l

_SPLITS = {"train": 96, "validation": 24, "test": 12}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_SPECIAL = {"<pad>": 0, "</s>": 1, "<unk>": 2, "<s>": 3}


def words(*, start: bool) -> PreTrainedTokenizerFast:
    """A token for each word; with `start` a text begins with <s>, and always ends with </s>."""
    vocabulary = [*_SPECIAL, "say:", *_DIGITS, *map(str, range(10))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = "<s> $A </s>" if start else "$A </s>"
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=[("<s>", 3), ("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", bos_token="<s>", model_max_length=64
    )


def write_t5(folder: Path) -> None:
    folder.mkdir()
    tokenizer = words(start=False)
    torch.manual_seed(0)
    T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=0,
            pad_token_id=0, eos_token_id=1,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)


def write_bart(folder: Path, *, tied: bool = True) -> None:
    folder.mkdir()
    tokenizer = words(start=True)
    torch.manual_seed(0)
    BartForConditionalGeneration(
        BartConfig(
            vocab_size=len(tokenizer), d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=64, init_std=0.1,
            pad_token_id=0, eos_token_id=1, bos_token_id=3, decoder_start_token_id=1, forced_eos_token_id=1,
            tie_word_embeddings=tied,
        )
    ).save_pretrained(folder)  # fmt: skip
    tokenizer.save_pretrained(folder)


def numbers() -> list[tuple[str, str]]:
    """Sources and targets, each once, of one to three digits."""
    rows = [(" ".join(_DIGITS[int(digit)] for digit in number), " ".join(number)) for number in map(str, range(1000))]
    return [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]


def write(folder: Path) -> None:
    write_t5(folder / "tiny")
    _write_rows(folder)


def write_for_bart(folder: Path, *, tied: bool = True) -> None:
    write_bart(folder / "tiny", tied=tied)
    _write_rows(folder)


@torch.inference_mode()
def measure(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    """Rows one by one, with the model's own loss; the first ten written."""
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(exported).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    rows = [json.loads(line) for line in (place / f"{split}.jsonl").read_text().splitlines()]
    loss, right, tokens, written = 0.0, 0, 0, []
    for number, row in enumerate(rows):
        source = tokenizer(f"say: {row['source']}", return_tensors="pt")
        labels = tokenizer(text_target=row["target"], return_tensors="pt").input_ids
        output = model(input_ids=source.input_ids, attention_mask=source.attention_mask, labels=labels)
        right += int((output.logits.argmax(-1) == labels).sum())
        loss += float(output.loss) * labels.numel()
        tokens += labels.numel()
        if number < 10:
            made = model.generate(input_ids=source.input_ids, max_new_tokens=8, num_beams=1, do_sample=False)
            written.append(tokenizer.decode(made[0], skip_special_tokens=True))
    wanted = [row["target"] for row in rows[:10]]
    return {
        "loss": loss / tokens,
        "accuracy": right / tokens,
        "exact_match": exact_match(written, wanted),
        "rouge_l": rouge_l(written, wanted),
    }


def _write_rows(folder: Path) -> None:
    at = 0
    for split, count in _SPLITS.items():
        rows = [json.dumps({"source": source, "target": target}) for source, target in numbers()[at : at + count]]
        (folder / f"{split}.jsonl").write_text("".join(f"{row}\n" for row in rows))
        at += count


DOCUMENT: dict[str, Any] = {
    "kind": "seq2seq",
    "model": "tiny",
    "data": {**{split: f"dataset://{split}.jsonl" for split in _SPLITS}, "prefix": "say: "},
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "max_length": 8,
    "max_target_length": 8,
    "generated_rows": 10,
}

CASE = (write, DOCUMENT, measure, {"epochs": 20, "learning_rate": 1e-2, "dropout": 0.0}, {"accuracy": 0.45, "rouge_l": 0.5})
BART_CASE = (
    write_for_bart,
    DOCUMENT,
    measure,
    {"epochs": 15, "dropout": 0.0},
    {"accuracy": 0.9, "exact_match": 0.9, "rouge_l": 0.9, "loss": 0.3},
)
LORA_CASE = (
    partial(write_for_bart, tied=False),
    {**DOCUMENT, "lora": {"rank": 4, "dropout": 0.1}},
    measure,
    {"epochs": 15, "learning_rate": 1e-2, "dropout": 0.0},
    {"loss": 2.5, "rouge_l": 0.2},  # the frozen part has random weights
)
EXPLODES = {"lora": {"rank": 4, "target_modules": ("lm_head",)}}
