"""Intents of one label each, and a tiny BERT."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.tiny import make_tiny_encoder, write_intents


def write(folder: Path) -> None:
    (folder / "tiny").mkdir()
    make_tiny_encoder(folder / "tiny")
    write_intents(folder, train=120, validation=40, test=30)


def measure(exported: Path, place: Path, split: str) -> Mapping[str, float]:
    model: Any = AutoModelForSequenceClassification.from_pretrained(exported).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(exported)
    with (place / f"{split}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    with torch.inference_mode():
        logits = torch.stack(
            [model(**tokenizer(row["text"], return_tensors="pt", truncation=True)).logits.double()[0] for row in rows]
        )
    wanted = torch.tensor([model.config.label2id[row["label"]] for row in rows])
    return {
        "accuracy": float((logits.argmax(-1) == wanted).double().mean()),
        "loss": float(torch.nn.functional.cross_entropy(logits, wanted)),
    }


DOCUMENT: dict[str, Any] = {
    "kind": "text-classification",
    "model": "tiny",
    "data": {"train": "dataset://train.csv", "validation": "dataset://validation.csv", "test": "dataset://test.csv"},
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 5e-3,
    "max_length": 32,
}

CASE = (write, DOCUMENT, measure, {"epochs": 20, "learning_rate": 1e-2, "dropout": 0.0}, {"accuracy": 0.9, "loss": 0.5})
LORA_CASE = (
    write,
    {**DOCUMENT, "lora": {"rank": 4, "dropout": 0.1}},
    measure,
    {"epochs": 40, "learning_rate": 3e-2, "dropout": 0.0},
    {"accuracy": 0.5, "loss": 1.58},  # the frozen part has random weights; five labels by chance have 1.61
)
