"""What the controller does next, and how many trials fit."""

import io
import json
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from service.app import WithCapacity, catalog_of
from service.catalog.datasets import LocalDatasetStore
from service.controller.allocation import ProjectRule, SharingRules
from service.controller.capacity import Demand
from service.controller.decide import (
    LAUNCHES_WITHOUT_PROGRESS,
    Command,
    EndStudy,
    GiveUp,
    Launched,
    PauseStudy,
    Seen,
    StartDriver,
    decide,
    demanding,
    why_not_driven,
)
from service.controller.quotas import ProjectQuotas
from service.controller.room import Capacity, Machine, slots_within
from service.domain.access import Quotas
from service.domain.definition import Resources
from service.domain.errors import InvalidDefinition
from service.domain.ports import Catalog
from service.domain.study import Study, StudyReason
from service.domain.waiting import WaitingCause
from service.settings import Settings, write_private
from service.store.memory import memory_store
from tests.api.conftest import FakeCatalog
from tests.builders import NOW, a_definition, a_study
from tests.fakes import FakeClock


def waiting(study_id: str, minutes: int = 0, by: str | None = None, priority: int = 50, **resources: Any) -> Study:
    study = a_study(study_id, created_at=NOW + timedelta(minutes=minutes), resources=resources, priority=priority)
    return replace(study, created_by=by)


def seen(
    *studies: Study,
    cpus: float = 4,
    gpus: float = 0,
    launched: dict[str, Launched] | None = None,
    leases: tuple[str, ...] = (),
    rules: SharingRules | None = None,
) -> Seen:
    holders = dict.fromkeys(leases, "driver-1")
    return Seen(studies, holders, launched or {}, Capacity(cpus, gpus), NOW, rules or SharingRules())


def commands(*studies: Study, **world: Any) -> list[Command]:
    return decide(seen(*studies, **world))


def of(*machines: Machine) -> Capacity:
    return Capacity(sum(one.cpus for one in machines), sum(one.gpus for one in machines), machines)


def a_catalog(folder: Path, held: dict[str, Any]) -> Catalog:
    (folder / "capacity.json").write_text(json.dumps(held))
    return WithCapacity(FakeCatalog(), folder / "capacity.json")


def test_every_waiting_study_gets_a_driver_whatever_the_others_hold() -> None:
    assert commands(waiting("a", 0, cpus_per_trial=4), waiting("b", 1)) == [StartDriver("a"), StartDriver("b")]


def test_no_more_studies_run_at_once_than_the_service_allows() -> None:
    young, old, running = waiting("a", 5), waiting("b", 1), waiting("r", 9).running(NOW)
    world: dict[str, Any] = {"leases": ("r",), "rules": SharingRules(most_running=2)}
    assert commands(young, old, running, **world) == [StartDriver("b")]
    cause, detail = why_not_driven(seen(young, old, running, **world))["a"]
    assert cause is WaitingCause.QUEUE
    assert detail == "2 studies run, as many as may at once (max_running_studies), and it is the next."


def test_a_place_far_behind_is_told_roughly_as_it_would_be_written_again_for_each_study_that_starts() -> None:
    studies = [waiting(f"s{number:03}", number) for number in range(130)]
    whys = why_not_driven(seen(*studies, rules=SharingRules(most_running=1)))
    told = [detail.partition("(max_running_studies)")[2] for _, detail in whys.values()]
    assert told[:2] == [", and it is the next.", ", and 1 more go before it."]
    assert told[9:21] == [", and 9 more go before it.", *[", and at least 10 more go before it."] * 10, told[20]]
    assert told[-1] == ", and at least 100 more go before it."


def test_of_the_waiting_the_higher_priority_comes_first() -> None:
    rules = SharingRules(most_running=1)
    assert commands(waiting("a", 0), waiting("b", 1, priority=51), rules=rules) == [StartDriver("b")]


