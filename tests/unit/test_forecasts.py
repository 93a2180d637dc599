"""Forecasts over a store in memory: what they begin from, and which are kept while a study runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.analysis.forecasts import Forecasts
from service.domain.budget import Budget
from service.domain.errors import AnalysisFailed, NotReady, StudyNotFound, TooFewTrials
from service.domain.forecast import Band, Course
from service.domain.ports import Change
from service.domain.share import Share
from service.domain.standing import Standing
from service.domain.stored import Stored, StoredKind
from service.domain.study import StudyReason
from service.domain.trial import Attempt, AttemptOutcome, TrialReason
from service.store.memory import memory_store
from tests.builders import NOW, a_report, a_study, a_trial
from tests.fakes import FakeClock

COURSES = [Course(100.0 + place, 0.0, 4, 12, 2) for place in range(11)]


class Disk:
    """What lies on it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def stored(self, study_id: str) -> Sequence[Stored]:
        assert study_id
        resume = Stored(0, StoredKind.RESUME, 1, 999, NOW, "resume")
        return [resume, *(Stored(0, StoredKind.EXPORT, 1, size, NOW, "export") for size in self.sizes)]


class World:
    """A running study, and a child that answers."""

    def __init__(self, **changes: Any) -> None:
        self.clock, self.store, self.disk = FakeClock(), memory_store(), Disk()
        self.study = self.store.studies.save(self.store.studies.add(a_study(**changes)).running(NOW))
        self.store.leases.acquire(self.study.id, "driver", NOW, timedelta(days=1))
        self.asked: list[Standing] = []
        self.answer: Sequence[Course] = COURSES
        self.failure: Exception | None = None
        self.forecasts = Forecasts(self.store, self.disk, self.clock, self._simulate)  # type: ignore[arg-type]  # the one it uses

    def _simulate(self, standing: Standing) -> Sequence[Course]:
        self.asked.append(standing)
        if self.failure is not None:
            raise self.failure
        return self.answer

    def ends(self, number: int, *, has_reported: bool = True) -> None:
        trial = a_trial(number, self.study.id).started(NOW)
        written = [Change(a_trial(number, self.study.id)), Change(trial)]
        if has_reported:
            report = a_report(1)
            trial = trial.reported(report, self.study.definition.objective, gpus=0)
            written.append(Change(trial, report=report))
        began = NOW + timedelta(seconds=10 * number)
        attempt = Attempt(1, 0, 3, began, began + timedelta(seconds=20 if number == 0 else 3), AttemptOutcome.DONE, "host:1")
        self.store.trials.record("driver", [*written, Change(trial.ended(TrialReason.EPOCHS_DONE, NOW), attempt=attempt)])

    def runs(self, number: int) -> None:
        began = NOW + timedelta(seconds=10 * number)
        trial = a_trial(number, self.study.id)
        attempt = Attempt(1, 0, 3, began, worker="host:1")
        self.store.trials.record("driver", [Change(trial), Change(trial.started(began), attempt=attempt)])

    def kept(self) -> list[int]:
        return [forecast.ended for forecast in self.store.forecasts.of(self.study.id)]


def test_a_forecast_begins_from_how_the_study_stands() -> None:
    world = World(resources={"max_concurrent_trials": 4})
    world.ends(0)
    world.ends(1)
    world.clock.pass_seconds(60)
    found = world.forecasts(world.study.id)
    standing = world.asked[0]
    assert (standing.elapsed_seconds, standing.slots, standing.overhead_seconds, standing.losses) == (60, 4, 1.0, 0.0)
    assert standing.history == world.store.trials.history(world.study.id)
    assert (found.seconds, found.elapsed_seconds, found.ended, found.courses) == (Band(100.2, 105.0, 109.8), 60, 2, 11)


def test_a_forecast_knows_when_the_budget_last_changed() -> None:
    world = World()
    world.ends(0)
    larger = world.study.definition.model_copy(update={"budget": Budget(trials=9)})
    world.store.studies.save(world.study.extended(larger, NOW + timedelta(seconds=9)))
    world.forecasts(world.study.id)
    assert world.asked[0].amended_at == NOW + timedelta(seconds=9)


def test_a_study_with_a_share_goes_on_with_as_many_slots() -> None:
    world = World(resources={"max_concurrent_trials": 4})
    world.ends(0)
    for granted, slots in ((3, 3), (9, 4), (0, 4)):
        world.store.shares.grant({world.study.id: Share(granted)})
        assert world.forecasts(world.study.id).slots == slots


