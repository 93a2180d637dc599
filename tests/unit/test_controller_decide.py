"""What the controller does next, and which study gets how many slots."""

import json
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.app import _WithCapacity
from service.controller.allocation import Capacity, grant, slots_within
from service.controller.decide import (
    LAUNCHES_WITHOUT_PROGRESS,
    Command,
    EndStudy,
    GiveUp,
    Launched,
    Seen,
    StartDriver,
    decide,
)
from service.domain.definition import Resources
from service.domain.errors import InvalidDefinition
from service.domain.study import Study, StudyReason
from tests.api.conftest import FakeCatalog
from tests.builders import NOW, a_definition, a_study


def waiting(study_id: str, minutes: int = 0, **resources: Any) -> Study:
    return a_study(study_id, created_at=NOW + timedelta(minutes=minutes), resources=resources)


def commands(
    *studies: Study, cpus: float = 4, gpus: float = 0, launched: dict[str, Launched] | None = None, leases: tuple[str, ...] = ()
) -> list[Command]:
    holders = dict.fromkeys(leases, "driver-1")
    return decide(Seen(studies, holders, launched or {}, Capacity(cpus, gpus), NOW))


def test_a_waiting_study_gets_a_driver_with_as_many_slots_as_it_wants_and_fit() -> None:
    assert commands(waiting("a", max_concurrent_trials=8), cpus=4) == [StartDriver("a", 4)]
    assert commands(waiting("a", max_concurrent_trials=2), cpus=4) == [StartDriver("a", 2)]


def test_the_older_study_comes_first() -> None:
    young, old = waiting("a", 5, max_concurrent_trials=2), waiting("b", 1, max_concurrent_trials=2)
    assert commands(young, old, cpus=2) == [StartDriver("b", 2)]


def test_what_is_left_over_goes_to_the_next() -> None:
    first, second = waiting("a", 0, max_concurrent_trials=3), waiting("b", 1, max_concurrent_trials=3)
    assert commands(first, second, cpus=4) == [StartDriver("a", 3), StartDriver("b", 1)]


def test_a_study_that_does_not_fit_now_holds_back_those_behind_it() -> None:
    large, small = waiting("a", 0, cpus_per_trial=4), waiting("b", 1)
    running = waiting("r", -1).running(NOW)
    launched = {"r": Launched(alive=True, slots=1, at=NOW)}
    assert commands(running, large, small, cpus=4, launched=launched) == []


def test_a_study_that_can_never_fit_holds_back_nobody() -> None:
    assert commands(waiting("a", 0, gpus_per_trial=1.0), waiting("b", 1), cpus=4) == [StartDriver("b", 1)]


@pytest.mark.parametrize(("gpus", "each", "slots"), [(8, 2, 4), (7, 2, 3), (1, 2, 0), (8, 8, 1), (3, 1, 3)])
def test_trials_that_hold_several_gpus_fit_as_often_as_those_do(gpus: int, each: int, slots: int) -> None:
    needs = Resources(gpus_per_trial=each, max_concurrent_trials=99)
    assert slots_within(Capacity(cpus=64, gpus=gpus), needs) == slots


@pytest.mark.parametrize(("each", "slots"), [(4, 2), (8, 0)])
def test_a_trial_does_not_lie_over_two_machines(each: int, slots: int) -> None:
    needs = Resources(gpus_per_trial=each, max_concurrent_trials=99)
    assert slots_within(Capacity(cpus=64, gpus=8, node_gpus=4), needs) == slots


def test_a_study_whose_trials_no_machine_can_hold_is_refused(tmp_path: Path) -> None:
    (tmp_path / "capacity.json").write_text(json.dumps(asdict(Capacity(cpus=64, gpus=8, node_gpus=4))))
    catalog = _WithCapacity(FakeCatalog(), tmp_path / "capacity.json")
    catalog.check(a_definition(resources={"gpus_per_trial": 4}))
    with pytest.raises(InvalidDefinition, match="the largest has 4 GPUs: lower it"):
        catalog.check(a_definition(resources={"gpus_per_trial": 8}))


def test_a_study_with_a_living_driver_is_left_alone() -> None:
    study = waiting("a").running(NOW)
    assert commands(study, launched={"a": Launched(alive=True, slots=1, at=NOW)}) == []
    assert commands(study, leases=("a",)) == []


def test_a_study_whose_driver_died_gets_another_before_new_studies() -> None:
    ran = waiting("b", 9).running(NOW)
    launched = {"b": Launched(alive=False, slots=1, at=NOW)}
    assert commands(waiting("a"), ran, cpus=1, launched=launched) == [StartDriver("b", 1)]


def test_a_stopping_study_without_a_driver_is_ended() -> None:
    study = waiting("a").stopping(StudyReason.CANCEL_REQUESTED)
    assert commands(study, cpus=0) == [EndStudy("a")]
    assert commands(study, leases=("a",)) == []


def test_a_driver_that_got_nowhere_is_started_again_later_each_time() -> None:
    study = waiting("a").running(NOW)
    just_now = {"a": Launched(alive=False, slots=1, at=NOW, fruitless=2)}
    earlier = {"a": Launched(alive=False, slots=1, at=NOW - timedelta(seconds=4), fruitless=2)}
    assert commands(study, launched=just_now) == []
    assert commands(study, launched=earlier) == [StartDriver("a", 1)]


def test_a_study_whose_drivers_keep_getting_nowhere_is_given_up() -> None:
    launched = {"a": Launched(alive=False, slots=1, at=NOW, fruitless=LAUNCHES_WITHOUT_PROGRESS)}
    assert commands(waiting("a").running(NOW), launched=launched) == [GiveUp("a")]


def test_two_trials_share_a_gpu_when_each_asks_for_half() -> None:
    halves = Resources(gpus_per_trial=0.5, max_concurrent_trials=10)
    assert slots_within(Capacity(cpus=16, gpus=1), halves) == 2


def test_ten_tenths_of_a_gpu_are_ten_trials() -> None:
    tenths = Resources(gpus_per_trial=0.1, max_concurrent_trials=99)
    assert slots_within(Capacity(cpus=16, gpus=1), tenths) == 10


@pytest.mark.parametrize(("share", "slots"), [(0.6, 2), (0.4, 4), (0.5, 4), (1, 2)])
def test_a_trial_does_not_lie_over_two_gpus(share: float, slots: int) -> None:
    shares = Resources(gpus_per_trial=share, max_concurrent_trials=99)
    assert slots_within(Capacity(cpus=16, gpus=2), shares) == slots


def test_slots_that_run_already_are_not_granted_twice() -> None:
    running, queued = waiting("r", max_concurrent_trials=3), waiting("q", max_concurrent_trials=3)
    assert grant(Capacity(4, 0), {"r": 3}, [running], [queued]) == {"q": 1}
