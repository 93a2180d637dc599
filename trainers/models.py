"""Pretrained models with a new head, and which of their parts stay as they are."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging as transformers_logging

from trainers.contract import TrainerError

_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "classifier_dropout_prob",
    "hidden_dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "dropout",
    "seq_classif_dropout",
    "pooler_dropout",
    "summary_last_dropout",
    "cls_dropout",
)
"""What the encoders of transformers call their dropout probabilities."""

_EXPORTED = frozenset({".safetensors", ".json", ".txt"})

# A new head is what fine-tuning starts from, and progress bars of one file are noise in a worker's log.
transformers_logging.set_verbosity_error()
transformers_logging.disable_progress_bar()
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a pretrained model. Raises TrainerError."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError("trainer_error", f"The tokenizer of {folder.name} cannot be loaded: {error}") from error


def load_classifier(folder: Path, labels: Sequence[str], dropout: float) -> Any:
    """A pretrained encoder with a new head for `labels`, in fp32; the head comes from torch's random state.

    `dropout` is set wherever the architecture has one. Raises TrainerError for a model that has no such head.
    """
    names = dict(enumerate(labels))
    try:
        config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        for name in _DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
        config.num_labels = len(labels)
        config.id2label = names
        config.label2id = {label: number for number, label in names.items()}
        config.problem_type = "single_label_classification"
        return AutoModelForSequenceClassification.from_pretrained(
            folder,
            config=config,
            dtype="float32",
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # a head for other labels is replaced
        )
    except (OSError, ValueError, KeyError) as error:
        raise TrainerError("trainer_error", f"The model {folder.name} cannot be loaded as a classifier: {error}") from error


def freeze_layers(model: Any, count: int) -> None:
    """Keep the embeddings and the first `count` encoder layers as they are; 0 freezes nothing.

    Raises TrainerError when the encoder has fewer layers.
    """
    if count == 0:
        return
    layers = encoder_layers(model)
    if count > len(layers):
        raise TrainerError("trainer_error", f"`frozen_layers` is {count}, but the encoder has {len(layers)} layers: lower it.")
    for part in (_embeddings(model), *layers[:count]):
        part.requires_grad_(requires_grad=False)


def encoder_layers(model: Any) -> list[nn.Module]:
    """The encoder's layers, from the input on."""
    lists = [list(module) for module in model.base_model.modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise TrainerError("trainer_error", f"{type(model).__name__} has no list of layers: set `frozen_layers` to 0.")
    return max(lists, key=len)


def export_model(model: Any, tokenizer: Any, max_length: int, folder: Path) -> None:
    """Write weights, configuration and tokenizer so that `from_pretrained(folder)` loads them; no pickle."""
    model.save_pretrained(folder)
    tokenizer.model_max_length = max_length  # who predicts with it cuts where training cut
    tokenizer.save_pretrained(folder)
    if (folder / "tokenizer.json").is_file():
        # It holds everything; the older formats beside it may be binary.
        for path in [path for path in folder.iterdir() if path.suffix not in _EXPORTED]:
            path.unlink()


def _embeddings(model: Any) -> nn.Module:
    embeddings = getattr(model.base_model, "embeddings", None)
    return embeddings if isinstance(embeddings, nn.Module) else model.get_input_embeddings()