def test_disk_is_foretold_from_the_exported_models_that_lie_there() -> None:
    world = World()
    world.ends(0)
    assert world.forecasts(world.study.id).bytes is None
    world.disk.sizes = [100, 200]
    world.ends(1)
    assert world.forecasts(world.study.id).bytes == Band(300, 300, 300)


def test_a_study_that_has_not_gone_on_is_not_simulated_again() -> None:
    world = World()
    world.ends(0)
    first = world.forecasts(world.study.id)
    world.clock.pass_seconds(5)
    assert world.forecasts(world.study.id) is first
    world.ends(1)
    assert world.forecasts(world.study.id) is not first


def test_an_expected_end_never_lies_in_the_past() -> None:
    world = World()
    world.ends(0)
    world.forecasts(world.study.id)
    world.clock.pass_seconds(103)
    second = world.forecasts(world.study.id)
    assert (len(world.asked), second.at, second.seconds) == (1, world.clock.now(), Band(103, 105.0, 109.8))
    assert second.ends_at(second.seconds.low) == world.clock.now()
    world.clock.pass_seconds(2)
    world.answer = [replace(course, seconds=course.seconds + 20) for course in COURSES]
    third = world.forecasts(world.study.id)
    assert (len(world.asked), third.seconds.expected) == (2, 125.0)


def test_a_forecast_knows_for_how_long_the_next_report_is_under_way() -> None:
    world = World()
    world.ends(0)
    world.runs(1)
    world.clock.pass_seconds(60)
    world.forecasts(world.study.id)
    assert world.asked[0].under_way == {1: 50}


def test_before_the_first_report_nothing_can_be_foretold() -> None:
    world = World()
    world.ends(0, has_reported=False)
    with pytest.raises(TooFewTrials, match="ask again later"):
        world.forecasts(world.study.id)
    with pytest.raises(StudyNotFound):
        world.forecasts("nothing-abc123")


def test_a_study_that_is_too_large_says_so() -> None:
    world = World()
    world.ends(0)
    world.answer = []
    with pytest.raises(NotReady, match="too large"):
        world.forecasts(world.study.id)


@pytest.mark.parametrize(("limit", "said"), [({"target": 0.9}, "target"), ({"no_improvement": 2}, "better")])
def test_what_is_little_more_than_a_guess_is_called_one(limit: Mapping[str, Any], said: str) -> None:
    world = World(budget={"trials": 4, **limit})
    world.ends(0)
    assert [said in note for note in world.forecasts(world.study.id).notes] == [True]


def test_forecasts_are_kept_after_the_1st_2nd_and_4th_trial_and_none_in_the_first_half_minute() -> None:
    world = World()
    world.ends(0)
    world.forecasts.watch()
    assert world.kept() == []
    world.clock.pass_seconds(30)
    for number in range(1, 6):
        world.forecasts.watch()
        world.ends(number)
    world.forecasts.watch()
    assert world.kept() == [1, 2, 4]


def test_a_forecast_that_fails_is_left_out_and_not_tried_before_the_next_trial() -> None:
    world = World()
    world.ends(0)
    world.clock.pass_seconds(30)
    world.failure = AnalysisFailed("It ended with code 1.")
    world.forecasts.watch()
    world.forecasts.watch()
    assert (len(world.asked), world.kept()) == (1, [])
    world.failure = None
    world.ends(1)
    world.forecasts.watch()
    assert world.kept() == [2]


def test_a_study_whose_trials_all_failed_gets_none() -> None:
    world = World()
    world.ends(0, has_reported=False)
    world.clock.pass_seconds(30)
    world.forecasts.watch()
    assert world.kept() == []


def test_the_end_of_a_paused_study_moves_on_with_the_time() -> None:
    world = World()
    world.ends(0)
    pausing = world.study.pausing(StudyReason.PAUSE_REQUESTED, NOW)
    world.store.studies.save(world.store.studies.save(pausing).paused(NOW))
    first = world.forecasts(world.study.id)
    world.clock.pass_seconds(3600)
    second = world.forecasts(world.study.id)
    assert len(world.asked) == 1
    assert (second.ends_at(105.0) - first.ends_at(105.0)).total_seconds() == 3600
