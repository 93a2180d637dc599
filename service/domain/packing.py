"""How many trials of a study share a GPU, where the study leaves that to be measured. Pure: worked out from the attempts alone.

The first two configurations have a GPU each. After that as many trials share one as fit into most of its memory, each taken to
need somewhat more than the hungriest attempt so far. The number only ever falls from there: when an attempt needs more than all
before it, or when one runs out of memory on a GPU that it shares.
"""

import json
from collections.abc import Mapping

from service.domain.attempts import Attempts
from service.domain.trial import AttemptOutcome, Trial

CONFIGURATIONS_FIRST = 2
"""Configurations that are measured, alone on a GPU, before any share one."""
MOST_ON_A_GPU = 8
USED_PART = 0.9
"""The part of a GPU's memory that trials are packed into."""
MARGIN = 1.2
"""By how much an attempt may need more than any before it."""

_SHARES = 10_000
"""Ray counts a GPU in parts of so many."""


def trials_per_gpu(trials: Mapping[int, Trial], attempts: Attempts) -> int:
    """How many trials may share a GPU, by what their attempts have come to so far; 1 until enough is measured."""
    tried = [(number, attempt) for number, each in attempts.items() for attempt in each]
    measured = [(number, one.peak_bytes, one.gpu_bytes) for number, one in tried if one.peak_bytes and one.gpu_bytes]
    if len({_configuration(trials[number]) for number, _, _ in measured}) < CONFIGURATIONS_FIRST:
        return 1
    room = fitting(max(peak for _, peak, _ in measured), min(total for _, _, total in measured))
    crowded = [sharing(one.gpus) - 1 for _, one in tried if one.outcome is AttemptOutcome.CROWDED]
    return max(1, min(room, *crowded, MOST_ON_A_GPU))


def fitting(peak_bytes: int, total_bytes: int) -> int:
    """Trials that fit into a GPU, when none needs more than the margin beyond this peak."""
    return int(total_bytes * USED_PART / (peak_bytes * MARGIN))


def share_of_gpu(trials: int) -> float:
    """What each of so many holds of a GPU: rounded down, as Ray would round some up and then place one less."""
    return _SHARES // trials / _SHARES


def sharing(gpus: float) -> int:
    """How many trials share a GPU of which each holds that much."""
    return int(1 / gpus) if 0 < gpus < 1 else 1


def _configuration(trial: Trial) -> str:
    return json.dumps(dict(trial.parameters), sort_keys=True)
