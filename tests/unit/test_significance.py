"""Whether measurements differ: against what SciPy says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.significance import holm, incomplete_beta, welch

VALUES = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=20)


@pytest.mark.parametrize(
    ("one", "other", "chance"),
    [
        ([0.91, 0.92, 0.93], [0.90, 0.91, 0.92], 0.2878641347),  # scipy.stats.ttest_ind(..., equal_var=False)
        ([1.0, 2.0, 3.0, 4.0, 5.0], [11.0, 12.0, 20.0], 0.0503536341),
        ([0.5, 0.7], [0.1, 0.2, 0.3], 0.0941481776),
        ([0.81, 0.82, 0.80, 0.83], [0.79, 0.84, 0.75, 0.90], 0.8886591200),
    ],
)
def test_welchs_test_says_what_scipy_says(one: list[float], other: list[float], chance: float) -> None:
    assert welch(one, other) == pytest.approx(chance, abs=1e-9)


@given(one=VALUES, other=VALUES)
def test_a_chance_is_one_and_does_not_depend_on_the_order(one: list[float], other: list[float]) -> None:
    found = welch(one, other)
    assert found is not None
    assert 0 <= found <= 1
    assert found == pytest.approx(welch(other, one), abs=1e-12)


@given(values=VALUES, shift=st.floats(0.1, 10))
def test_a_larger_gap_is_less_likely_by_chance(values: list[float], shift: float) -> None:
    nearer, farther = (welch(values, [value + gap for value in values]) for gap in (shift, 3 * shift))
    assert nearer is not None
    assert farther is not None
    assert farther <= nearer + 1e-12


def test_one_measurement_tells_nothing() -> None:
    assert welch([0.9], [0.1, 0.2]) is None


def test_measurements_without_noise_differ_or_are_the_same() -> None:
    assert welch([0.5, 0.5], [0.5, 0.5]) == 1.0
    assert welch([0.5, 0.5], [0.6, 0.6]) == 0.0


def test_noise_too_small_to_be_squared_is_noise_still() -> None:
    found = welch([1e-200, 2e-200, 3e-200], [1e-200, 2e-200, 4e-200])
    assert found is not None
    assert math.isfinite(found)


@given(chances=st.lists(st.floats(0, 1), max_size=10))
def test_holms_correction_keeps_the_order_and_makes_nothing_more_certain(chances: list[float]) -> None:
    found = holm(chances)
    assert all(raw <= adjusted <= 1 for raw, adjusted in zip(chances, found, strict=True))
    assert [adjusted for _, adjusted in sorted(zip(chances, found, strict=True))] == sorted(found)


def test_holms_correction_of_known_chances() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


@given(a=st.floats(0.5, 50), b=st.floats(0.5, 50), x=st.floats(0, 1))
def test_the_two_tails_of_the_beta_function_make_one(a: float, b: float, x: float) -> None:
    assert incomplete_beta(a, b, x) + incomplete_beta(b, a, 1 - x) == pytest.approx(1, abs=1e-9)
