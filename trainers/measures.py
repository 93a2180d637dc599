"""What is measured of a model beside how well it does: the size of its export, and how long a row takes."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch

from trainers.configs import TrainingConfig
from trainers.features import FrozenFeatures
from trainers.models import exported_bytes

_WARM_UPS = 3
_WARM_UP_SECONDS = 0.1
_REPEATS = 20
_SECONDS = 0.4
"""A row that takes long is timed less often, at least once."""


def measured(
    model: Any, settings: TrainingConfig, run: Callable[[], object], features: FrozenFeatures | None = None
) -> Mapping[str, float]:
    """What `settings.measure` asks for; `run` computes one row with `model`, which is in evaluation mode, in fp32.

    As who uses the export would: adapters cost nothing, as they are merged there, and the frozen layers are computed.
    """
    found = {}
    if "megabytes" in settings.measure:
        found["model/megabytes"] = exported_bytes(model, settings) / 1e6
    if "latency_ms" in settings.measure:
        with ExitStack() as as_exported, torch.inference_mode():
            if settings.lora is not None:
                as_exported.enter_context(model.disable_adapter())
            if features is not None:
                as_exported.enter_context(features.put_aside())
            found["model/latency_ms"] = 1000 * _median_seconds(run)
    return found


def median_row(lengths: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]) -> int:
    """A row of median length."""
    return int(np.argsort(np.asarray(lengths), kind="stable")[len(lengths) // 2])


def _median_seconds(run: Callable[[], object]) -> float:
    _timed(run, _WARM_UPS, _WARM_UP_SECONDS)
    return statistics.median(_timed(run, _REPEATS, _SECONDS))


def _timed(run: Callable[[], object], most: int, seconds: float) -> list[float]:
    """The seconds of each run, of `most` or as many as begin in that time."""
    found: list[float] = []
    while len(found) < most and sum(found) < seconds:
        begun = time.perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - begun)
    return found
