"""Whether two sets of measurements differ by more than their noise: Welch's t-test, and Holm's correction for several of them."""

import math
from collections.abc import Sequence
from statistics import fmean, variance

_FEWEST = 2
_CLOSE = 1e-14
_TINY = 1e-300
_MOST_TERMS = 10_000


def welch(one: Sequence[float], other: Sequence[float]) -> float | None:
    """The two-sided p-value for equal means (Welch 1947); None for fewer than two measurements of either.

    Equal measurements have no noise to hide in: different means then have the p-value 0.
    """
    if min(len(one), len(other)) < _FEWEST:
        return None
    gap = abs(fmean(one) - fmean(other))
    errors = [variance(each) / len(each) for each in (one, other)]
    error = sum(errors)
    if gap == 0 or error == 0:
        return 1.0 if gap == 0 else 0.0
    shares = [part / error for part in errors]  # as squares of small errors are too small for a float
    freedom = 1 / sum(share**2 / (len(each) - 1) for share, each in zip(shares, (one, other), strict=True))
    ratio = gap / math.sqrt(error)
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + ratio * ratio))


def holm(chances: Sequence[float]) -> list[float]:
    """The p-values of several tests, each as large as it has to be for one false alarm in any of them (Holm 1979)."""
    adjusted = [0.0] * len(chances)
    largest = 0.0
    for place, at in enumerate(sorted(range(len(chances)), key=lambda at: chances[at])):
        largest = max(largest, min(1.0, (len(chances) - place) * chances[at]))
        adjusted[at] = largest
    return adjusted


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (DLMF 8.17.22)."""
    if x <= 0 or x >= 1:
        return 0.0 if x <= 0 else 1.0
    if x > (a + 1) / (a + b + 2):  # where the fraction converges slowly, the other tail is the same one mirrored
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    return front * _fraction(a, b, x) / a


def _fraction(a: float, b: float, x: float) -> float:
    """By the modified Lentz algorithm (Thompson & Barnett 1986)."""
    above, below = 1.0, _away_from_zero(1 - (a + b) * x / (a + 1))
    below = 1 / below
    found = below
    for term in range(1, _MOST_TERMS):
        for step in (
            term * (b - term) * x / ((a + 2 * term - 1) * (a + 2 * term)),
            -(a + term) * (a + b + term) * x / ((a + 2 * term) * (a + 2 * term + 1)),
        ):
            below = 1 / _away_from_zero(1 + step * below)
            above = _away_from_zero(1 + step / above)
            found *= above * below
        if abs(above * below - 1) < _CLOSE:
            break
    return found


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
