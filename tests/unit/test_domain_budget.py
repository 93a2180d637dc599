"""What a study may spend: how it is written, and when it is spent."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from service.domain.budget import Budget, Spending, may_add_trial, may_train, time_is_up


def a_budget(**limits: Any) -> Budget:
    return Budget.model_validate(limits)


def spent(trials: int = 0, epochs: float = 0, seconds: float = 0, gpu_seconds: float = 0) -> Spending:
    return Spending(trials, epochs, seconds, gpu_seconds)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1d2h3m4s", 93784), ("1.5h", 5400),
        ("0.5s", 0.5), ("30m1h", 5400), (90, 90), (0.25, 0.25), ("366d", 366 * 86400),
    ],
)  # fmt: skip
def test_a_duration_is_read(written: Any, seconds: float) -> None:
    assert a_budget(wall_clock=written).wall_clock == seconds


@pytest.mark.parametrize(
    "written",
    [
        "", "2", "h", "2 h", " 2h", "2h ", "2H", "-2h", "1h-30m", "2.h", ".5h", "2w", "1e3s", "two hours", "2h\n", "nan", "inf",
        "0s", "0h0m", 0, -1, "367d", 366 * 86400 + 1, "9" * 400 + "d", True, [], {}, float("nan"), float("inf"),
    ],
)  # fmt: skip
def test_what_is_no_duration_is_refused(written: Any) -> None:
    with pytest.raises(ValidationError):
        a_budget(wall_clock=written)


@given(seconds=st.integers(1, 366 * 86400))
def test_a_duration_survives_being_written_and_read(seconds: int) -> None:
    budget = a_budget(wall_clock=f"{seconds}s")
    assert Budget.model_validate_json(budget.model_dump_json()) == budget
    assert budget.wall_clock == seconds


@pytest.mark.parametrize(
    "limits",
    [
        {"trials": 0}, {"trials": 100_001}, {"trials": 1.5}, {"trials": "4"}, {"trials": True}, {"epochs": 0}, {"epochs": -1.0},
        {"gpu_hours": 0}, {"target": "best"}, {"target": float("nan")}, {"target": float("inf")}, {"epochs": float("inf")},
        {"cost": 5},
    ],
)  # fmt: skip
def test_a_limit_that_makes_no_sense_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        a_budget(**limits)


@pytest.mark.parametrize(
    ("limits", "is_bounded"),
    [
        ({}, False), ({"target": 0.9}, False), ({"trials": 1}, True), ({"epochs": 0.5}, True), ({"wall_clock": "1s"}, True),
        ({"gpu_hours": 0.1}, True), ({"trials": 1, "target": 0.9}, True),
    ],
)  # fmt: skip
def test_a_budget_is_bounded_by_all_but_its_target(limits: dict[str, Any], *, is_bounded: bool) -> None:
    assert a_budget(**limits).is_bounded is is_bounded


@pytest.mark.parametrize(
    ("limits", "spending", "is_up"),
    [
        ({}, spent(10, 10, 1e9, 1e9), False),
        ({"trials": 1, "epochs": 1}, spent(10, 10, 0, 0), False),
        ({"wall_clock": "1m"}, spent(seconds=59.9), False),
        ({"wall_clock": "1m"}, spent(seconds=60), True),
        ({"gpu_hours": 2}, spent(gpu_seconds=7199), False),
        ({"gpu_hours": 2}, spent(gpu_seconds=7200), True),
        ({"gpu_hours": 2, "wall_clock": "1h"}, spent(seconds=3600, gpu_seconds=1), True),
    ],
)
def test_time_is_up_once_wall_clock_or_gpu_time_is_spent(limits: dict[str, Any], spending: Spending, *, is_up: bool) -> None:
    assert time_is_up(a_budget(**limits), spending) is is_up


@pytest.mark.parametrize(
    ("limits", "spending", "epochs", "may"),
    [
        ({}, spent(epochs=1e9), 1e9, True),
        ({"epochs": 9}, spent(epochs=6), 3, True),
        ({"epochs": 9}, spent(epochs=6), 3.5, False),
        ({"epochs": 9}, spent(epochs=9), 0, True),
        ({"epochs": 0.3}, spent(epochs=0.1 + 0.1), 0.1, True),
        ({"epochs": 9, "wall_clock": "1m"}, spent(seconds=60), 1, False),
        ({"trials": 1}, spent(trials=5), 1, True),
    ],
)
def test_an_attempt_may_train_while_its_epochs_are_left(
    limits: dict[str, Any], spending: Spending, epochs: float, *, may: bool
) -> None:
    assert may_train(a_budget(**limits), spending, epochs) is may


@pytest.mark.parametrize(("limits", "trials", "may"), [({}, 10**9, True), ({"trials": 3}, 2, True), ({"trials": 3}, 3, False)])
def test_a_trial_may_be_added_while_there_are_any_left(limits: dict[str, Any], trials: int, *, may: bool) -> None:
    assert may_add_trial(a_budget(**limits), spent(trials=trials)) is may


@given(limit=st.floats(0.1, 1e6), used=st.floats(0, 1e6), more=st.floats(0, 100), less=st.floats(0, 1))
def test_who_may_train_long_may_train_shorter_too(limit: float, used: float, more: float, less: float) -> None:
    budget = a_budget(epochs=limit)
    if may_train(budget, spent(epochs=used), more):
        assert may_train(budget, spent(epochs=used), more * less)
