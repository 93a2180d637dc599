"""A tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, over the unit cube of a search space.

What was seen is split into a good and a bad part; a density is put over each, a Gaussian around every configuration in it with
a uniform one beside them; what the good density draws is ranked by how much likelier it is there than in the bad one. Our own,
as Optuna's rebuilds its trials one by one (100 ms of a decision after 1,000 trials against 5 ms), and as what no trial may have,
a configuration that was tried or that breaks a constraint, has to be left out before the ranking and not after it.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from search_spaces import CategoricalParameter, Configuration, Key, Space, count
from service.search.memory import all_of, key_of, unit_of

_GOOD_SHARE = 0.15
_MOST_GOOD = 25
_CANDIDATES = 24
_BATCHES = 20
"""Batches of candidates at most, until enough of them are new: in a small space most that a density draws was tried."""

_LISTED = 1000
"""Configurations of a space that is small enough to look at all of them."""

_WIDTH = 0.2
"""Width of the Gaussian around a single configuration, in the unit cube; Scott's rule makes it narrower with their number."""

_SAME = 1e-9
"""Choices are at least a thousandth apart."""

Floats = np.ndarray[Any, np.dtype[np.float64]]


def parzen_proposals(
    space: Space, ranked: Sequence[Configuration], pending: Sequence[Configuration], seen: Collection[Key], seed: int
) -> Iterator[Configuration]:
    """New configurations that meet the constraints, the most promising first; none when no candidate is one.

    `ranked` is what was seen, best first, two or more; `pending` counts as bad, which keeps proposals apart (constant liar).
    """
    random = np.random.default_rng(seed)
    most = min(_MOST_GOOD, max(2, math.ceil(_GOOD_SHARE * len(ranked))))
    axes = _Axes.of(space)
    good, bad = (
        _Density(axes, _points(space, [unit_of(space, one) for one in part]))
        for part in (ranked[:most], [*ranked[most:], *pending])
    )
    candidates = _candidates(space, good, seen, random)
    if not candidates:
        return
    points = _points(space, map(space.to_unit, candidates))
    gains = good.log(points) - bad.log(points)
    for place in np.argsort(-gains, kind="stable"):
        yield candidates[place]


def _candidates(space: Space, good: "_Density", seen: Collection[Key], random: np.random.Generator) -> list[Configuration]:
    """New configurations drawn from the good density."""
    size = space.size()
    if size is not None and size <= _LISTED:
        return _listed_candidates(space, size, good, seen, random)
    found: dict[Key, Configuration] = {}
    for _ in range(_BATCHES):
        for point in good.draw(_CANDIDATES, random):
            candidate = space.from_unit([float(coordinate) for coordinate in point])
            key = space.key(candidate)
            if key not in seen and key not in found and space.meets_constraints(candidate):
                found[key] = candidate
        if len(found) >= _CANDIDATES:
            break
    return list(found.values())[:_CANDIDATES]


def _listed_candidates(
    space: Space, size: int, good: "_Density", seen: Collection[Key], random: np.random.Generator
) -> list[Configuration]:
    """The same where all that are left can be listed: draws without replacement, none of them in vain."""
    left = [one for one in all_of(space, size) if key_of(space, one) not in seen]
    if not left:
        return []
    # The largest of logarithms with Gumbel noise on them are a draw without replacement.
    order = np.argsort(
        -(good.log(_points(space, [unit_of(space, one) for one in left])) + random.gumbel(size=len(left))), kind="stable"
    )
    return [left[place] for place in order[:_CANDIDATES]]


def _points(space: Space, units: Iterable[Sequence[float | None]]) -> Floats:
    """One row each, NaN for what is not active, and for what never varies: it tells nothing apart."""
    rows = [[math.nan if coordinate is None else coordinate for coordinate in unit] for unit in units]
    points = np.array(rows, dtype=np.float64).reshape(len(rows), len(space.names))
    points[:, [count(space.parameters[name]) == 1 for name in space.names]] = math.nan
    return points


@dataclass(frozen=True)
class _Axes:
    """For each parameter: how many choices without an order it has, 0 where its values have an order; how many of them vary."""

    choices: Floats
    varying: int

    @staticmethod
    def of(space: Space) -> "_Axes":
        parameters = [space.parameters[name] for name in space.names]
        choices = [
            float(count(one) or 0) if isinstance(one, CategoricalParameter) and not one.ordered else 0.0 for one in parameters
        ]
        return _Axes(np.array(choices), sum(count(one) != 1 for one in parameters))


class _Density:
    """A mixture over the unit cube: one kernel for each point, and a uniform one of the same weight."""

    def __init__(self, axes: _Axes, points: Floats) -> None:
        size = len(points)
        self._points = points
        self._choices = axes.choices
        self._is_choice = axes.choices > 0
        self._width = max(_WIDTH * max(size, 1) ** (-1 / (axes.varying + 4)), 1 / min(100, size + 1))
        # As in Optuna: a choice that was not seen gets a share of what its kernel has, less of it the more kernels there are.
        self._spread = axes.choices / (axes.choices + size + 1)
        # A kernel is cut off at the borders; what is left of it has to add up to 1.
        low, high = -points / self._width, (1 - points) / self._width
        self._below, self._inside = ndtr(low), ndtr(high) - ndtr(low)

    def draw(self, most: int, random: np.random.Generator) -> Floats:
        """So many points, one in each row."""
        uniform = random.random((most, self._points.shape[1]))
        kernels = random.integers(len(self._points) + 1, size=most)
        from_kernel = np.flatnonzero(kernels < len(self._points))
        rows = kernels[from_kernel]
        center, share = self._points[rows], uniform[from_kernel]
        inner = self._below[rows] + share * self._inside[rows]
        numbers = np.clip(center + self._width * ndtri(np.clip(inner, 1e-12, 1 - 1e-12)), 0.0, 1.0)
        keeps = random.random(center.shape) >= self._spread
        drawn = np.where(self._is_choice, np.where(keeps, center, share), numbers)
        uniform[from_kernel] = np.where(np.isnan(center), share, drawn)
        return uniform

    def log(self, points: Floats) -> Floats:
        """The logarithm of the density at each row of `points`; an axis where either is not active says nothing."""
        if not len(self._points):
            return np.zeros(len(points))
        away = points[:, None, :] - self._points[None]
        scaled = away / self._width
        numbers = -0.5 * scaled * scaled - math.log(self._width * math.sqrt(2 * math.pi)) - np.log(self._inside)[None]
        same = np.abs(away) < _SAME
        elsewhere = self._spread / np.maximum(self._choices, 1)
        # Relative to the uniform share of a choice, so that the uniform kernel has density 1 here too.
        chosen = np.log(np.maximum(self._choices * np.where(same, 1 - self._spread + elsewhere, elsewhere), 1e-300))
        each = np.where(np.isnan(away), 0.0, np.where(self._is_choice, chosen, numbers)).sum(axis=2)
        whole = np.concatenate([each, np.zeros((len(points), 1))], axis=1)
        return np.asarray(logsumexp(whole, axis=1) - math.log(whole.shape[1]))
