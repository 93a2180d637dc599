"""What can be asked for beside the common part, task by task."""

from typing import Literal, Self

from pydantic import Field, model_validator

from trainers.configs.rows import LabelledImages, LabelledText, SourceAndTarget, TaggedWords, TextOrPairs
from trainers.configs.training import Config, TrainingConfig

_LOSSES = {
    "single-label": ("cross_entropy", "focal"),
    "multi-label": ("bce", "focal"),
    "regression": ("mse", "huber"),
}


class TextAugmentation(Config):
    """Changes to training texts, drawn anew for each epoch; special tokens stay."""

    token_dropout: float = Field(default=0.0, ge=0, lt=1, description="Share of tokens that are left out.", examples=[0.1])
    span_masking: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Share of tokens hidden behind the mask token, in spans of 3 on average (Joshi et al. 2020).",
        examples=[0.1],
    )


class ImageAugmentation(Config):
    """Changes to training images, drawn anew for each epoch."""

    flip: float = Field(default=0.0, ge=0, le=1, description="Probability of a horizontal flip.", examples=[0.5])
    crop: float = Field(
        default=0.0, ge=0, lt=1, description="Largest share of the area that a random crop takes away.", examples=[0.2]
    )
    shift: float = Field(
        default=0.0, ge=0, lt=1, description="Largest shift in each direction, as a share of the side.", examples=[0.1]
    )
    erase: float = Field(
        default=0.0, ge=0, le=1, description="Probability that a rectangle is erased (Zhong et al. 2020).", examples=[0.25]
    )


class TextClassificationConfig(TrainingConfig):
    """Fine-tune an encoder with a head that gives each text one label, several labels or a number."""

    kind: Literal["text-classification"] = Field(
        description="A label, labels or a number for each text.", examples=["text-classification"]
    )
    data: LabelledText = Field(description="Where the rows are.")
    problem: Literal["single-label", "multi-label", "regression"] = Field(
        default="single-label",
        description="One label for each text, any number of labels, or a number.",
        examples=["single-label"],
    )
    loss: Literal["auto", "cross_entropy", "focal", "bce", "mse", "huber"] = Field(
        default="auto",
        description="`auto` is cross-entropy for one label, binary cross-entropy for several, squared error for numbers; `focal` "
        "(Lin et al. 2017) weighs easy rows down, `huber` far ones.",
        examples=["auto"],
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced` weighs each label by the inverse of how often it occurs.", examples=["none"]
    )
    focal_gamma: float = Field(default=2.0, ge=0, le=10, description="Focal loss's exponent.", examples=[2.0])
    huber_delta: float = Field(default=1.0, gt=0, le=1e6, description="Where Huber's loss turns linear.", examples=[1.0])
    max_length: int = Field(
        default=128, ge=4, le=32768, description="Tokens per text; longer texts are cut and counted.", examples=[128]
    )
    group_by_length: bool = Field(
        default=True, description="Put texts of similar length into a batch, which saves padding.", examples=[True]
    )
    augmentation: TextAugmentation = Field(
        default=TextAugmentation(), description="Changes to training texts.", examples=[{"token_dropout": 0.1}]
    )

    @model_validator(mode="after")
    def _loss_fits_the_problem(self) -> Self:
        fitting = _LOSSES[self.problem]
        if self.loss not in ("auto", *fitting):
            raise ValueError(f"`loss` {self.loss!r} is not for {self.problem}: use {' or '.join(repr(one) for one in fitting)}")
        if self.problem != "single-label" and self.label_smoothing:
            raise ValueError(f"`label_smoothing` is for single labels, not for {self.problem}: leave it out")
        if self.problem == "regression" and self.class_weights != "none":
            raise ValueError("`class_weights` are for labels, not for numbers: leave them out")
        return self


class TokenClassificationConfig(TrainingConfig):
    """Fine-tune an encoder with a head that tags each word, as in entity recognition and slot filling."""

    kind: Literal["token-classification"] = Field(description="A BIO tag for each word.", examples=["token-classification"])
    data: TaggedWords = Field(description="Where the rows are.")
    loss: Literal["cross_entropy", "focal"] = Field(
        default="cross_entropy", description="Loss of each word.", examples=["cross_entropy"]
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced` weighs each tag by the inverse of how often it occurs.", examples=["none"]
    )
    focal_gamma: float = Field(default=2.0, ge=0, le=10, description="Focal loss's exponent.", examples=[2.0])
    max_length: int = Field(
        default=128, ge=4, le=32768, description="Tokens per sentence; longer ones are cut and counted.", examples=[128]
    )
    group_by_length: bool = Field(
        default=True, description="Put sentences of similar length into a batch, which saves padding.", examples=[True]
    )
    augmentation: TextAugmentation = Field(
        default=TextAugmentation(),
        description="Changes to training sentences; the words' tags stay.",
        examples=[{"span_masking": 0.1}],
    )


class CausalLmConfig(TrainingConfig):
    """Fine-tune a decoder on texts or on instructions with answers."""

    kind: Literal["causal-lm"] = Field(description="The next token.", examples=["causal-lm"])
    data: TextOrPairs = Field(description="Where the rows are.")
    max_length: int = Field(
        default=512,
        ge=4,
        le=131_072,
        description="Tokens per row: plain text is packed to it, longer pairs are cut and counted.",
        examples=[512],
    )
    group_by_length: bool = Field(
        default=True, description="Put pairs of similar length into a batch, which saves padding.", examples=[True]
    )


class Seq2SeqConfig(TrainingConfig):
    """Fine-tune an encoder-decoder to turn texts into texts."""

    kind: Literal["seq2seq"] = Field(description="A text for each text.", examples=["seq2seq"])
    data: SourceAndTarget = Field(description="Where the rows are.")
    max_length: int = Field(
        default=256, ge=4, le=32768, description="Tokens per source; longer ones are cut and counted.", examples=[256]
    )
    max_target_length: int = Field(
        default=128, ge=2, le=32768, description="Tokens per target; longer ones are cut and counted.", examples=[128]
    )
    generated_rows: int = Field(
        default=0,
        ge=0,
        le=100_000,
        description="Validation rows, from the first on, for which text is written and compared at each report; 0 writes none.",
        examples=[100],
    )
    group_by_length: bool = Field(
        default=True, description="Put sources of similar length into a batch, which saves padding.", examples=[True]
    )


class ImageClassificationConfig(TrainingConfig):
    """Fine-tune or train a convolutional network or a vision transformer on images with one label each."""

    kind: Literal["image-classification"] = Field(description="One label for each image.", examples=["image-classification"])
    data: LabelledImages = Field(description="Where the images are.")
    image_size: int | None = Field(
        default=None, ge=8, le=1024, description="Side that images are scaled to; left out, the model's own.", examples=[32]
    )
    loss: Literal["cross_entropy", "focal"] = Field(
        default="cross_entropy", description="Loss of each image.", examples=["cross_entropy"]
    )
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="`balanced` weighs each label by the inverse of how often it occurs.", examples=["none"]
    )
    focal_gamma: float = Field(default=2.0, ge=0, le=10, description="Focal loss's exponent.", examples=[2.0])
    augmentation: ImageAugmentation = Field(
        default=ImageAugmentation(), description="Changes to training images.", examples=[{"flip": 0.5}]
    )
