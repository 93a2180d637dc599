"""Which study may run how many trials at once: weighted dominant-resource fairness (Ghodsi et al. 2011), in whole slots. Pure.

What a slot costs is the largest part it takes of anything the cluster has. Ideal shares are fractions of a slot. Everyone gets
the whole slots of their share; what is left over goes round by what each is owed, so that over time each gets its share.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

from service.controller.room import Capacity, fit, slots_within
from service.domain.definition import Resources

_ROUNDING = 1e-9
_MOST_BUNDLES = 1000


@dataclass(frozen=True)
class ProjectRule:
    """What a project's quotas say now: how many of its studies may run, and why none may go on where they are used up."""

    most_running: int | None = None
    spent: str | None = None


@dataclass(frozen=True)
class SharingRules:
    """What the service's settings and the projects' quotas say.

    `quantum_seconds` is how long a study keeps a slot that goes round, at the least.
    """

    quantum_seconds: float = 60.0
    most_running: int = 8
    most_running_of_a_user: int | None = None
    most_slots_of_a_user: int | None = None
    projects: Mapping[str, ProjectRule] = field(default_factory=dict)

    def of_project(self, name: str) -> ProjectRule:
        """What holds for a project."""
        return self.projects.get(name, _NO_QUOTA)


_NO_QUOTA = ProjectRule()


@dataclass(frozen=True)
class Claim:
    """One study's claim: `wanted` slots are of use to it, `held` it has now, `owed_seconds` of a slot it should have had.

    `is_new` is one that never had any: it comes first.
    """

    study_id: str
    resources: Resources
    weight: float
    wanted: int
    held: int = 0
    owed_seconds: float = 0.0
    user: str | None = None
    is_new: bool = False


def bundles(wanted: Iterable[Resources]) -> list[dict[str, float]]:
    """What Ray is asked for where the cluster can grow: room for all trials that studies with these needs may run at once.

    Slots are handed out of what the cluster has, so its autoscaler would never see more demand than that by itself.
    """
    each = (
        {"CPU": float(one.cpus_per_trial), **({"GPU": one.gpus} if one.gpus else {})}
        for one in wanted
        for _ in range(one.max_concurrent_trials)
    )
    return list(islice(each, _MOST_BUNDLES))


def slot_cost(capacity: Capacity, resources: Resources) -> float:
    """The part of the cluster that a slot takes: of its CPUs or of its GPUs, whichever is more."""
    return max(_parts(capacity, resources).values())


def ideal_slots(capacity: Capacity, claims: Sequence[Claim], most_of_a_user: int | None = None) -> Mapping[str, float]:
    """Slots of each study, in fractions: all grow together, each by its weight, as long as there is room and use for more."""
    slots = {claim.study_id: 0.0 for claim in claims}
    room = {"cpus": 1.0, "gpus": 1.0}
    quota = {claim.user: float(most_of_a_user) for claim in claims if claim.user is not None and most_of_a_user}
    filling = [claim for claim in claims if claim.wanted > 0]
    while filling:
        parts = {claim.study_id: _parts(capacity, claim.resources) for claim in filling}
        pace = {claim.study_id: claim.weight / max(parts[claim.study_id].values()) for claim in filling}
        taken = {name: sum(pace[one] * part.get(name, 0.0) for one, part in parts.items()) for name in room}
        used = {user: sum(pace[claim.study_id] for claim in filling if claim.user == user) for user in quota}
        step = min(
            *((claim.wanted - slots[claim.study_id]) / pace[claim.study_id] for claim in filling),
            *(room[name] / rate for name, rate in taken.items() if rate),
            *(quota[user] / rate for user, rate in used.items() if rate),
        )
        for claim in filling:
            slots[claim.study_id] += step * pace[claim.study_id]
        room = {name: free - step * taken[name] for name, free in room.items()}
        quota = {user: free - step * used[user] for user, free in quota.items()}
        filling = [
            claim
            for claim in filling
            if slots[claim.study_id] < claim.wanted - _ROUNDING
            and all(room[name] > _ROUNDING for name in parts[claim.study_id])
            and (claim.user is None or quota.get(claim.user, 1.0) > _ROUNDING)
        ]
    return slots


