"""What a trainer can be asked for. No torch here: the API reads these to validate a study."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BUILTIN_SPLITS = ("train", "validation", "test")


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TextData(_Config):
    """Which rows to train, validate and test on, and which columns hold the text and its label."""

    train: str = Field(
        min_length=1,
        description="Training rows: `dataset://NAME/FILE`, or `builtin://NAME`, with validation and test rows of its own.",
        examples=["dataset://banking77/train.csv"],
    )
    validation: str | None = Field(
        default=None,
        description="Validation rows; left out, `validation_fraction` of the training rows are held back.",
        examples=["dataset://banking77/validation.csv"],
    )
    test: str | None = Field(
        default=None,
        description="Test rows, never looked at while searching.",
        examples=["dataset://banking77/test.csv"],
    )
    text: str = Field(default="text", min_length=1, description="Column that holds the text.", examples=["text"])
    label: str = Field(default="label", min_length=1, description="Column that holds the label.", examples=["category"])
    validation_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the training rows held back for validation, stratified by label, where none are given.",
        examples=[0.1],
    )
    split_seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Seed of that split: the same for all trials, so that they are compared on the same rows.",
        examples=[0],
    )

    @model_validator(mode="before")
    @classmethod
    def _builtin_brings_its_splits(cls, value: Any) -> Any:
        """`train: builtin://api-docs` alone means all three of its splits."""
        if not isinstance(value, Mapping):
            return value
        train = value.get("train")
        if not isinstance(train, str) or not train.startswith("builtin://") or "/" in train.removeprefix("builtin://"):
            return value
        given = {key: item for key, item in value.items() if key != "train" and item is not None}
        return {**{split: f"{train}/{split}" for split in BUILTIN_SPLITS}, **given}

    def held_back(self, counts: Mapping[str, int]) -> dict[str, int]:
        """How many of each label's training rows go to validation: its share, but never its last row."""
        held: dict[str, int] = {}
        wanted = 0.0
        for label, count in sorted(counts.items()):
            wanted += self.validation_fraction * count
            held[label] = min(max(0, round(wanted) - sum(held.values())), count - 1)
        return held

    def without_brought_splits(self) -> dict[str, Any]:
        """The values without the validation and test rows that came with a built-in data set: another one brings its own."""
        name = self.train.removesuffix("/train")
        values = self.model_dump(mode="json")
        brought = [split for split in BUILTIN_SPLITS[1:] if self.train != name and values[split] == f"{name}/{split}"]
        return {**values, **dict.fromkeys(brought)}


class TextClassificationConfig(_Config):
    """Fine-tune an encoder with a classification head on texts with one label each."""

    kind: Literal["text-classification"] = Field(description="One label for each text.", examples=["text-classification"])
    model: str = Field(
        min_length=1,
        max_length=300,
        description="Base model: a Hugging Face name, or a folder under one of the service's model roots.",
        examples=["sentence-transformers/all-MiniLM-L6-v2"],
    )
    data: TextData = Field(description="Where the rows are.")
    learning_rate: float = Field(default=5e-5, gt=0, le=1, description="Peak learning rate.", examples=[5e-5])
    batch_size: int = Field(default=32, ge=1, le=4096, description="Texts per optimizer step.", examples=[32])
    epochs: int = Field(default=3, ge=1, le=1000, description="Passes over the training rows.", examples=[3])
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Share of all steps over which the learning rate rises.", examples=[0.1]
    )
    weight_decay: float = Field(default=0.01, ge=0, le=10, description="AdamW's weight decay.", examples=[0.01])
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout in the encoder and before the head.", examples=[0.1])
    frozen_layers: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Encoder layers, from the input, that keep their pretrained weights; from 1 on the embeddings too.",
        examples=[0],
    )
    max_length: int = Field(default=128, ge=4, le=32768, description="Tokens per text; longer texts are cut.", examples=[128])
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of the head's weights, of the order of rows and of dropout.", examples=[0]
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto",
        description="Number format of the training steps: `auto` is bf16 on GPUs and CPUs with matrix units for it, else fp32. "
        "Weights are kept, validated and exported in fp32.",
        examples=["auto"],
    )


TrainerConfig = TextClassificationConfig
"""The union of trainer configurations, told apart by `kind`."""

CONFIGS: Mapping[str, type[TrainerConfig]] = {"text-classification": TextClassificationConfig}
"""The configuration class of each kind."""

METRICS: Mapping[str, frozenset[str]] = {
    "text-classification": frozenset(
        {"validation/accuracy", "validation/f1_macro", "validation/loss", "train/loss", "train/learning_rate"}
    ),
}
"""What each trainer reports, by kind: the metrics an objective may name."""
