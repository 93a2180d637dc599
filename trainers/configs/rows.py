"""Which rows to train, validate and test on."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from trainers.configs.training import Config

BUILTIN_SPLITS = ("train", "validation", "test")


class Splits(Config):
    """Where the rows of each split are; what is not given is held back from the training rows by a seed."""

    train: str = Field(
        min_length=1,
        description="Training rows: `dataset://NAME/FILE`, `hub://OWNER/NAME/SPLIT`, or `builtin://NAME`, with validation and "
        "test rows of its own.",
        examples=["dataset://banking77/train.csv"],
    )
    validation: str | None = Field(
        default=None,
        description="Validation rows; left out, `validation_fraction` of the training rows are held back.",
        examples=["dataset://banking77/validation.csv"],
    )
    test: str | None = Field(
        default=None,
        description="Test rows, never looked at while searching: a trial's last report says how its best export does on them.",
        examples=["dataset://banking77/test.csv"],
    )
    validation_fraction: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="Share of the training rows held back for validation, stratified by label, where none are given.",
        examples=[0.1],
    )
    test_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of the training rows held back for the test where no test rows are given; 0 tests nothing.",
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

    @model_validator(mode="after")
    def _some_rows_are_left(self) -> "Splits":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError("`validation_fraction` and `test_fraction` leave no row to train on: lower them")
        return self

    @property
    def named(self) -> dict[str, str]:
        """The sources that are named, by split."""
        named = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: name for split, name in named.items() if name is not None}

    def held_back(self, counts: Mapping[str, int], fraction: float | None = None) -> dict[str, int]:
        """How many of each label's training rows go to validation: its share, but never its last row."""
        fraction = self.validation_fraction if fraction is None else fraction
        held: dict[str, int] = {}
        wanted = 0.0
        for label, count in sorted(counts.items()):
            wanted += fraction * count
            held[label] = min(max(0, round(wanted) - sum(held.values())), count - 1)
        return held

    def without_brought_splits(self) -> dict[str, Any]:
        """The values without the validation and test rows that came with a built-in data set: another one brings its own."""
        name = self.train.removesuffix("/train")
        values = self.model_dump(mode="json")
        brought = [split for split in BUILTIN_SPLITS[1:] if self.train != name and values[split] == f"{name}/{split}"]
        return {**values, **dict.fromkeys(brought)}


class CleanText(Splits):
    """Rows of text, and how it is normalised before it is compared and tokenised."""

    normalise: Literal["none", "nfc", "nfkc"] = Field(
        default="nfc", description="Unicode normal form that texts are brought to.", examples=["nfc"]
    )
    collapse_whitespace: bool = Field(
        default=False, description="Make every run of white space a single space.", examples=[False]
    )
    lowercase: bool = Field(default=False, description="Write all texts in lower case.", examples=[False])


class LabelledText(CleanText):
    """Texts, or pairs of texts, with their labels."""

    text: str = Field(default="text", min_length=1, description="Column that holds the text.", examples=["text"])
    text_pair: str | None = Field(
        default=None,
        min_length=1,
        description="Column that holds the second text of a pair, such as an answer.",
        examples=["answer"],
    )
    label: str = Field(default="label", min_length=1, description="Column that holds the label.", examples=["category"])
    label_separator: str = Field(
        default="|",
        min_length=1,
        max_length=8,
        description="What stands between the labels of one row where a multi-label column is text; lists need none.",
        examples=["|"],
    )


class TaggedWords(CleanText):
    """Sentences as lists of words, with a BIO tag for each word. In a CoNLL file the columns have no names."""

    tokens: str = Field(
        default="tokens",
        min_length=1,
        description="Column with the words: a list, or text with spaces between.",
        examples=["tokens"],
    )
    tags: str = Field(
        default="tags",
        min_length=1,
        description="Column with their tags: a list, or text with spaces between.",
        examples=["tags"],
    )


class TextOrPairs(CleanText):
    """Plain texts, or instructions with their answers."""

    text: str | None = Field(
        default=None, min_length=1, description="Column of plain text, packed to full length.", examples=["text"]
    )
    prompt: str = Field(
        default="prompt",
        min_length=1,
        description="Column with the instruction, where there is no `text`.",
        examples=["question"],
    )
    answer: str = Field(
        default="answer",
        min_length=1,
        description="Column with the answer: the loss counts its tokens alone.",
        examples=["answer"],
    )
    template: str = Field(
        default="{prompt}\n",
        max_length=10_000,
        description="What the model reads before the answer; `{prompt}` stands for the instruction. `chat` uses the tokenizer's "
        "own chat template.",
        examples=["Question: {prompt}\nAnswer: "],
    )

    @model_validator(mode="after")
    def _template_has_the_prompt(self) -> "TextOrPairs":
        if self.template != "chat" and "{prompt}" not in self.template:
            raise ValueError("`template` has no {prompt} in it: say where the instruction goes, or name `chat`")
        return self


class SourceAndTarget(CleanText):
    """Texts and what each is to become."""

    source: str = Field(default="source", min_length=1, description="Column with the text to read.", examples=["question"])
    target: str = Field(default="target", min_length=1, description="Column with the text to write.", examples=["answer"])
    prefix: str = Field(
        default="",
        max_length=1000,
        description="What stands before each source, such as T5's task prefixes.",
        examples=["summarize: "],
    )


class LabelledImages(Splits):
    """Images with their labels: a zip with a folder for each label, or a table with a column of images."""

    image: str = Field(
        default="image",
        min_length=1,
        description="Column of a table that holds encoded images, or lists of grey values; a zip needs none.",
        examples=["pixels"],
    )
    label: str = Field(
        default="label",
        min_length=1,
        description="Column of a table that holds the label; in a zip the folder is.",
        examples=["label"],
    )
