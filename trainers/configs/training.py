"""What every trainer can be asked for, whatever its task."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Measure = Literal["megabytes", "latency_ms"]
MEASURES: tuple[Measure, ...] = ("megabytes", "latency_ms")
"""What can be measured of a model beside how well it does."""

_Steps = Annotated[int, Field(ge=1, le=10_000_000)]


class Config(BaseModel):
    """Strict: what is not understood is refused, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Lora(Config):
    """Low-rank adapters beside frozen weights (Hu et al. 2021), exported alone and merged."""

    rank: int = Field(default=8, ge=1, le=1024, description="Rank of each adapter.", examples=[8])
    alpha: float = Field(default=16.0, gt=0, le=4096, description="The adapters' scale is `alpha / rank`.", examples=[16.0])
    dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout before each adapter.", examples=[0.05])
    target_modules: tuple[str, ...] | Literal["auto", "all-linear"] = Field(
        default="auto",
        description="Names of the linear layers that get an adapter: `auto` takes those usual for the architecture, or else all.",
        examples=[["q_proj", "v_proj"]],
    )


class EarlyStopping(Config):
    """End a trial by itself once it no longer gets better."""

    patience: int = Field(ge=1, le=1000, description="Reports in a row without a gain after which the trial ends.", examples=[3])
    min_gain: float = Field(
        default=0.0, ge=0, description="Smallest change of the objective that counts as a gain.", examples=[0.001]
    )


class TrialConfig(Config):
    """How long a trial is, when it reports and when it ends by itself: what all trainers share, with a model or without."""

    epochs: int = Field(default=3, ge=1, le=1000, description="Passes over the training rows.", examples=[3])
    max_steps: _Steps | None = Field(
        default=None,
        description="Optimizer steps in all, in place of `epochs`; goes with a `report_every` in steps.",
        examples=[2000],
    )
    report_every: Literal["epoch"] | _Steps = Field(
        default="epoch",
        description="Validate, report and checkpoint every epoch, or every so many optimizer steps (then `max_steps` says where "
        "training ends). Rungs, budgets and checkpoints count reports.",
        examples=["epoch"],
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="End a trial that no longer gets better by the study's objective.", examples=[{"patience": 3}]
    )
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="Seed of new weights, of the order of rows and of dropout.", examples=[0]
    )

    @model_validator(mode="after")
    def _steps_go_together(self) -> Self:
        if (self.report_every == "epoch") != (self.max_steps is None):
            raise ValueError("`max_steps` and a `report_every` in steps go together: set both, or neither")
        return self

    @property
    def reports(self) -> int:
        """Reports of a trial that runs to its end."""
        if self.report_every == "epoch":
            return self.epochs
        assert self.max_steps is not None  # noqa: S101 - validated above
        return -(-self.max_steps // self.report_every)


class TrainingConfig(TrialConfig):
    """Model, optimisation and loop: the part that all trainers of a model share."""

    model: str = Field(
        min_length=1,
        max_length=300,
        description="Base model: a Hugging Face name, a folder under one of the service's model roots, or `builtin://NAME`.",
        examples=["sentence-transformers/all-MiniLM-L6-v2"],
    )
    initialisation: Literal["pretrained", "random"] = Field(
        default="pretrained",
        description="Start from the model's weights, or from random ones drawn by `seed`: then its configuration is enough.",
        examples=["pretrained"],
    )
    learning_rate: float = Field(default=5e-5, gt=0, le=10, description="Peak learning rate.", examples=[5e-5])
    batch_size: int = Field(default=32, ge=1, le=4096, description="Rows per optimizer step.", examples=[32])
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Rows computed at once; gradients of the micro-batches of a batch are added up. Left out, the whole batch; "
        "halved by itself where memory is short.",
        examples=[8],
    )
    optimizer: Literal["adamw", "sgd", "adafactor"] = Field(
        default="adamw", description="AdamW (fused), SGD with Nesterov momentum, or Adafactor.", examples=["adamw"]
    )
    beta1: float = Field(default=0.9, ge=0, lt=1, description="AdamW's decay of the first moment.", examples=[0.9])
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's decay of the second moment.", examples=[0.999])
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD's momentum.", examples=[0.9])
    weight_decay: float = Field(
        default=0.01, ge=0, le=10, description="Decay of weight matrices; never of biases.", examples=[0.01]
    )
    schedule: Literal["linear", "cosine", "constant", "one_cycle"] = Field(
        default="linear",
        description="The learning rate after the warm-up: down to zero linearly or by a cosine, constant, or one cycle "
        "(Smith 2018: up from a 25th of the peak and down to a 10,000th by cosines).",
        examples=["linear"],
    )
    warmup_fraction: float = Field(
        default=0.1, ge=0, lt=1, description="Share of all steps over which the learning rate rises.", examples=[0.1]
    )
    layer_decay: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Factor on the learning rate from each layer to the one below it (Howard and Ruder 2018).",
        examples=[0.9],
    )
    gradient_clip: float = Field(
        default=1.0, ge=0, le=1000, description="Largest norm of a step's gradient; 0 does not clip.", examples=[1.0]
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Dropout in the network and before the head.", examples=[0.1])
    attention_dropout: float | None = Field(
        default=None, ge=0, lt=1, description="Dropout of attention weights; left out, the same as `dropout`.", examples=[0.1]
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Share of the target spread over all classes.", examples=[0.1]
    )
    frozen_layers: Annotated[int, Field(ge=0, le=1000)] | Literal["all"] = Field(
        default=0,
        description="Layers, from the input, that keep their weights; from 1 on the embeddings too. `all` trains the head alone.",
        examples=[0],
    )
    freeze_embeddings: bool = Field(default=False, description="Keep the embeddings' weights.", examples=[False])
    unfreeze_per_epoch: int = Field(
        default=0,
        ge=0,
        le=1000,
        description="Gradual unfreezing (Howard and Ruder 2018): start with the head alone and let so many more layers train "
        "each epoch, from the top, down to `frozen_layers`; 0 trains them from the start.",
        examples=[0],
    )
    lora: Lora | None = Field(
        default=None, description="Train low-rank adapters in place of the weights.", examples=[{"rank": 8, "alpha": 16.0}]
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        default="auto",
        description="Number format of the training steps: `auto` is bf16 on GPUs and CPUs with matrix units for it, else fp32. "
        "Weights are kept, validated and exported in fp32.",
        examples=["auto"],
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations twice to keep fewer of them in memory.", examples=[False]
    )
    compile: bool = Field(default=False, description="Compile the model with `torch.compile`.", examples=[False])
    divergence_factor: float = Field(
        default=20.0,
        gt=1,
        le=1e6,
        description="A step's loss above so many times the highest of the first ten ends the trial as diverged.",
        examples=[20.0],
    )
    measure: tuple[Measure, ...] = Field(
        default=(),
        max_length=2,
        description="What each report says of the model too, measured once: `model/megabytes`, the size of its exported weights "
        "(adapters merged), and `model/latency_ms`, the median time of a validation row of median length on the trial's device. "
        "What an objective or an outcome of a study names is added by itself.",
        examples=[["megabytes", "latency_ms"]],
    )

    @model_validator(mode="after")
    def _parts_go_together(self) -> Self:
        if self.lora is not None and (self.frozen_layers or self.unfreeze_per_epoch or self.freeze_embeddings):
            raise ValueError("`lora` freezes all weights but the adapters and the head: leave out the other freezing")
        if self.lora is not None and self.initialisation == "random":
            raise ValueError("`lora` adapts pretrained weights: take out `initialisation: random`")
        return self
