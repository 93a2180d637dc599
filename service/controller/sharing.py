"""From what is seen to each study's share: what it is owed, how many slots it has now, and why not more. Pure.

A slot that one study is to give to another is free once the attempt on it has ended, at its next report: until then nobody is
granted it. What nobody else wants stays with the study that has it, so that its workers stay warm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.controller.allocation import Claim, SharingRules, allocate, ideal_slots, slot_cost
from service.controller.room import Capacity, fit, slots_within
from service.domain.definition import Resources
from service.domain.share import Share
from service.domain.study import Study
from service.domain.waiting import Waiting, WaitingCause, counted

_MOST_OWED_QUANTA = 20
"""What a study may be owed or owe at most, in quanta of one slot."""


@dataclass(frozen=True)
class Member:
    """A study with a driver: its share as it was, its attempts that run now, and whether it ever began a trial."""

    study: Study
    share: Share
    running: int = 0
    is_new: bool = False

    @property
    def resources(self) -> Resources:
        return self.study.resources

    @property
    def wanted(self) -> int:
        """Slots it could use; until its driver has said, as many as its definition allows."""
        most = self.resources.max_concurrent_trials
        return most if self.share.wanted is None else min(self.share.wanted, most)

    @property
    def used(self) -> int:
        """Slots that are used up by it: those it was given count from the moment it may use them."""
        return max(self.running, min(self.share.slots, self.wanted))


def share_out(
    capacity: Capacity,
    members: Sequence[Member],
    leaving: Sequence[tuple[Resources, int]],
    rules: SharingRules,
    now: datetime,
    elapsed_seconds: float,
) -> Mapping[str, Share]:
    """The members' new shares. `leaving` are the attempts of studies that pause or stop, as long as they run.

    Those of a study whose project has used up its quota leave too, each at its next report.
    """
    leaving = [*leaving, *((member.resources, member.running) for member in members if _spent(rules, member))]
    able = [member for member in members if slots_within(capacity, member.resources) and not _spent(rules, member)]
    owed = {member.study.id: member for member in _owed_after(capacity, able, rules, elapsed_seconds)}
    claims = [_claim(capacity, member) for member in owed.values()]
    target = allocate(capacity, claims, rules)
    ideal = ideal_slots(capacity, claims, rules.most_slots_of_a_user)
    if all(target[claim.study_id] == claim.wanted for claim in claims):
        target = _with_warm_ones(capacity, list(owed.values()), target)
    slots = _granted(capacity, list(owed.values()), target, leaving)
    shares = {}
    for member in members:
        found = owed.get(member.study.id, member)
        here = slots.get(member.study.id, 0)
        cause = _cause(capacity, found, here, target, ideal, list(owed.values()), rules)
        waiting, packed = waits(member.share.waiting, cause, now), member.study.trials_per_gpu
        shares[member.study.id] = replace(found.share, slots=here, waiting=waiting, trials_per_gpu=packed)
    return shares


def waits(before: Waiting | None, cause: tuple[WaitingCause, str] | None, now: datetime) -> Waiting | None:
    """What a study waits for; as long as that is the same, since when it did."""
    if cause is None:
        return None
    since = before.since if before is not None and before.cause is cause[0] else now
    return Waiting(*cause, since)


def _owed_after(capacity: Capacity, members: Sequence[Member], rules: SharingRules, seconds: float) -> list[Member]:
    """The members with what they are owed after so many seconds of what they have now."""
    claims = [_claim(capacity, member) for member in members]
    ideal = ideal_slots(capacity, claims, rules.most_slots_of_a_user)
    found = []
    for member in members:
        cost = slot_cost(capacity, member.resources)
        most = _MOST_OWED_QUANTA * rules.quantum_seconds * cost
        lag = member.share.lag + (ideal[member.study.id] - member.used) * cost * seconds
        found.append(replace(member, share=replace(member.share, lag=max(-most, min(most, lag)))))
    return found


def _spent(rules: SharingRules, member: Member) -> str | None:
    """Why no study of its project may go on; None while they may."""
    return rules.of_project(member.study.project).spent


def _claim(capacity: Capacity, member: Member) -> Claim:
    return Claim(
        study_id=member.study.id,
        resources=member.resources,
        weight=member.study.definition.priority,
        wanted=min(member.wanted, slots_within(capacity, member.resources)),
        held=member.share.slots,
        owed_seconds=member.share.lag / slot_cost(capacity, member.resources),
        user=member.study.created_by,
        is_new=member.is_new,
    )


def _with_warm_ones(capacity: Capacity, members: Sequence[Member], target: Mapping[str, int]) -> Mapping[str, int]:
    """More slots than they want for those that have them, as far as they fit: nobody else wants them."""
    slots = dict(target)
    for member in members:
        one = member.study.id
        most = min(member.share.slots, member.resources.max_concurrent_trials)
        while slots[one] < most and _fits(capacity, members, {**slots, one: slots[one] + 1}):
            slots[one] += 1
    return slots


def _granted(
    capacity: Capacity, members: Sequence[Member], target: Mapping[str, int], leaving: Sequence[tuple[Resources, int]]
) -> Mapping[str, int]:
    """Slots now: at most the target, and beyond what a study has only what is really free."""
    slots = {one.study.id: min(one.share.slots, target[one.study.id]) for one in members}
    held = {one.study.id: max(one.running, slots[one.study.id]) for one in members}
    for one in sorted(members, key=lambda member: (not member.is_new, -member.share.lag)):
        study_id = one.study.id
        while slots[study_id] < target[study_id]:
            more = {**held, study_id: max(held[study_id], slots[study_id] + 1)}
            if not _fits(capacity, members, more, leaving):
                break
            slots[study_id], held = slots[study_id] + 1, more
    return slots


def _fits(
    capacity: Capacity, members: Sequence[Member], slots: Mapping[str, int], leaving: Sequence[tuple[Resources, int]] = ()
) -> bool:
    return fit(capacity, [*leaving, *((member.resources, slots[member.study.id]) for member in members)])


def _cause(  # noqa: PLR0913, PLR0917 - all that it may depend on
    capacity: Capacity,
    member: Member,
    slots: int,
    target: Mapping[str, int],
    ideal: Mapping[str, float],
    members: Sequence[Member],
    rules: SharingRules,
) -> tuple[WaitingCause, str] | None:
    """Why it has fewer slots than it could use; None where it has enough."""
    study_id, user = member.study.id, member.study.created_by
    fitting = slots_within(capacity, member.resources)
    if not fitting:
        return WaitingCause.SIZE, too_large(capacity, member.resources)
    spent = _spent(rules, member)
    if spent is not None:
        return WaitingCause.QUOTA, spent
    wanted = min(member.wanted, fitting)
    if slots >= wanted:
        return None
    if slots < target[study_id]:
        return WaitingCause.SLOTS, "Its next slot is another study's until the trial on it reports."
    most, of_user = rules.most_slots_of_a_user, sum(target[one.study.id] for one in members if one.study.created_by == user)
    if user is not None and most is not None and of_user >= most:
        return (
            WaitingCause.QUOTA,
            f"The studies of {user!r} have {counted(most, 'slot')}, the most a user may (max_slots_per_user).",
        )
    weights = sum(one.study.definition.priority for one in members if one.wanted)
    share, turn = counted(ideal[study_id], "slot"), "" if slots else ": its turn comes"
    priority = f"with priority {member.study.definition.priority} of {weights} in all, its share is {share}{turn}"
    return WaitingCause.SHARE, f"It has {slots} of the {counted(wanted, 'slot')} it could use; {priority}."


def too_large(capacity: Capacity, resources: Resources) -> str:
    """That no worker can hold a trial, and why."""
    needs = _held(resources.cpus_per_trial, resources.gpus)
    held = f"all workers together have {_held(capacity.cpus, capacity.gpus)}"
    if not capacity.nodes:
        return f"A trial needs {needs}, and {held}."
    cpus, gpus = capacity.largest.cpus, capacity.largest.gpus
    apart = ", but not both" if resources.cpus_per_trial <= cpus and resources.gpus <= gpus else ""
    return f"A trial needs {needs} on one machine, and {held}, one machine at most {_held(cpus, gpus)}{apart}."


def _held(cpus: float, gpus: float) -> str:
    return f"{counted(cpus, 'CPU')} and {counted(gpus, 'GPU')}"
