"""What fits onto machines of which each has so much: never more than Ray finds places for, wherever it puts trials."""

from collections.abc import Mapping
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.controller.allocation import Claim
from service.controller.room import Capacity, Machine, fit
from service.domain.definition import Resources
from service.execution.capacity import held_by
from service.execution.cluster import closed_nodes
from tests.unit.test_allocation import CAPACITIES, CLAIMS, shares


@given(CAPACITIES, CLAIMS, st.randoms(use_true_random=False))
def test_the_first_trial_of_every_study_finds_a_machine_wherever_ray_has_put_the_others(
    capacity: Capacity, claims: list[Claim], random: Random
) -> None:
    slots = shares(capacity, *claims)
    for mine in claims:
        if slots[mine.study_id]:
            cluster = Cluster(capacity)
            others = [one.resources for one in claims for _ in range(slots[one.study_id]) if one is not mine]
            for resources in random.sample(others, len(others)):
                cluster.place(resources, random)
            assert cluster.place(mine.resources, random), f"{mine} has {slots[mine.study_id]} slots, and no machine"


@given(CAPACITIES, CLAIMS, st.randoms(use_true_random=False))
def test_a_study_alone_is_given_as_many_slots_as_machines_hold(capacity: Capacity, claims: list[Claim], random: Random) -> None:
    for claim in claims:
        cluster = Cluster(capacity)
        slots = shares(capacity, replace(claim, wanted=99))[claim.study_id]
        assert all(cluster.place(claim.resources, random) for _ in range(slots))
        assert not cluster.place(claim.resources, random) or slots == 99


class Cluster:
    """Machines as Ray fills them: a trial goes to any that has room for it, and to no part of two GPUs."""

    def __init__(self, capacity: Capacity) -> None:
        nodes = capacity.nodes or (Machine(capacity.cpus, capacity.gpus),)
        self._whole = nodes
        self._cpus = [one.cpus for one in nodes]
        self._cards = [[10_000] * int(one.gpus) for one in nodes]

    def place(self, resources: Resources, random: Random) -> bool:
        """Put a trial somewhere; False where there is no room."""
        bundle = {"CPU": float(resources.cpus_per_trial), "GPU": resources.gpus}
        nodes = [
            {"Alive": True, "NodeID": str(at), "NodeManagerHostname": "", "Resources": {"CPU": one.cpus, "GPU": one.gpus}}
            for at, one in enumerate(self._whole)
        ]
        closed = closed_nodes(nodes, bundle, frozenset())
        found = [at for at in range(len(nodes)) if str(at) not in closed and self._ways(at, resources) is not None]
        if not found:
            return False
        at = random.choice(found)
        ways = self._ways(at, resources) or []
        for card, part in random.choice(ways) if ways else ():
            self._cards[at][card] -= part
        self._cpus[at] -= resources.cpus_per_trial
        return True

    def _ways(self, at: int, resources: Resources) -> list[list[tuple[int, int]]] | None:
        """The ways in which a machine can give a trial its GPUs; none needed is an empty list, and None is no room."""
        cards = self._cards[at]
        if self._cpus[at] < resources.cpus_per_trial:
            return None
        if resources.gpus >= 1:
            whole = [(card, 10_000) for card, free in enumerate(cards) if free == 10_000]
            return [whole[: int(resources.gpus)]] if len(whole) >= resources.gpus else None
        part = round(resources.gpus * 10_000)
        return [[(card, part)] for card, free in enumerate(cards) if free >= part] or (None if part else [])


def a_node(name: str, cpus: float, gpus: float = 0, *, alive: bool = True) -> dict[str, Any]:
    held = {"memory": 1e9, **({"CPU": cpus} if cpus else {}), **({"GPU": gpus} if gpus else {})}
    return {"Alive": alive, "NodeID": f"id-{name}", "NodeManagerHostname": name, "Resources": held}


NODES = [a_node("head", 0), a_node("a", 4), a_node("b", 8, 2), a_node("gone", 16, alive=False)]


def test_the_cluster_says_what_each_machine_holds_that_trials_can_be_on() -> None:
    held = held_by(NODES)
    assert held == {"cpus": 12, "gpus": 2, "nodes": [{"cpus": 4, "gpus": 0}, {"cpus": 8, "gpus": 2}]}
    assert Capacity.of(held) == Capacity(12, 2, (Machine(4), Machine(8, 2)))


@pytest.mark.parametrize(
    ("cpus", "gpus", "barred", "closed"),
    [
        (1, 0, [], ["id-b"]),
        (8, 0, [], []),
        (1, 1, [], []),
        (1, 0, ["a"], ["id-a"]),
        (1, 0, ["a", "b"], ["id-b"]),
        (1, 1, ["b"], []),
        (1, 0, ["b"], ["id-b"]),
    ],
)
def test_trials_keep_off_barred_nodes_and_off_gpus_that_they_do_not_need_while_there_is_another(
    cpus: int, gpus: int, barred: list[str], closed: list[str]
) -> None:
    bundle: Mapping[str, float] = {"CPU": cpus, "GPU": gpus}
    assert closed_nodes(NODES, bundle, frozenset(barred)) == closed


def test_studies_with_trials_of_one_size_use_every_machine_to_the_full() -> None:
    machines = Capacity(16, 0, (Machine(4),) * 4)
    for cpus, trials in ((1, 8), (2, 4), (4, 2), (3, 2)):
        needs = Resources(cpus_per_trial=cpus)
        assert fit(machines, [(needs, trials), (needs, trials)])
    assert not fit(machines, [(Resources(cpus_per_trial=3), 5)])


def test_shares_of_gpus_of_one_size_use_every_gpu_to_the_full() -> None:
    machines = Capacity(32, 4, (Machine(16, 2),) * 2)
    for gpus, trials in ((0.5, 4), (1, 2), (0.25, 8), (2, 1)):
        needs = Resources(gpus_per_trial=gpus)
        assert fit(machines, [(needs, trials), (needs, trials)])


def test_small_trials_leave_a_machine_for_a_large_one() -> None:
    machines = Capacity(8, 0, (Machine(4), Machine(4)))
    small, large = Resources(cpus_per_trial=1), Resources(cpus_per_trial=4)
    assert fit(machines, [(small, 1), (large, 1)])
    assert not fit(machines, [(small, 2), (large, 1)]), "Ray puts one on each machine"


def test_trials_with_a_gpu_or_a_part_of_one_leave_a_machine_for_one_that_needs_more() -> None:
    pairs = Capacity(16, 4, (Machine(8, 2), Machine(8, 2)))
    one, two = Resources(gpus_per_trial=1), Resources(gpus_per_trial=2)
    assert fit(pairs, [(one, 1), (two, 1)])
    assert not fit(pairs, [(one, 2), (two, 1)]), "each may be on another machine"
    single = Capacity(16, 2, (Machine(8, 1), Machine(8, 1)))
    half = Resources(gpus_per_trial=0.5)
    assert fit(single, [(half, 1), (one, 1)])
    assert not fit(single, [(half, 2), (one, 1)]), "as may two halves"
    assert fit(single, [(half, 2), (Resources(gpus_per_trial=0.3), 1)])
    assert not fit(single, [(Resources(gpus_per_trial=0.4), 2), (Resources(gpus_per_trial=0.7), 1)])


def test_trials_without_gpus_hold_back_no_trial_with_one() -> None:
    machines = Capacity(12, 1, (Machine(4), Machine(8, 1)))
    assert fit(machines, [(Resources(cpus_per_trial=1), 4), (Resources(cpus_per_trial=8, gpus_per_trial=1), 1)])
