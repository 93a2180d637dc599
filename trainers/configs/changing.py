"""What of a configuration may change in the middle of a training: a state that was saved under one value loads under another."""

from collections.abc import Iterator

from pydantic import BaseModel

from trainers.configs.simulated import SimulatedConfig
from trainers.configs.tasks import ImageAugmentation, TextAugmentation
from trainers.configs.training import TrainingConfig, TrialConfig

_CHANGING = (
    "learning_rate", "weight_decay", "beta1", "beta2", "momentum", "layer_decay", "gradient_clip", "dropout",
    "attention_dropout", "label_smoothing", "class_weights", "focal_gamma", "huber_delta",
)  # fmt: skip
"""Numbers of the optimizer and of the loss, and shares of dropout.

Left out are those that decide which weights there are and which of them train (`model`, `lora.rank`, `frozen_layers`), what
they mean (`lora.alpha`: the network would jump), which rows make a batch and how far along the training is (`batch_size`,
`epochs`, `seed`, `schedule`, `warmup_fraction`), what is prepared of the rows (`data`, `max_length`), and what the state is of
(`optimizer`, `precision`). `loss` is left out as its scale is what divergence is told by.
"""


def changeable(config: TrialConfig) -> frozenset[str]:
    """The keys that may change, those of groups with dots."""
    return frozenset(_keys(config))


def _keys(config: TrialConfig) -> Iterator[str]:
    if isinstance(config, SimulatedConfig):
        yield from (f"values.{name}" for name in config.values.known)
    yield from (name for name in _CHANGING if name in type(config).model_fields)
    if isinstance(config, TrainingConfig) and config.lora is not None:
        yield "lora.dropout"
    augmentation: BaseModel | None = getattr(config, "augmentation", None)
    if isinstance(augmentation, TextAugmentation | ImageAugmentation):
        yield from (f"augmentation.{name}" for name in type(augmentation).model_fields)
