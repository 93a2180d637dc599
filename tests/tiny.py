"""A tiny encoder and a tiny task, made on the spot: real enough to train, small enough for a test."""

import csv
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_STARTS = ("please", "could you", "i want to", "how do i", "is it possible to", "tell me how to", "can i", "help me")
_ENDS = ("today", "right now", "again", "this week", "from here", "on my own", "without a fee", "abroad")
_INTENTS = {
    "card": ("block my card", "order a new card", "activate the card", "find my lost card"),
    "transfer": ("send money to a friend", "cancel a transfer", "move money between accounts", "repeat the last transfer"),
    "balance": ("see my balance", "check how much money is left", "show the account's total", "read my balance aloud"),
    "loan": ("borrow money", "pay back the loan", "ask for a mortgage", "lower the rate of my loan"),
    "travel": ("use the card in spain", "tell you about my trip", "get foreign cash", "pay in another currency"),
}


def intents() -> list[tuple[str, str]]:
    """Texts and their labels, each text once, in an order that mixes the labels."""
    rows = [
        (f"{start} {wish} {end}", label)
        for label, wishes in _INTENTS.items()
        for start, wish, end in itertools.product(_STARTS, wishes, _ENDS)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows[at] for at in order]


def write_intents(folder: Path, *, train: int = 240, validation: int = 80, test: int = 0) -> None:
    """Write `train.csv`, `validation.csv` and, where it gets rows, `test.csv`, with columns `text` and `label`."""
    rows = intents()
    _write(folder / "train.csv", rows[:train])
    _write(folder / "validation.csv", rows[train : train + validation])
    if test:
        _write(folder / "test.csv", rows[train + validation : train + validation + test])


def make_tiny_encoder(folder: Path, layers: int = 2, width: int = 32) -> None:
    """Write a BERT, of some thousand parameters if it is not made wider, with random weights and the intents' words."""
    import torch  # noqa: PLC0415 - tests that only want rows do not pay for it
    from transformers import BertConfig, BertModel, BertTokenizer  # noqa: PLC0415

    words = sorted({word for text, _ in intents() for word in text.replace("'", " ' ").split()})
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=max(2, width // 64),
        intermediate_size=2 * width,
        max_position_embeddings=64,
        initializer_range=0.02 if width > 32 else 0.2,  # with BERT's own 0.02 so narrow a network hardly learns
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)


def _write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        writer.writerows(rows)
