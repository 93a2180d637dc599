"""Predictions of a pulled checkpoint with transformers alone: run as a script, so that nothing of ours is imported.

python predict.py ./best test.parquet text label 6  ->  one JSON object on stdout
"""

import json
import sys
from typing import Any

import pandas as pd
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

_BATCH = 64


def main() -> None:
    folder, rows_path, text_column, label_column, shown = sys.argv[1:]
    tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        folder, use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    model.eval()
    rows: Any = pd.read_parquet(rows_path) if rows_path.endswith(".parquet") else pd.read_csv(rows_path)
    texts, labels = [str(text) for text in rows[text_column]], [str(label) for label in rows[label_column]]
    predicted, probability = [], []
    for start in range(0, len(texts), _BATCH):
        batch = tokenizer(texts[start : start + _BATCH], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            highest, places = model(**batch).logits.softmax(-1).max(-1)
        predicted += [str(model.config.id2label[place]) for place in places.tolist()]
        probability += highest.tolist()
    correct = [one == other for one, other in zip(predicted, labels, strict=True)]
    sys.stdout.write(
        json.dumps(
            {
                "accuracy": sum(correct) / len(correct),
                "rows": len(correct),
                "samples": [
                    {"text": texts[at], "label": labels[at], "predicted": predicted[at], "probability": probability[at]}
                    for at in _spread(labels, int(shown))
                ],
            }
        )
    )


def _spread(labels: list[str], count: int) -> list[int]:
    """Positions of the first rows of different labels: not chosen by how well they come out."""
    first: dict[str, int] = {}
    for position, label in enumerate(labels):
        first.setdefault(label, position)
    return sorted(first.values())[:count]


if __name__ == "__main__":
    main()
