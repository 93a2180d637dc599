"""One small case of each trainer, for the contract that all of them keep: a model made on the spot, rows, and a judge."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tests.trainers import (
    causal_lm_case,
    image_classification_case,
    seq2seq_case,
    simulated_case,
    text_classification_case,
    token_classification_case,
)
from trainers.configs import TrainerConfig
from trainers.contract import Goal, Interruption, Trainer, TrialContext, make_trainer

DEVICE = os.environ.get("TUNEYARD_TEST_DEVICE", "cpu")
"""Where the cases train: `make test-gpu` says `cuda`."""


@dataclass(frozen=True)
class Case:
    """A trainer at its smallest.

    `write` puts model `tiny` and data files into a folder. `document` is a configuration over them, three epochs of a few steps
    each, with rows of all three splits. `measure` computes metrics, without prefix, of an exported folder on a split with
    transformers alone. `learns` changes the configuration into one that reaches `reaches`.
    """

    name: str
    write: Callable[[Path], None]
    document: Mapping[str, Any]
    measure: Callable[[Path, Path, str], Mapping[str, float]]
    learns: Mapping[str, Any]
    reaches: Mapping[str, float]
    """Metrics that end at least as high as this, the loss at most."""
    alone: Mapping[str, Any] = field(default_factory=dict)
    """Changes under which what is made of a row does not depend on its batch: frozen batch normalisation."""
    explodes: Mapping[str, Any] = field(default_factory=dict)
    """Changes under which too high a learning rate makes the loss explode: adapters before a norm cannot."""


CASES = [
    Case("text-classification", *text_classification_case.CASE),
    Case("text-classification-lora", *text_classification_case.LORA_CASE),
    Case("token-classification", *token_classification_case.CASE),
    Case("token-classification-lora", *token_classification_case.LORA_CASE),
    Case("image-classification-resnet", *image_classification_case.RESNET_CASE, alone={"frozen_layers": "all"}),
    Case("image-classification-vit", *image_classification_case.VIT_CASE),
    Case("image-classification-vit-lora", *image_classification_case.LORA_CASE),
    Case("causal-lm", *causal_lm_case.CASE),
    Case("causal-lm-lora", *causal_lm_case.LORA_CASE, explodes=causal_lm_case.EXPLODES),
    Case("causal-lm-plain", *causal_lm_case.PLAIN_CASE),
    Case("seq2seq-t5", *seq2seq_case.CASE),
    Case("seq2seq-bart-lora", *seq2seq_case.LORA_CASE, explodes=seq2seq_case.EXPLODES),
    Case("seq2seq-bart", *seq2seq_case.BART_CASE),
]
ALL_CASES = [*CASES, Case("simulated", *simulated_case.CASE)]
"""Those that train nothing too."""


def a_config(case: Case, **changes: Any) -> TrainerConfig:
    config: TrainerConfig = TypeAdapter(TrainerConfig).validate_python({**case.document, **changes})
    return config


def sources_of(config: TrainerConfig, place: Path) -> Mapping[str, Path]:
    named = {} if config.data is None else config.data.named
    return {name: place / name.removeprefix("dataset://") for name in named.values()}


def a_trainer(case: Case, place: Path, interrupted_at: int | None = None, goal: Goal | None = None, **changes: Any) -> Trainer:
    """At its `interrupted_at`-th look, counted from 0, the trainer is asked to pause, once. `place` is where `write` wrote."""
    looks = iter(range(1_000_000))
    config = a_config(case, **changes)
    context = TrialContext(
        cache=place / "cache",
        sources=sources_of(config, place),
        models={} if config.model is None else {config.model: place / config.model},
        device=DEVICE,
        goal=goal,
        interruption=lambda: Interruption.PAUSE if next(looks) == interrupted_at else None,
    )
    return make_trainer(config, context)