def test_a_user_runs_no_more_studies_than_allowed_and_holds_back_nobody_else() -> None:
    studies = waiting("a", 0, by="ann"), waiting("b", 1, by="ann"), waiting("c", 2, by="ben"), waiting("d", 3)
    world: dict[str, Any] = {"rules": SharingRules(most_running_of_a_user=1)}
    assert commands(*studies, **world) == [StartDriver("a"), StartDriver("c"), StartDriver("d")]
    cause, detail = why_not_driven(seen(*studies, **world))["b"]
    assert (cause, "1 study of 'ann' runs" in detail) == (WaitingCause.QUOTA, True)


def test_a_project_runs_no_more_studies_than_its_quota_and_holds_back_no_other() -> None:
    studies = [replace(waiting(one, at), project="s" if one == "c" else "v") for at, one in enumerate("abcd")]
    world: dict[str, Any] = {"rules": SharingRules(projects={"v": ProjectRule(most_running=1)})}
    assert commands(*studies, **world) == [StartDriver("a"), StartDriver("c")]
    cause, detail = why_not_driven(seen(*studies, **world))["b"]
    assert (cause, detail) == (
        WaitingCause.QUOTA,
        "Project 'v' runs 1 study, as many as it may at once (max_running_studies).",
    )


def test_a_study_of_a_project_that_has_used_up_its_quota_waits() -> None:
    studies = replace(waiting("a", 0), project="v"), waiting("b", 1)
    rules = SharingRules(projects={"v": ProjectRule(spent="It is used up.")})
    assert commands(*studies, rules=rules) == [StartDriver("b")]
    assert why_not_driven(seen(*studies, rules=rules))["a"] == (WaitingCause.QUOTA, "It is used up.")


def test_a_hundred_waiting_studies_get_eight_drivers() -> None:
    assert len(commands(*(waiting(f"s{number:03}", number) for number in range(100)))) == 8


def test_a_study_that_can_never_fit_gets_no_driver_and_holds_back_nobody() -> None:
    studies = waiting("a", 0, gpus_per_trial=1.0), waiting("b", 1)
    rules = SharingRules(most_running=1)
    assert commands(*studies, rules=rules) == [StartDriver("b")]
    assert why_not_driven(seen(*studies, rules=rules))["a"] == (
        WaitingCause.SIZE,
        "A trial needs 1 CPU and 1 GPU, and all workers together have 4 CPUs and 0 GPUs.",
    )


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        ({"cpus_per_trial": 8}, ("8 CPUs and 0 GPUs", "4 CPUs and 1 GPU")),
        ({"cpus_per_trial": 4, "gpus_per_trial": 1}, ("4 CPUs and 1 GPU", "4 CPUs and 1 GPU, but not both")),
    ],
)
def test_a_study_that_is_too_large_says_what_the_largest_machine_has(needs: dict[str, Any], said: tuple[str, str]) -> None:
    world = replace(seen(waiting("a", **needs)), capacity=of(Machine(4), Machine(4), Machine(2, 1), Machine(2)))
    together = "all workers together have 12 CPUs and 1 GPU"
    detail = f"A trial needs {said[0]} on one machine, and {together}, one machine at most {said[1]}."
    assert why_not_driven(world)["a"] == (WaitingCause.SIZE, detail)


def test_without_a_cluster_nothing_starts() -> None:
    world = replace(seen(waiting("a")), capacity=None)
    assert decide(world) == []
    assert why_not_driven(world)["a"][0] is WaitingCause.CLUSTER


@pytest.mark.parametrize(("gpus", "each", "slots"), [(8, 2, 4), (7, 2, 3), (1, 2, 0), (8, 8, 1), (3, 1, 3)])
def test_trials_that_hold_several_gpus_fit_as_often_as_those_do(gpus: int, each: int, slots: int) -> None:
    needs = Resources(gpus_per_trial=each, max_concurrent_trials=99)
    assert slots_within(Capacity(cpus=64, gpus=gpus), needs) == slots


@pytest.mark.parametrize(("each", "slots"), [(4, 2), (8, 0)])
def test_a_trial_does_not_lie_over_two_machines(each: int, slots: int) -> None:
    needs = Resources(gpus_per_trial=each, max_concurrent_trials=99)
    assert slots_within(of(Machine(32, 4), Machine(32, 4)), needs) == slots


