"""The strategies that other tools have too, in our words."""

import math
from collections.abc import Generator, Mapping
from typing import Any, Literal

from search_spaces.importers.pieces import Note, Part, Pieces, between, nearest

_MODELS = ("tpe", "gp", "cmaes")
_HAS_STARTUP = ("tpe", "gp")
_UNDER_MEDIAN: Mapping[str, str] = {"random": "random", "tpe": "tpe", "gp": "gp", "cmaes": "tpe", "sobol": "random"}
"""What proposes the trials of which a median stops some."""


def sampled(sampler: str, startup: int | None = None) -> Part:
    """The strategy that proposes as `sampler` does, and trains each trial to its end."""
    return Part(
        "strategy", {"kind": "bayesian", "sampler": _sampler(sampler, startup)} if sampler in _MODELS else {"kind": sampler}
    )


def median(sampler: str, path: str, *, startup: int | None, grace: int, least: int) -> Pieces:
    """The strategy that proposes as `sampler` does, where that can be, and stops the trials below the median of the others."""
    proposes = _UNDER_MEDIAN[sampler]
    if proposes != sampler:
        yield Note(path, f"`{sampler}` goes without early stopping here: changed to `{proposes}`, which goes with it")
    yield from between(grace, 1, 1000, path, "grace_reports")
    yield from between(least, 1, 1000, path, "min_trials")
    found = {"kind": "median", "grace_reports": nearest(grace, 1, 1000), "min_trials": nearest(least, 1, 1000)}
    yield Part("strategy", {**found, "sampler": _sampler(proposes, startup)})


def lowest_rung(longest: float, factor: float, cuts: int) -> float:
    """How far trials train that are cut so many times before the last of them are `longest`."""
    # By logarithms, as powers of what a file may hold overflow.
    return math.exp(math.log(longest) - cuts * math.log(factor))


def hyperband(path: str, *, mode: Literal["sync", "async"], factor: float, least: float, sampler: str) -> Pieces:
    """Rungs from `least` reports on, each `factor` times as far as the one below."""
    yield from between(factor, 2, 10, path, "reduction_factor")
    shortest = max(1, math.floor(least + 1e-9))
    yield from between(shortest, 1, 1000, path, "min_epochs")
    yield Part(
        "strategy",
        {
            "kind": "hyperband",
            "mode": mode,
            "reduction_factor": nearest(factor, 2, 10),
            "min_epochs": nearest(shortest, 1, 1000),
            "sampler": {"kind": sampler},
        },
    )


def members(path: str, count: int) -> Generator[Note, None, dict[str, Any]]:
    """A population of so many."""
    yield from between(count, 2, 200, path, "population")
    return {"population": nearest(count, 2, 200)}


def quantile(path: str, share: float) -> Generator[Note, None, dict[str, Any]]:
    """The share of a population that goes and the one that is copied: beyond a half they would be the same members."""
    if 0 < share <= 0.5:  # noqa: PLR2004 - a half
        return {"quantile": share}
    yield Note(path, f"the share that is replaced is above 0 and at most 0.5 here, not {share:g}: `quantile` stays 0.25")
    return {}


def _sampler(kind: str, startup: int | None) -> dict[str, Any]:
    return {"kind": kind} if startup is None or kind not in _HAS_STARTUP else {"kind": kind, "startup_trials": startup}
