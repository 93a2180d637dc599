"""The peer of our trainers: `transformers.Trainer`, with its defaults but for what is named here."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def text_classifier(
    model: Any,
    tokenizer: Any,
    rows: Mapping[str, Sequence[tuple[str, int]]],
    output: Path,
    *,
    max_length: int,
    arguments: Mapping[str, Any],
    **parts: Any,
) -> Any:
    """It, ready to train: `rows` has texts and labels of `train` and `validation`; `arguments` and `parts` are its own."""
    # Seconds that measurements without it need not pay.
    from transformers import DataCollatorWithPadding, Trainer, TrainingArguments  # noqa: PLC0415

    def tokenised(split: str) -> Any:
        ids = tokenizer([text for text, _ in rows[split]], truncation=True, max_length=max_length)["input_ids"]
        return [{"input_ids": one, "labels": label} for one, (_, label) in zip(ids, rows[split], strict=True)]

    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output),
            per_device_eval_batch_size=64,
            eval_strategy="epoch",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=tokenised("train"),
        eval_dataset=tokenised("validation"),
        data_collator=DataCollatorWithPadding(tokenizer),
        **parts,
    )
    trainer.log = lambda *_, **__: None  # it prints
    return trainer
