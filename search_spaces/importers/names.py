"""What other tools' users call the settings and metrics that our trainers have names for."""

import re
from collections.abc import Mapping
from typing import Any

KEYS = frozenset({
    "model", "initialisation", "learning_rate", "batch_size", "micro_batch_size", "epochs", "max_steps", "report_every",
    "optimizer", "beta1", "beta2", "momentum", "weight_decay", "schedule", "warmup_fraction", "layer_decay", "gradient_clip",
    "dropout", "attention_dropout", "label_smoothing", "frozen_layers", "freeze_embeddings", "unfreeze_per_epoch", "lora.rank",
    "lora.alpha", "lora.dropout", "lora.target_modules", "precision", "gradient_checkpointing", "compile",
    "early_stopping.patience", "early_stopping.min_gain", "divergence_factor", "seed", "problem", "loss", "class_weights",
    "focal_gamma", "huber_delta", "max_length", "group_by_length", "augmentation.token_dropout", "augmentation.span_masking",
    "augmentation.flip", "augmentation.crop", "augmentation.shift", "augmentation.erase", "max_target_length", "generated_rows",
    "image_size", "measure",
})  # fmt: skip
"""The keys of the trainers' configurations that a search space may name. What is where the rows are is the user's to say."""

WHOLE = frozenset({
    "batch_size", "micro_batch_size", "epochs", "max_steps", "unfreeze_per_epoch", "lora.rank", "early_stopping.patience", "seed",
    "max_length", "max_target_length", "generated_rows", "image_size",
})  # fmt: skip
"""Those that are whole numbers."""

_ALIASES: Mapping[str, str] = {
    alias: key
    for key, aliases in {
        "model": "model_name model_name_or_path pretrained_model pretrained_model_name pretrained_model_name_or_path base_model "
        "model_checkpoint backbone",
        "learning_rate": "lr learningrate base_lr init_lr initial_lr initial_learning_rate max_lr peak_lr learn_rate",
        "batch_size": "bs batch batchsize train_batch_size train_bs per_device_train_batch_size per_gpu_train_batch_size "
        "global_batch_size",
        "micro_batch_size": "microbatch_size micro_bs train_micro_batch_size_per_gpu",
        "epochs": "epoch num_epochs num_epoch n_epochs nb_epochs max_epochs train_epochs num_train_epochs number_epochs",
        "max_steps": "num_steps train_steps max_train_steps num_train_steps total_steps",
        "optimizer": "optim optimiser optimizer_name optimizer_type optimizer.name optimizer.type",
        "beta1": "adam_beta1 beta_1 b1",
        "beta2": "adam_beta2 beta_2 b2",
        "weight_decay": "wd weightdecay",
        "schedule": "scheduler lr_scheduler lr_schedule lr_scheduler_type scheduler_type scheduler.name scheduler.type",
        "warmup_fraction": "warmup_ratio warmup_proportion warmup_frac",
        "layer_decay": "layerwise_lr_decay layer_wise_lr_decay llrd lr_layer_decay layerwise_decay",
        "gradient_clip": "max_grad_norm grad_clip gradient_clip_val clip_norm grad_clip_norm gradient_clipping clip_grad_norm",
        "dropout": "dropout_rate drop_rate hidden_dropout hidden_dropout_prob dropout_prob dropout_p",
        "attention_dropout": "attn_dropout attention_probs_dropout_prob attention_dropout_prob attn_pdrop",
        "label_smoothing": "label_smoothing_factor label_smooth",
        "frozen_layers": "freeze_layers num_frozen_layers n_frozen_layers layers_to_freeze",
        "lora.rank": "lora_r lora_rank lora.r",
        "lora.alpha": "lora_alpha lora.lora_alpha",
        "lora.dropout": "lora_dropout lora.lora_dropout",
        "max_length": "max_seq_length max_seq_len max_len seq_len seq_length sequence_length maxlen",
        "max_target_length": "max_target_len target_max_length",
        "seed": "random_seed random_state rng_seed",
        "focal_gamma": "gamma_focal focal_loss_gamma",
        "image_size": "img_size image_resolution",
        "early_stopping.patience": "early_stopping_patience",
        "precision": "mixed_precision",
    }.items()
    for alias in aliases.split()
}

