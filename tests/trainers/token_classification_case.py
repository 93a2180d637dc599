"""Journeys with the people and places in them, and a tiny BERT that writes most of these names in several tokens."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForTokenClassification, AutoTokenizer, BertConfig, BertModel, BertTokenizer

from trainers.metrics import entity_metrics

Sentence = list[tuple[str, str]]
"""Words with their tags."""

_PEOPLE = ("ada", "grace hopper", "alan turing", "emmy noether", "kurt")
_PLACES = ("paris", "new york", "buenos aires", "rome", "cape town")
_FORMS = (
    "{person} flew to {place}",
    "in {place} we met {person} and {friend}",
    "is {place} where {person} lives ?",
    "the train from {place} was late",
    "{person} and {friend} left {place} for good , and nobody there knows why they went",  # longer than the case's `max_length`
)
_PIECES = (
    "ada", "gra", "##ce", "hop", "##per", "al", "##an", "tur", "##ing", "em", "##my", "no", "##ether", "kurt", "pa", "##ris",
    "new", "york", "bue", "##nos", "air", "##es", "rome", "cape", "town",
)  # fmt: skip


def sentences() -> list[Sentence]:
    """Each once, in an order that mixes them; one in ten has a word that a tokenizer makes nothing of."""
    found: dict[tuple[tuple[str, str], ...], None] = {}
    for form, person, friend, place in itertools.product(_FORMS, _PEOPLE, _PEOPLE, _PLACES):
        names = {"{person}": ("PER", person), "{friend}": ("PER", friend), "{place}": ("LOC", place)}
        words = [tagged for word in form.split() for tagged in (_tagged(*names[word]) if word in names else [(word, "O")])]
        found[*words] = None
    rows = [list(words) for words in found]
    mixed = [rows[at] for at in np.random.default_rng(0).permutation(len(rows))]
    return [[("\u200d", "O"), *row] if at % 10 == 0 else row for at, row in enumerate(mixed)]


def write(folder: Path) -> None:
    rows = sentences()
    write_conll(folder / "train.conll", rows[:120])
    write_jsonl(folder / "validation.jsonl", rows[120:160])
    write_conll(folder / "test.conll", rows[160:190])
    (folder / "tiny").mkdir()
    make_tiny_tagger(folder / "tiny")


def write_conll(path: Path, rows: Sequence[Sentence]) -> None:
    path.write_text("\n\n".join("\n".join(f"{word}\t{tag}" for word, tag in row) for row in rows) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Sequence[Sentence]) -> None:
    lines = [json.dumps({"tokens": [word for word, _ in row], "tags": [tag for _, tag in row]}) for row in rows]
    path.write_text("\n".join(lines) + "\n")


def make_tiny_tagger(folder: Path) -> None:
    words = sorted({word for form in _FORMS for word in form.split() if not word.startswith("{")} - set(_PIECES))
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_PIECES, *words])}
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64, initializer_range=0.2,  # with BERT's own 0.02 so narrow a network hardly learns
    )  # fmt: skip
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


def measure(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    model: Any = AutoModelForTokenClassification.from_pretrained(exported).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    predicted, wanted, losses = [], [], []
    for row in _rows(place, split):
        encoded = tokenizer([word for word, _ in row], is_split_into_words=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            logits = model(**encoded).logits[0].double()
        found = ["O"] * len(row)
        seen: set[int] = set()
        for position, word in enumerate(encoded.word_ids()):
            if word is not None and word not in seen:
                seen.add(word)
                found[word] = model.config.id2label[int(logits[position].argmax())]
                losses.append(-float(logits[position].log_softmax(-1)[model.config.label2id[row[word][1]]]))
        predicted.append(found)
        wanted.append([tag for _, tag in row])
    return {**entity_metrics(predicted, wanted), "loss": sum(losses) / len(losses)}


def _rows(place: Path, split: str) -> list[Sentence]:
    if split == "validation":
        lines = (place / "validation.jsonl").read_text().splitlines()
        return [list(zip(row["tokens"], row["tags"], strict=True)) for row in map(json.loads, lines)]
    blocks = (place / f"{split}.conll").read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [[(word, tag) for word, tag in (line.split("\t") for line in block.split("\n"))] for block in blocks]


def _tagged(kind: str, name: str) -> Sentence:
    return [(word, f"{'I' if at else 'B'}-{kind}") for at, word in enumerate(name.split())]


DOCUMENT: dict[str, Any] = {
    "kind": "token-classification",
    "model": "tiny",
    "data": {"train": "dataset://train.conll", "validation": "dataset://validation.jsonl", "test": "dataset://test.conll"},
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "max_length": 20,
}

CASE = (write, DOCUMENT, measure, {"epochs": 10, "learning_rate": 1e-2, "dropout": 0.0}, {"f1": 0.9, "loss": 0.2})
LORA_CASE = (
    write,
    {**DOCUMENT, "lora": {"rank": 4, "dropout": 0.1}},
    measure,
    {"epochs": 20, "learning_rate": 3e-2, "dropout": 0.0},
    {"f1": 0.8, "loss": 0.5},  # the frozen part has random weights
)