@pytest.mark.parametrize(("each", "slots"), [(1, 12), (2, 6), (3, 3), (4, 3), (5, 0)])
def test_no_more_slots_are_counted_than_machines_have_room_for(each: int, slots: int) -> None:
    needs = Resources(cpus_per_trial=each, max_concurrent_trials=99)
    assert slots_within(of(Machine(4), Machine(4), Machine(4)), needs) == slots


def test_cpus_and_gpus_of_a_trial_are_on_the_same_machine() -> None:
    machines = of(Machine(16), Machine(2, 4))
    assert slots_within(machines, Resources(cpus_per_trial=2, gpus_per_trial=1, max_concurrent_trials=99)) == 1
    assert slots_within(machines, Resources(cpus_per_trial=4, gpus_per_trial=1, max_concurrent_trials=99)) == 0


def test_a_trial_without_gpus_is_on_a_machine_with_some_only_where_no_other_is_large_enough() -> None:
    machines = of(Machine(4), Machine(8, 1))
    assert slots_within(machines, Resources(cpus_per_trial=2, max_concurrent_trials=99)) == 2
    assert slots_within(machines, Resources(cpus_per_trial=8, max_concurrent_trials=99)) == 1


def test_a_study_whose_trials_no_machine_can_hold_is_refused(tmp_path: Path) -> None:
    catalog = a_catalog(tmp_path, asdict(of(Machine(32, 4), Machine(32, 4), Machine(48))))
    catalog.check(a_definition(resources={"gpus_per_trial": 4}))
    with pytest.raises(InvalidDefinition, match="the largest has 4 GPUs: lower it"):
        catalog.check(a_definition(resources={"gpus_per_trial": 8}))
    with pytest.raises(InvalidDefinition, match="the largest has 48 CPUs: lower it"):
        catalog.check(a_definition(resources={"cpus_per_trial": 64}))
    with pytest.raises(InvalidDefinition, match="none that has as many GPUs has as many CPUs"):
        catalog.check(a_definition(resources={"cpus_per_trial": 48, "gpus_per_trial": 1}))


def test_a_capacity_without_its_machines_is_taken_for_one_machine(tmp_path: Path) -> None:
    catalog = a_catalog(tmp_path, {"cpus": 8.0, "gpus": 0.0, "node_gpus": 0.0})
    catalog.check(a_definition(resources={"cpus_per_trial": 8}))
    with pytest.raises(InvalidDefinition, match="all workers together have 8 CPUs: lower it"):
        catalog.check(a_definition(resources={"cpus_per_trial": 9}))


@pytest.mark.parametrize("needs", [{"gpus_per_trial": 1}, {"cpus_per_trial": 200}])
def test_a_service_on_a_cluster_that_it_joined_refuses_no_size(tmp_path: Path, needs: dict[str, int]) -> None:
    settings = Settings(home=tmp_path, ray_address="10.0.0.1:6379", offline=True)
    write_private(settings.layout.run / "capacity.json", json.dumps(asdict(Capacity(cpus=4, gpus=0))))
    study = a_definition(
        trainer={"kind": "simulated", "metrics": {"validation/accuracy": "rate"}, "epochs": 1},
        space={"values.rate": {"kind": "float", "low": 0, "high": 1}},
        resources=needs,
    )
    catalog_of(settings).check(study)
    with pytest.raises(InvalidDefinition):
        catalog_of(settings.model_copy(update={"ray_address": None})).check(study)


def test_a_gpu_study_is_queued_while_the_cluster_has_none_and_demanded() -> None:
    study, store = waiting("a", gpus_per_trial=1), memory_store()
    store.studies.add(study)
    assert why_not_driven(seen(study))["a"][0] is WaitingCause.SIZE
    assert Demand(store, FakeClock(), SharingRules(), ProjectQuotas(store.projects))() == [{"CPU": 1.0, "GPU": 1.0}]


