"""What a trainer can be asked for. No torch here: the API reads these to validate a study."""

from collections.abc import Mapping
from typing import Annotated, assert_never

from pydantic import Field

from trainers.configs.changing import changeable
from trainers.configs.rows import (
    BUILTIN_SPLITS,
    CleanText,
    LabelledImages,
    LabelledText,
    SourceAndTarget,
    Splits,
    TaggedWords,
    TextOrPairs,
)
from trainers.configs.simulated import METRIC_PATTERN, SimulatedConfig, condition_of, expression_of
from trainers.configs.tasks import (
    CausalLmConfig,
    ImageAugmentation,
    ImageClassificationConfig,
    Seq2SeqConfig,
    TextAugmentation,
    TextClassificationConfig,
    TokenClassificationConfig,
)
from trainers.configs.training import MEASURES, Config, EarlyStopping, Lora, TrainingConfig, TrialConfig

__all__ = [
    "BUILTIN_SPLITS", "CONFIGS", "MEASURES", "METRIC_PATTERN", "CausalLmConfig", "CleanText", "Config", "EarlyStopping",
    "FineTuningConfig", "ImageAugmentation", "ImageClassificationConfig", "LabelledImages", "LabelledText", "Lora",
    "Seq2SeqConfig", "SimulatedConfig", "SourceAndTarget", "Splits", "TaggedWords", "TextAugmentation",
    "TextClassificationConfig", "TextOrPairs", "TokenClassificationConfig", "TrainerConfig", "TrainingConfig",
    "TrialConfig", "changeable", "condition_of", "expression_of", "metrics_of", "metrics_to_name",
]  # fmt: skip

FineTuningConfig = (
    TextClassificationConfig | TokenClassificationConfig | CausalLmConfig | Seq2SeqConfig | ImageClassificationConfig
)
"""The union of those that train a model on rows."""

TrainerConfig = Annotated[FineTuningConfig | SimulatedConfig, Field(discriminator="kind")]
"""The union of trainer configurations, told apart by `kind`."""

CONFIGS: Mapping[str, type[TrainerConfig]] = {
    "text-classification": TextClassificationConfig,
    "token-classification": TokenClassificationConfig,
    "causal-lm": CausalLmConfig,
    "seq2seq": Seq2SeqConfig,
    "image-classification": ImageClassificationConfig,
    "simulated": SimulatedConfig,
}
"""The configuration class of each kind."""

_TRAINING = frozenset({"train/loss", "train/learning_rate"})


def metrics_of(config: TrainerConfig) -> frozenset[str]:
    """What the trainer reports under this configuration: the metrics that an objective may name."""
    if isinstance(config, SimulatedConfig):
        return config.reported
    return _TRAINING | {f"validation/{name}" for name in _validated(config)} | {f"model/{name}" for name in config.measure}


def metrics_to_name(config: TrainerConfig) -> frozenset[str]:
    """Those, and what would be reported if it were asked for by its name."""
    asked = MEASURES if isinstance(config, TrainingConfig) else ()
    return metrics_of(config) | {f"model/{name}" for name in asked}


def _validated(config: FineTuningConfig) -> frozenset[str]:
    found = {"loss"}
    match config:
        case TextClassificationConfig(problem="multi-label"):
            found |= {"accuracy", "f1_micro", "f1_macro"}
        case TextClassificationConfig(problem="regression"):
            found |= {"rmse", "mae", "r2", "pearson", "spearman"}
        case TextClassificationConfig() | ImageClassificationConfig():
            found |= {"accuracy", "f1_macro"}
        case TokenClassificationConfig():
            found |= {"accuracy", "f1", "precision", "recall", "f1_macro"}
        case CausalLmConfig():
            found |= {"perplexity", "accuracy"}
        case Seq2SeqConfig():
            found |= {"perplexity", "accuracy"} | ({"exact_match", "rouge_l"} if config.generated_rows else set())
        case _:
            assert_never(config)
    return frozenset(found)