def allocate(capacity: Capacity, claims: Sequence[Claim], rules: SharingRules) -> Mapping[str, int]:
    """Whole slots of each study, so that none is left that somebody could use; of equals the first in `claims` goes first."""
    able = [replace(claim, wanted=min(claim.wanted, slots_within(capacity, claim.resources))) for claim in claims]
    ideal = ideal_slots(capacity, able, rules.most_slots_of_a_user)
    table = _Table(capacity, able, ideal, rules)
    table.give_whole_slots()
    table.make_room_for_large_ones()
    while (claim := table.next_in_turn()) is not None:
        table.slots[claim.study_id] += 1
    return table.slots


class _Table:
    """Slots as they are being given out."""

    def __init__(self, capacity: Capacity, claims: Sequence[Claim], ideal: Mapping[str, float], rules: SharingRules) -> None:
        self._capacity = capacity
        self._claims = claims
        self._ideal = ideal
        self._whole = {study_id: int(slots + _ROUNDING) for study_id, slots in ideal.items()}
        self._quota = rules.most_slots_of_a_user
        # Where two take turns, what they are owed drifts apart by a second in each second, from here to as far on the other side.
        self._patience = rules.quantum_seconds / 4
        self.slots = {claim.study_id: 0 for claim in claims}

    def give_whole_slots(self) -> None:
        if self._fits(self._whole):
            self.slots = dict(self._whole)
            return
        while (claim := self.next_in_turn()) is not None and self._is_behind(claim):
            self.slots[claim.study_id] += 1

    def make_room_for_large_ones(self) -> None:
        """Who is owed a slot that does not fit into what is left gets it from those who are owed less."""
        order = sorted(self._claims, key=self._owed)
        while order:
            claim = order.pop()
            if self._is_behind(claim) and self._owed(claim) > self._patience and not self._may_have_one_more(claim):
                self._displace(claim, order)

    def next_in_turn(self) -> Claim | None:
        """Whose next slot it is: those below their share, the most owed of them; then whoever can use what they leave."""
        order = sorted(self._claims, key=self._turn, reverse=True)  # equals stay in order
        return next((claim for claim in order if self._may_have_one_more(claim)), None)

    def _turn(self, claim: Claim) -> tuple[bool, int, float]:
        slots = self.slots[claim.study_id]
        return self._is_behind(claim), self._whole[claim.study_id] - slots, self._owed(claim)

    def _is_behind(self, claim: Claim) -> bool:
        return self.slots[claim.study_id] < self._ideal[claim.study_id] - _ROUNDING

    def _owed(self, claim: Claim) -> float:
        """Seconds of a slot; who has its next slot already is owed more, and who never had one is owed most."""
        slots = self.slots[claim.study_id]
        if claim.is_new and slots == 0:
            return float("inf")
        return claim.owed_seconds + (2 * self._patience if claim.held > slots else 0.0)

    def _may_have_one_more(self, claim: Claim) -> bool:
        slots = self.slots[claim.study_id] + 1
        return slots <= claim.wanted and self._fits({**self.slots, claim.study_id: slots})

    def _displace(self, claim: Claim, others: Sequence[Claim]) -> None:
        """Give it one slot in the place of as many of the others', from the first of them on, as it needs."""
        before = dict(self.slots)
        for other in others:
            while self.slots[other.study_id] > 0:
                self.slots[other.study_id] -= 1
                if self._may_have_one_more(claim):
                    self.slots[claim.study_id] += 1
                    return
        self.slots = before

    def _fits(self, slots: Mapping[str, int]) -> bool:
        if not fit(self._capacity, [(claim.resources, slots[claim.study_id]) for claim in self._claims]):
            return False
        if self._quota is None:
            return True
        users = {claim.user for claim in self._claims} - {None}
        return all(sum(slots[one.study_id] for one in self._claims if one.user == user) <= self._quota for user in users)


def _parts(capacity: Capacity, resources: Resources) -> Mapping[str, float]:
    """What part of each thing in the cluster a slot takes."""
    parts = {"cpus": resources.cpus_per_trial / capacity.cpus}
    if resources.gpus:
        share = resources.gpus
        # Of 0.6 of a GPU what is left is of no use to its equals.
        parts["gpus"] = (share if share >= 1 else 1 / int(1 / share + _ROUNDING)) / capacity.gpus
    return parts