def test_nothing_is_demanded_for_a_project_whose_uploads_have_spent_its_quota(tmp_path: Path) -> None:
    study, store = waiting("a", gpus_per_trial=1), memory_store()
    store.studies.add(study)
    datasets = LocalDatasetStore(tmp_path, max_bytes=1000)
    datasets.of("default").put("a", "b.csv", io.BytesIO(b"text\n" + b"hello\n" * 100), NOW)
    store.projects.set_quotas("default", Quotas(max_stored_gb=500e-9))
    assert Demand(store, FakeClock(), SharingRules(), ProjectQuotas(store.projects, datasets))() == []


def test_room_is_asked_for_those_with_a_driver_then_for_whoever_is_next() -> None:
    old, urgent, driven = waiting("a", 0), waiting("b", 5, priority=90), waiting("c", 9)
    world = seen(old, urgent, driven, leases=("c",), rules=SharingRules(most_running=2))
    assert [study.id for study in demanding(world)] == ["c", "b"]


def test_no_room_is_asked_for_studies_that_a_quota_keeps_waiting() -> None:
    spent, running, other = (replace(waiting(one, at), project=one) for at, one in enumerate("vwx"))
    rules = SharingRules(projects={"v": ProjectRule(spent="It is used up."), "w": ProjectRule(spent="It is used up.")})
    assert [study.id for study in demanding(seen(spent, running, other, leases=("w",), rules=rules))] == ["x"]


def test_nothing_is_demanded_for_studies_that_pause_or_stop() -> None:
    stopping = waiting("a").running(NOW).stopping(StudyReason.STOP_REQUESTED)
    assert demanding(seen(stopping, leases=("a",))) == []


@pytest.mark.parametrize("gpus", [0.25, 1, "auto"])
def test_a_study_that_asks_for_gpus_is_refused_where_there_are_none(tmp_path: Path, gpus: float | str) -> None:
    catalog = a_catalog(tmp_path, asdict(of(Machine(4))))
    with pytest.raises(InvalidDefinition, match="set it to 0 to train on CPUs"):
        catalog.check(a_definition(resources={"gpus_per_trial": gpus}))


def test_a_study_with_a_living_driver_is_left_alone() -> None:
    study = waiting("a").running(NOW)
    assert commands(study, launched={"a": Launched(alive=True, at=NOW)}) == []
    assert commands(study, leases=("a",)) == []


def test_a_study_whose_driver_died_gets_another_before_new_studies() -> None:
    ran = waiting("b", 9, priority=1).running(NOW)
    launched = {"b": Launched(alive=False, at=NOW)}
    assert commands(waiting("a"), ran, launched=launched, rules=SharingRules(most_running=1)) == [StartDriver("b")]


@pytest.mark.parametrize(
    ("study", "command"),
    [
        (waiting("a").stopping(StudyReason.CANCEL_REQUESTED), EndStudy("a")),
        (waiting("a").running(NOW).pausing(StudyReason.PAUSE_REQUESTED, NOW), PauseStudy("a")),
    ],
)
def test_a_study_that_ends_or_pauses_without_a_driver_is_helped(study: Study, command: Command) -> None:
    assert decide(replace(seen(study), capacity=None)) == [command]
    assert commands(study, leases=("a",)) == []


def test_a_paused_study_gets_no_driver() -> None:
    assert commands(waiting("a").pausing(StudyReason.PAUSE_REQUESTED, NOW)) == []


def test_a_driver_that_got_nowhere_is_started_again_later_each_time() -> None:
    study = waiting("a").running(NOW)
    just_now = {"a": Launched(alive=False, at=NOW, fruitless=2)}
    earlier = {"a": Launched(alive=False, at=NOW - timedelta(seconds=4), fruitless=2)}
    assert commands(study, launched=just_now) == []
    assert why_not_driven(seen(study, launched=just_now))["a"][0] is WaitingCause.DRIVER
    assert commands(study, launched=earlier) == [StartDriver("a")]


def test_a_study_whose_drivers_keep_getting_nowhere_is_given_up() -> None:
    launched = {"a": Launched(alive=False, at=NOW, fruitless=LAUNCHES_WITHOUT_PROGRESS)}
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
