"""Forecasts by simulation: that they say what is sure, and are right about as often as they claim."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from benchmarks.forecast import ENDS, STRATEGIES
from benchmarks.forecast import foretold as benchmark
from search_spaces import Configuration
from service.domain.budget import Budget
from service.domain.forecast import Band, Course, Forecast, is_due, scored
from service.domain.history import History
from service.domain.standing import Standing, losses, overhead_seconds, under_way
from service.domain.study import Study
from service.domain.trial import Attempt, AttemptOutcome, TrialReason, TrialState
from service.search import simulate
from service.search.draws import random_of
from service.search.forecast import COURSES, courses
from service.search.simulate import Seconds
from tests.builders import NOW, a_forecast, a_trial
from tests.unit.test_search_decide import a_search, accuracy


def a_standing(study: Study, reports: int, seconds: Seconds | float = 10.0, **world: Any) -> Standing:
    """The study after so many reports."""
    part = simulate(study, accuracy, workers=2, seconds=seconds, stop_after_reports=reports, **world)
    return Standing(study.definition, part.history, NOW + timedelta(seconds=part.seconds), part.seconds, 2)


def foretold(standing: Standing, most: int = 12) -> Forecast:
    found, elapsed = courses(standing, most=most), standing.elapsed_seconds
    return Forecast.of(found, at=standing.now, elapsed_seconds=elapsed, ended=0, slots=2, export_bytes=None)


def a_world(seed: int) -> Seconds:
    """Trials differ in speed, and so do the reports of one."""
    luck, speeds = random_of(seed, 0, "world"), dict[float, float]()

    def seconds(parameters: Configuration, _: int) -> float:
        rate = parameters["learning_rate"]
        assert isinstance(rate, float)
        return speeds.setdefault(rate, luck.lognormvariate(0, 0.4)) * luck.lognormvariate(0, 0.2)

    return seconds


def test_of_40_studies_at_least_28_end_within_their_80_percent_band() -> None:
    inside = 0
    for seed in range(40):
        study = a_search({"kind": "hyperband" if seed % 2 else "random"}, epochs=3, seed=seed, budget={"trials": 9})
        standing = a_standing(study, 8, a_world(seed))
        came = simulate(study, accuracy, workers=2, seconds=a_world(seed))
        inside += foretold(standing).seconds.holds(came.seconds)
    assert inside >= 28


def test_of_36_forecasts_of_studies_with_a_target_at_least_26_hold_what_comes() -> None:
    seeds = [seed for seed in range(48) if ENDS[seed // 4 % 3] == "target"][:12]
    rows = [row for seed in seeds for row in benchmark(seed)]
    assert {row.strategy for row in rows} == set(STRATEGIES)
    assert sum(row.is_inside["seconds"] for row in rows) >= 26


def test_where_all_reports_take_the_same_time_the_end_is_known_to_a_few_reports() -> None:
    study = a_search({"kind": "random"}, budget={"trials": 10}, epochs=4)
    found = foretold(a_standing(study, 12))
    came = simulate(study, accuracy, workers=2, seconds=10.0)
    assert found.seconds.expected == pytest.approx(came.seconds, rel=0.15)
    assert (found.trials, found.reports) == (Band(10, 10, 10), Band(40, 40, 40))


def test_what_a_report_takes_beside_its_training_counts_as_time_and_not_as_gpu_time() -> None:
    study = a_search({"kind": "random"}, budget={"trials": 6}, resources={"gpus_per_trial": 1, "max_concurrent_trials": 2})
    standing = a_standing(study, 8)
    lean, slow = foretold(standing), foretold(replace(standing, overhead_seconds=10.0))
    assert slow.seconds.expected > lean.seconds.expected + 50
    assert slow.gpu_seconds.expected == pytest.approx(lean.gpu_seconds.expected, rel=0.05)


def test_fewer_slots_end_later() -> None:
    standing = a_standing(a_search({"kind": "random"}, budget={"trials": 8}), 8)
    assert foretold(replace(standing, slots=1)).seconds.expected > 1.5 * foretold(standing).seconds.expected


def test_an_extended_study_is_not_taken_to_be_in_the_final_that_it_held_before() -> None:
    study = a_search({"kind": "random"}, budget={"trials": 3}, final={"top": 2, "seeds": 2})
    held = simulate(study, accuracy, workers=2, seconds=10.0)
    more = study.definition.model_copy(update={"budget": Budget(trials=8)})
    now = NOW + timedelta(seconds=held.seconds + 10)
    standing = Standing(more, held.history, now, held.seconds, 2, amended_at=now - timedelta(seconds=5))
    assert foretold(standing).trials.expected == 8
    assert foretold(Standing.from_json(standing.to_json())).trials.expected == 8


def test_a_limit_on_time_ends_the_simulated_study_too() -> None:
    study = a_search({"kind": "random"}, budget={"wall_clock": "200s"})
    assert 190 <= foretold(a_standing(study, 8)).seconds.expected <= 220


def test_the_same_standing_is_foretold_the_same_again() -> None:
    standing = a_standing(a_search({"kind": "hyperband"}), 6)
    assert courses(standing, most=3) == courses(Standing.from_json(standing.to_json()), most=3)


def test_trials_that_failed_have_others_fail_like_them() -> None:
    def fails(trial: Any, report: int) -> TrialReason | None:
        return TrialReason.DIVERGED if report == 2 else None

    study = a_search({"kind": "random"}, budget={"trials": 8}, epochs=4)
    standing = a_standing(study, 8, fail=fails)
    assert foretold(standing).reports.expected < 20


def test_a_trial_that_waits_after_an_error_goes_on_in_the_forecast() -> None:
    standing = a_standing(a_search({"kind": "random"}, budget={"trials": 2}), 2)
    waiting = {
        number: replace(trial, state=TrialState.QUEUED, not_before=NOW + timedelta(days=1))
        for number, trial in standing.history.trials.items()
    }
    found = courses(replace(standing, history=replace(standing.history, trials=waiting)), most=2)
    assert [course.reports for course in found] == [8, 8]


def an_attempt(number: int, first: int, began: float, lasted: float, outcome: AttemptOutcome = AttemptOutcome.DONE) -> Attempt:
    start = NOW + timedelta(seconds=began)
    return Attempt(number, first, first + 2, start, start + timedelta(seconds=lasted), outcome, "host:1")


def test_what_reports_take_beside_their_training_is_the_median_but_for_each_workers_first_attempt() -> None:
    history = History({0: a_trial(0), 1: a_trial(1, parent=0, parent_report=2)}, seconds={0: (1.0,) * 6, 1: (1.0,) * 2})
    attempts = {
        0: [an_attempt(1, 0, 0, 50), an_attempt(2, 2, 60, 3), an_attempt(3, 4, 70, 900, AttemptOutcome.LOST)],
        1: [an_attempt(1, 2, 80, 5)],
    }
    assert overhead_seconds(history, attempts) == (0.5 + 1.5) / 2
    assert overhead_seconds(history, {0: attempts[0][:1]}) is None
    assert losses(history, attempts) == 1 / 9


def test_lost_attempts_are_foretold_to_be_as_frequent_as_so_far() -> None:
    study = a_search({"kind": "random"}, budget={"trials": 20}, resources={"gpus_per_trial": 1, "max_concurrent_trials": 2})
    standing = a_standing(study, 8)
    assert foretold(replace(standing, losses=0.5)).gpu_seconds.expected > 1.5 * foretold(standing).gpu_seconds.expected


def test_a_late_forecast_has_fewer_courses() -> None:
    assert len(courses(a_standing(a_search({"kind": "random"}), 4), lambda: True)) == 4


def test_a_band_has_a_tenth_on_each_side_and_a_little_more_as_the_courses_are_few() -> None:
    found = Band.of([float(value) for value in range(1, 100)])
    assert (found.low, found.expected, found.high) == pytest.approx((10.0, 50.0, 90.0))
    found = Band.of([float(value) for value in range(1, 25)])
    assert (found.low, found.expected, found.high) == pytest.approx((2.5, 12.5, 22.5))
    assert Band.of([3.0]) == Band(3.0, 3.0, 3.0)


def test_counts_are_foretold_in_whole_numbers() -> None:
    found = Band.of_counts([1, 2, 4, 7, 8, 9, 9, 9, 9, 9, 9, 30])
    assert found == Band(1, 9, 24)
    assert Band.of_counts([4, 5]) == Band(4, 4, 5)


def test_a_target_that_no_first_report_came_near_is_not_taken_to_be_reached_by_the_second() -> None:
    study = a_search({"kind": "hyperband"}, epochs=9, budget={"trials": 9, "target": 0.94})
    part = simulate(study, lambda _, report: 0.5 + 0.05 * report, workers=2, seconds=10.0, stop_after_reports=6)
    found = foretold(Standing(study.definition, part.history, NOW + timedelta(seconds=30), 30.0, 2), COURSES)
    assert all(trial.reports <= 1 for trial in part.history.trials.values())
    assert found.seconds.expected > 60
    assert found.seconds.low < 60
    assert found.seconds.high > 100


def test_a_target_may_end_a_study_with_any_report() -> None:
    study = a_search({"kind": "random"}, budget={"trials": 9, "target": 0.97})
    found = foretold(a_standing(study, 6), COURSES)
    assert found.seconds.low < 60
    assert found.seconds.high > 170
    assert found.trials.low < 6
    assert found.trials.high == 9


@pytest.mark.parametrize("reports", [1, 2])
def test_after_a_report_or_two_the_time_is_known_to_no_more_than_a_fifth(reports: int) -> None:
    found = foretold(a_standing(a_search({"kind": "random"}, budget={"trials": 9}), reports), COURSES)
    assert found.seconds.low < 0.8 * found.seconds.expected
    assert found.seconds.high > 1.2 * found.seconds.expected


def test_a_report_that_is_late_is_still_to_come() -> None:
    study = a_search({"kind": "random"}, budget={"trials": 2})
    part = simulate(study, accuracy, workers=2, seconds=10.0, stop_after_reports=7)
    assert list(part.under_way.values()) == [10.0]  # both were due at the same time
    for late in (10.0, 50.0):
        now = NOW + timedelta(seconds=part.seconds + late)
        since = dict.fromkeys(part.under_way, late)
        standing = Standing(study.definition, part.history, now, part.seconds + late, 2, overhead_seconds=0.0, under_way=since)
        found = foretold(Standing.from_json(standing.to_json()), COURSES).seconds
        assert part.seconds + late < found.low < found.expected < found.high
    assert found.high > part.seconds + 50 + 10


def test_how_long_a_report_is_under_way_is_what_its_attempt_has_taken_beside_the_others() -> None:
    trial = replace(a_trial(0, parent=1, parent_report=2), reports=4, until=9).started(NOW)
    history = History({0: trial}, seconds={0: (1.0, 2.0)})
    open_attempt = replace(an_attempt(1, 2, 0, 0), ended_at=None, outcome=None)
    now = NOW + timedelta(seconds=10)
    assert under_way(history, {0: [open_attempt]}, 0.5, now) == {0: 6.0}
    assert under_way(history, {0: [open_attempt]}, None, now) == {0: 7.0}
    assert under_way(history, {0: [an_attempt(1, 2, 0, 3)]}, 0.5, now) == {}


def test_a_forecast_is_due_after_the_1st_2nd_4th_8th_trial_or_as_soon_as_one_is_noticed() -> None:
    known: list[int] = []
    for ended in range(1, 20):
        if is_due(ended, known):
            known.append(ended)
    assert known == [1, 2, 4, 8, 16]
    assert is_due(5, [3])
    assert not is_due(7, [5])
    assert not is_due(0, [])


def test_a_score_says_by_how_much_it_was_wrong_and_whether_the_band_held() -> None:
    found = scored(a_forecast(), Course(100.0, 0.0, 5, 12, 0), None)
    assert [found["seconds"].error, found["trials"].error] == pytest.approx([0.2, -0.2])
    assert (found["seconds"].is_inside, found["trials"].is_inside) == (True, False)
    assert (found["gpu_seconds"].error, found["gpu_seconds"].is_inside) == (None, False)
    assert "bytes" not in found


def test_the_end_is_what_is_left_of_the_time_from_the_moment_of_the_forecast() -> None:
    forecast = a_forecast()
    assert forecast.ends_at(100.0) == forecast.at + timedelta(seconds=40)
    assert forecast.ends_at(10.0) == forecast.at


def test_a_history_without_numbers_keeps_its_gaps_on_the_way_to_another_process() -> None:
    history = History(values={3: (float("nan"), 0.5)}, seconds={3: (1.5,)})
    found = Standing.from_json(replace(a_standing(a_search({"kind": "random"}), 1), history=history).to_json()).history
    assert str(found.values) == str(history.values)
    assert found.seconds == history.seconds
