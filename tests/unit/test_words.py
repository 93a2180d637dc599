from datetime import timedelta

import pytest

from service.cli.words import STATE_STYLES, configuration, duration, number, run_name, scalar, short_names, since, trial_state
from service.domain.sizes import size
from service.domain.study import StudyState
from service.domain.trial import TrialState
from tests.builders import NOW


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5e-5, "2.5e-5"),
        (1e-3, "0.001"),
        (0.00063, "6.3e-4"),
        (0.1234567, "0.123"),
        (16, "16"),
        (True, "true"),
        (1.5e12, "1.5e12"),
    ],
)
def test_a_parameter_is_shown_in_few_characters(value: float, text: str) -> None:
    assert scalar(value) == text


def test_a_model_is_shown_without_its_owner() -> None:
    assert scalar("sentence-transformers/all-MiniLM-L6-v2") == "all-MiniLM-L6-v2"


@pytest.mark.parametrize(
    ("value", "text"), [(0.92306, "0.9231"), (0.0, "0.0000"), (1.234e-7, "1.23e-7"), (None, "-"), (float("nan"), "nan")]
)
def test_a_metric_is_shown_with_four_decimals_unless_they_say_nothing(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (65, "1m 05s"), (7800, "2h 10m"), (86400 * 3 + 3600 * 4, "3d 4h")]
)
def test_a_duration_is_shown_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_runs_is_timed_until_now() -> None:
    assert since(NOW, None, NOW + timedelta(seconds=9)) == "9s"


def test_what_has_not_started_has_no_duration() -> None:
    assert since(None, None, NOW) == "-"


@pytest.mark.parametrize(("count", "text"), [(999, "999 B"), (90_900_000, "90.9 MB"), (2_500_000_000, "2.5 GB")])
def test_a_size_is_shown_in_the_largest_fitting_unit(count: int, text: str) -> None:
    assert size(count) == text


def test_short_names_of_two_parameters_are_never_alike() -> None:
    names = short_names(["learning_rate", "lower_rank", "dropout", "dropped"])
    assert names == {"learning_rate": "lr", "lower_rank": "lower_rank", "dropout": "drop", "dropped": "dropped"}


def test_a_configuration_uses_the_short_names_it_is_given() -> None:
    assert configuration({"learning_rate": 3e-5, "batch_size": 16}, {"learning_rate": "lr"}) == "lr 3e-5 · batch_size 16"


def test_a_reason_is_shown_only_where_the_state_does_not_say_it() -> None:
    assert trial_state("pruned", "rung_cut") == "pruned"
    assert trial_state("failed", "diverged") == "failed: diverged"
    assert trial_state("infeasible", "out_of_memory") == "infeasible: out_of_memory"
    assert trial_state("completed", "no_improvement") == "completed: no_improvement"


def test_every_state_has_a_style() -> None:
    assert {*TrialState, *StudyState} <= set(STATE_STYLES)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (0.04, "0.04s"), (0.42, "0.42s"), (3.14, "3.1s"), (12.7, "12s")])
def test_a_fine_duration_tells_short_ones_apart(seconds: float, text: str) -> None:
    assert duration(seconds, fine=True) == text


def test_a_run_of_the_final_is_named_with_the_trial_whose_configuration_it_trains() -> None:
    assert run_name(7, None) == "trial 7"
    assert run_name(24, 1) == "trial 24, a run of trial 1's configuration in the final"
