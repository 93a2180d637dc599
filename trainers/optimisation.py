"""Optimizers and learning-rate schedules."""

import math
from collections.abc import Sequence
from typing import Any, assert_never

import torch
from torch import nn

from trainers.configs import TrainingConfig
from trainers.freezing import depths

_CYCLE_START = 25.0
_CYCLE_END = 1e4
"""One cycle begins at the peak divided by the first and ends at its beginning divided by the second (torch's OneCycleLR)."""


def make_optimizer(
    model: nn.Module, settings: TrainingConfig, parameters: Sequence[tuple[str, nn.Parameter]]
) -> torch.optim.Optimizer:
    """An optimizer of these parameters. Matrices decay, biases and norms do not; `scale` of a group multiplies its rate.

    With `layer_decay` each layer's rate is that factor of the one above it (Howard and Ruder 2018).
    """
    depth_of, top = depths(model) if settings.layer_decay < 1 else ({}, 0)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters:
        scale = settings.layer_decay ** (top - depth_of.get(name, top))
        groups.setdefault((scale, parameter.ndim > 1), []).append(parameter)
    made: list[dict[str, Any]] = [
        {"params": members, "weight_decay": settings.weight_decay if decays else 0.0, "scale": scale}
        for (scale, decays), members in groups.items()
    ]
    rate = settings.learning_rate
    match settings.optimizer:
        case "adamw":
            # `fused` makes a step of MiniLM on one core take 0.02 s, 0.13 s without.
            return torch.optim.AdamW(made, lr=rate, betas=(settings.beta1, settings.beta2), fused=True)
        case "sgd":
            return torch.optim.SGD(made, lr=rate, momentum=settings.momentum, nesterov=settings.momentum > 0)
        case "adafactor":
            return torch.optim.Adafactor(made, lr=rate)
        case _:
            assert_never(settings.optimizer)


def rate_factor(settings: TrainingConfig, step: int, total: int) -> float:
    """The learning rate of the step after `step` others, as a share of the peak; `total` steps in all."""
    warmup = int(settings.warmup_fraction * total)
    if settings.schedule == "one_cycle":
        return _one_cycle(step, warmup, total)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left = (total - step) / (total - warmup)
    match settings.schedule:
        case "linear":
            return left
        case "cosine":
            return 0.5 * (1 - math.cos(math.pi * left))
        case "constant":
            return 1.0
        case _:
            assert_never(settings.schedule)


def _one_cycle(step: int, warmup: int, total: int) -> float:
    start, end = 1 / _CYCLE_START, 1 / _CYCLE_START / _CYCLE_END
    if step < warmup:
        return _cosine(start, 1.0, step / warmup)
    return _cosine(1.0, end, (step - warmup) / max(1, total - 1 - warmup))


def _cosine(begin: float, end: float, share: float) -> float:
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2