_VALUES: Mapping[str, Mapping[str, str]] = {
    "optimizer": {
        "sgd": "sgd",
        "adafactor": "adafactor",
        **dict.fromkeys(("adamw", "adam", "adamw_torch", "adamw_torch_fused", "adamw_hf", "adam_w", "adam-w"), "adamw"),
        "sgd_momentum": "sgd",
    },
    "schedule": {
        **dict.fromkeys(
            ("cosine_decay", "cosineannealing", "cosineannealinglr", "cosine_annealing", "cosine_with_warmup"), "cosine"
        ),
        **dict.fromkeys(("linear", "linear_decay", "linear_with_warmup"), "linear"),
        **dict.fromkeys(("constant", "none", "constant_with_warmup"), "constant"),
        **dict.fromkeys(("onecycle", "onecyclelr", "1cycle"), "one_cycle"),
    },
    "precision": {
        **dict.fromkeys(("float32", "32", "no", "32-true"), "fp32"),
        **dict.fromkeys(("bfloat16", "bf16-mixed"), "bf16"),
        **dict.fromkeys(("float16", "16", "16-mixed"), "fp16"),
    },
}

_SPLITS: Mapping[str, str] = {
    **dict.fromkeys(("val", "valid", "validation", "eval", "evaluation", "dev"), "validation"),
    **dict.fromkeys(("train", "training"), "train"),
    "test": "test",
}
_METRICS: Mapping[str, str] = {
    **{name: name for name in (
        "loss", "accuracy", "perplexity", "f1", "f1_macro", "f1_micro", "precision", "recall", "rmse", "mae", "r2", "pearson",
        "spearman", "exact_match", "rouge_l", "learning_rate",
    )},
    "acc": "accuracy", "top1": "accuracy", "top1_accuracy": "accuracy", "ppl": "perplexity", "macro_f1": "f1_macro",
    "micro_f1": "f1_micro", "em": "exact_match", "rougel": "rouge_l", "rouge_lsum": "rouge_l", "f1_score": "f1", "r2_score": "r2",
    "root_mean_squared_error": "rmse", "mean_absolute_error": "mae", "pearsonr": "pearson", "spearmanr": "spearman",
}  # fmt: skip


def plain_name(name: str) -> str:
    """A parameter's name without dashes and humps: `--learningRate` is `learning_rate`."""
    joined = re.sub(r"[\s\-/]+", "_", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip().lstrip("-")))
    return joined.strip("_").lower() or name


def key_of(name: str) -> str | None:
    """The trainers' key that a parameter's name stands for; of a nested one the last part may say it."""
    whole = plain_name(name)
    for candidate in (whole, whole.rpartition(".")[2]):
        if candidate in KEYS or candidate in _ALIASES:
            return _ALIASES.get(candidate, candidate)
    return None


def value_of(key: str, value: Any) -> Any:
    """The value that a key of ours has in place of another tool's, however that is capitalised."""
    return _VALUES[key].get(str(value).lower(), value) if key in _VALUES else value


def metric_of(name: str) -> str | None:
    """The metric of ours that a name stands for; one without a split is the validation rows'. None where nothing obvious is."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip()).lower())
    splits = {_SPLITS[word] for word in words if word in _SPLITS}
    metric = _METRICS.get("_".join(word for word in words if word and word not in _SPLITS))
    split = splits.pop() if len(splits) == 1 else None if splits else "validation"
    if metric is None or split not in ("validation", "train") or (split == "train" and metric not in ("loss", "learning_rate")):
        return None
    return f"{split}/{metric}"
