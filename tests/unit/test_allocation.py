"""Fair shares of the workers in whole slots: what holds for any studies, and what comes of it over a long time."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.controller.allocation import (
    Claim,
    ProjectRule,
    SharingRules,
    allocate,
    bundles,
    ideal_slots,
)
from service.controller.room import Capacity, Machine, fit, slots_within
from service.controller.sharing import Member, share_out
from service.domain.definition import Resources
from service.domain.share import Share
from service.domain.study import Study
from service.domain.waiting import WaitingCause
from tests.builders import NOW, a_study

TWO = Capacity(cpus=2, gpus=0)


def a_claim(study_id: str, weight: float = 50, wanted: int = 9, cpus: int = 1, gpus: float = 0, **changes: Any) -> Claim:
    needs = Resources(cpus_per_trial=cpus, gpus_per_trial=gpus, max_concurrent_trials=99)
    return Claim(study_id=study_id, resources=needs, weight=weight, wanted=wanted, **changes)


def shares(capacity: Capacity, *claims: Claim, **rules: Any) -> Mapping[str, int]:
    return allocate(capacity, claims, SharingRules(**rules))


def test_a_study_alone_gets_all_it_can_use() -> None:
    assert shares(TWO, a_claim("a")) == {"a": 2}
    assert shares(TWO, a_claim("a", wanted=1)) == {"a": 1}


def test_slots_are_shared_by_weight() -> None:
    assert shares(Capacity(8, 0), a_claim("a", 75), a_claim("b", 25)) == {"a": 6, "b": 2}


def test_what_one_cannot_use_is_the_others() -> None:
    assert shares(Capacity(8, 0), a_claim("a", 75, wanted=1), a_claim("b", 25)) == {"a": 1, "b": 7}


def test_a_newcomer_gets_its_first_slot_at_once() -> None:
    holders = [a_claim(name, 100, held=1, owed_seconds=900) for name in ("a", "b")]
    assert shares(TWO, *holders, a_claim("c", 1, is_new=True))["c"] == 1


def test_a_newcomer_with_large_trials_gets_its_first_slot_at_once() -> None:
    holder = a_claim("a", held=4, owed_seconds=50)
    assert shares(Capacity(4, 0), holder, a_claim("b", cpus=4, is_new=True)) == {"a": 0, "b": 1}


def test_a_slot_that_goes_round_stays_for_a_quantum() -> None:
    one = Capacity(cpus=1, gpus=0)
    a, b = a_claim("a", held=1, owed_seconds=-14), a_claim("b", owed_seconds=14)
    assert shares(one, a, b) == {"a": 1, "b": 0}
    assert shares(one, replace(a, owed_seconds=-16), replace(b, owed_seconds=16)) == {"a": 0, "b": 1}


def test_a_user_has_no_more_slots_than_allowed() -> None:
    claims = a_claim("a", user="ann"), a_claim("b", user="ann"), a_claim("c", user="ben")
    assert shares(Capacity(9, 0), *claims, most_slots_of_a_user=2) == {"a": 1, "b": 1, "c": 2}


def test_a_gpu_study_and_a_cpu_study_each_get_what_the_other_leaves() -> None:
    on_gpus, on_cpus = a_claim("a", gpus=1), a_claim("b")
    assert shares(Capacity(cpus=8, gpus=2), on_gpus, on_cpus) == {"a": 2, "b": 6}


def test_shares_of_gpus_that_do_not_fit_on_one_are_not_counted_as_if_they_did() -> None:
    claims = a_claim("a", gpus=0.6), a_claim("b", gpus=0.6)
    given_out = shares(Capacity(cpus=99, gpus=3), *claims)
    assert sum(given_out.values()) == 3


@pytest.mark.parametrize(
    ("needs", "together"),
    [([(0.5, 2), (0.4, 1)], False), ([(0.5, 1), (0.4, 1)], True), ([(1, 1), (0.1, 10)], False), ([(0.1, 10)], True)],
)
def test_shares_of_one_gpu(needs: Sequence[tuple[float, int]], together: bool) -> None:  # noqa: FBT001 - a table
    assert fit(Capacity(99, 1), [(Resources(gpus_per_trial=gpus), trials) for gpus, trials in needs]) is together


_SHAPES = st.tuples(st.integers(1, 5), st.sampled_from([0, 0, 0.1, 0.3, 0.5, 0.6, 1, 2]))
CLAIMS = st.lists(
    st.builds(
        lambda shape, weight, wanted, held, owed, user, new: a_claim(
            "", weight, wanted, *shape, held=held, owed_seconds=owed, user=user, is_new=new
        ),
        _SHAPES, st.integers(1, 100), st.integers(0, 12), st.integers(0, 12), st.floats(-1200, 1200),
        st.sampled_from([None, "ann", "ben"]), st.booleans(),
    ), max_size=8,
).map(lambda claims: [replace(claim, study_id=f"s{at}") for at, claim in enumerate(claims)])  # fmt: skip
_MACHINES = st.builds(Machine, st.integers(1, 6), st.sampled_from([0, 0, 1, 2, 4]))
CAPACITIES = st.one_of(
    st.builds(Capacity, st.integers(1, 20), st.sampled_from([0, 1, 2, 5])),
    st.lists(_MACHINES, min_size=1, max_size=6).map(
        lambda nodes: Capacity(sum(one.cpus for one in nodes), sum(one.gpus for one in nodes), tuple(nodes))
    ),
)


@given(CAPACITIES, CLAIMS, st.sampled_from([None, 1, 4]))
def test_whatever_studies_there_are_slots_are_within_all_limits_and_none_is_left_unused(
    capacity: Capacity, claims: list[Claim], quota: int | None
) -> None:
    slots = shares(capacity, *claims, most_slots_of_a_user=quota)

    def allowed(slots: Mapping[str, int]) -> bool:
        by_user = {user: sum(slots[one.study_id] for one in claims if one.user == user) for user in ("ann", "ben")}
        within = fit(capacity, [(one.resources, slots[one.study_id]) for one in claims])
        return within and (quota is None or max(by_user.values()) <= quota)

    assert allowed(slots)
    for claim in claims:
        most = min(claim.wanted, slots_within(capacity, claim.resources))
        assert 0 <= slots[claim.study_id] <= most
        one_more = {**slots, claim.study_id: slots[claim.study_id] + 1}
        assert slots[claim.study_id] == most or not allowed(one_more), f"{claim.study_id} could use one more"


@given(CAPACITIES, CLAIMS)
def test_of_two_that_need_the_same_the_heavier_has_no_smaller_share(capacity: Capacity, claims: list[Claim]) -> None:
    able = [replace(claim, wanted=9 * (slots_within(capacity, claim.resources) > 0)) for claim in claims]
    ideal = ideal_slots(capacity, able)
    for one in able:
        for other in able:
            if one.resources == other.resources and one.weight >= other.weight:
                assert ideal[one.study_id] >= ideal[other.study_id] - 1e-6


class World:
    """Studies that train for ever, a controller that looks each half second, and attempts that end only when they report."""

    def __init__(self, capacity: Capacity, **rules: Any) -> None:
        self.capacity = capacity
        self.rules = SharingRules(**rules)
        self.studies: dict[str, Study] = {}
        self.report_seconds: dict[str, float] = {}
        self.shares: dict[str, Share] = {}
        self.attempts: dict[str, list[float]] = {}
        self.used: dict[str, float] = {}
        self.starts: dict[str, int] = {}
        self.first: dict[str, float] = {}
        self.seconds = 0.0

    def joins(self, study_id: str, report_seconds: float, priority: int = 50, most: int = 99, **needs: Any) -> None:
        resources = {"max_concurrent_trials": most, **needs}
        self.studies[study_id] = a_study(study_id, NOW + timedelta(seconds=self.seconds), resources=resources, priority=priority)
        self.report_seconds[study_id] = report_seconds
        self.shares[study_id] = Share()
        self.attempts[study_id] = []
        self.used[study_id], self.starts[study_id] = 0.0, 0

    def leaves(self, study_id: str) -> None:
        for known in (self.studies, self.shares, self.attempts):
            known.pop(study_id)

    def passes(self, seconds: float, look: float = 0.5) -> None:
        until = self.seconds + seconds
        while self.seconds < until:
            members = [
                Member(study, self.shares[one], len(self.attempts[one]), is_new=self.starts[one] == 0)
                for one, study in self.studies.items()
            ]
            now = NOW + timedelta(seconds=self.seconds)
            self.shares.update(share_out(self.capacity, members, [], self.rules, now, look))
            for one in self.studies:
                self._acts(one, look)
            needs = [(study.definition.resources, len(self.attempts[one])) for one, study in self.studies.items()]
            assert fit(self.capacity, needs), "more run than there is room for"
            self.seconds += look

    def running(self, study_id: str) -> int:
        return len(self.attempts[study_id])

    def _acts(self, one: str, look: float) -> None:
        slots, live = self.shares[one].slots, self.attempts[one]
        for started in list(live):
            if (self.seconds - started) % self.report_seconds[one] == 0 and self.seconds > started and len(live) > slots:
                live.remove(started)
        while len(live) < slots:
            live.append(self.seconds)
            self.starts[one] += 1
            self.first.setdefault(one, self.seconds)
        self.used[one] += look * len(live)


def test_over_a_long_run_each_study_gets_its_weight_whatever_its_reports_take() -> None:
    world = World(TWO)
    for study_id, seconds, priority in (("a", 2.0, 20), ("b", 30.0, 60), ("c", 150.0, 40)):
        world.joins(study_id, seconds, priority)
    world.passes(2 * 3600, look=2)
    for study_id, weight in (("a", 20), ("b", 60), ("c", 40)):
        assert world.used[study_id] / (2 * world.seconds) == pytest.approx(weight / 120, rel=0.1)
    assert sum(world.starts.values()) < world.seconds / 20, "an actor takes seconds to start"


def test_large_trials_get_their_share_beside_small_ones() -> None:
    world = World(Capacity(cpus=4, gpus=0))
    world.joins("large", 40.0, cpus_per_trial=4)
    world.joins("small", 10.0)
    world.passes(2 * 3600, look=2)
    assert world.used["large"] * 4 / (4 * world.seconds) == pytest.approx(0.5, rel=0.1)
    assert world.used["small"] / (4 * world.seconds) == pytest.approx(0.5, rel=0.1)


def test_large_trials_get_their_turn_though_small_ones_are_spread_over_all_machines() -> None:
    world = World(Capacity(8, 0, (Machine(4), Machine(4))))
    world.joins("small", 10.0)
    world.passes(100)
    world.joins("large", 40.0, cpus_per_trial=4)
    world.passes(11)
    assert world.first["large"] <= 111
    assert world.running("small") < 2, "two small ones may be on both machines"


def test_studies_that_come_and_go_take_only_what_is_theirs() -> None:
    world = World(TWO)
    world.joins("a", 5.0, 75)
    world.joins("b", 20.0, 25)
    world.passes(1800, look=1)
    for number in range(4):
        before = dict(world.used)
        world.joins(f"guest-{number}", 3.0, 100, most=1)
        world.passes(900, look=1)
        world.leaves(f"guest-{number}")
        used = {one: world.used[one] - before[one] for one in ("a", "b")}
        assert sum(used.values()) == pytest.approx(900, rel=0.1)
        world.passes(300, look=1)
    since = 4 * 900 + 4 * 600 + 3600
    assert world.used["a"] / since == pytest.approx(0.75, rel=0.1)
    assert world.used["b"] / since == pytest.approx(0.25, rel=0.1)


def test_a_newcomer_starts_within_one_report_of_those_that_hold_every_slot() -> None:
    world = World(TWO)
    world.joins("a", 10.0)
    world.passes(61)
    world.joins("b", 10.0)
    world.passes(30)
    assert world.first["b"] <= 61 + 10 + 1


def a_member(study_id: str, slots: int, running: int, wanted: int | None = None, by: str | None = None, **needs: Any) -> Member:
    study = replace(a_study(study_id, resources={"max_concurrent_trials": 4, **needs}), created_by=by)
    return Member(study, Share(slots, wanted), running)


def granted(*members: Member, capacity: Capacity = TWO, **rules: Any) -> Mapping[str, Share]:
    return share_out(capacity, members, [], SharingRules(**rules), NOW, 0.5)


def test_a_slot_is_granted_when_the_attempt_on_it_has_ended() -> None:
    found = granted(a_member("a", 2, 2), a_member("b", 0, 0))
    assert (found["a"].slots, found["b"].slots) == (1, 0)
    assert found["b"].waiting is not None
    assert found["b"].waiting.cause is WaitingCause.SLOTS
    found = granted(a_member("a", 1, 1), a_member("b", 0, 0))
    assert (found["a"].slots, found["b"].slots) == (1, 1)


def test_attempts_of_a_study_that_pauses_hold_their_slots_until_they_end() -> None:
    leaving = [(Resources(), 1)]
    found = share_out(TWO, [a_member("a", 0, 0)], leaving, SharingRules(), NOW, 0.5)
    assert found["a"].slots == 1


def test_slots_that_nobody_else_wants_stay_where_workers_are_warm() -> None:
    assert granted(a_member("a", 2, 1, wanted=1))["a"].slots == 2
    assert granted(a_member("a", 2, 1, wanted=1), a_member("b", 0, 0))["a"].slots == 1


def test_a_study_says_what_it_has_of_what_it_could_use() -> None:
    waiting = granted(a_member("a", 1, 1), a_member("b", 1, 1))["a"].waiting
    assert waiting is not None
    assert waiting.cause is WaitingCause.SHARE
    assert waiting.detail == "It has 1 of the 2 slots it could use; with priority 50 of 100 in all, its share is 1 slot."


def test_a_study_whose_user_has_all_that_is_allowed_says_so() -> None:
    found = granted(a_member("a", 1, 1, by="ann"), a_member("b", 0, 0, by="ann"), most_slots_of_a_user=1)
    assert found["b"].waiting is not None
    assert found["b"].waiting.cause is WaitingCause.QUOTA


def test_a_study_of_a_project_that_has_used_up_its_quota_gives_its_slots_away_as_its_attempts_end() -> None:
    rules: dict[str, Any] = {"projects": {"v": ProjectRule(spent="It is used up.")}}
    spent = a_member("a", 2, 2)
    spent = replace(spent, study=replace(spent.study, project="v"))
    found = granted(spent, a_member("b", 0, 0), **rules)
    assert (found["a"].slots, found["b"].slots) == (0, 0), "both slots are held by its attempts"
    assert found["a"].waiting is not None
    assert (found["a"].waiting.cause, found["a"].waiting.detail) == (WaitingCause.QUOTA, "It is used up.")
    found = granted(replace(spent, running=1), a_member("b", 0, 0), **rules)
    assert (found["a"].slots, found["b"].slots) == (0, 1)


def test_a_study_waits_since_its_cause_began() -> None:
    members = a_member("a", 1, 1), a_member("b", 1, 1)
    first = share_out(TWO, members, [], SharingRules(), NOW, 0.5)["a"]
    again = [replace(members[0], share=first), members[1]]
    later = share_out(TWO, again, [], SharingRules(), NOW + timedelta(seconds=9), 0.5)["a"]
    assert later.waiting is not None
    assert later.waiting.since == NOW


def test_a_cluster_that_can_grow_is_asked_for_every_trial_that_may_run() -> None:
    small = Resources(cpus_per_trial=2, max_concurrent_trials=2)
    large = Resources(cpus_per_trial=1, gpus_per_trial=0.5, max_concurrent_trials=1)
    assert bundles([small, large]) == [{"CPU": 2.0}, {"CPU": 2.0}, {"CPU": 1.0, "GPU": 0.5}]


def test_without_studies_a_cluster_is_asked_for_nothing() -> None:
    assert bundles([]) == []


def test_a_cluster_is_asked_for_no_more_than_it_can_be_told() -> None:
    assert len(bundles([Resources(max_concurrent_trials=1000)] * 3)) == 1000
