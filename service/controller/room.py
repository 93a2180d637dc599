"""Whether trials fit onto the machines that there are. Pure.

A trial is on one machine, and Ray chooses which: the emptiest, so that small trials are soon on all of them. Slots are handed out
so that all of them have a place, and so that every study that has some finds one for its first trial wherever those of the others
happen to be: else it would hold slots, and wait for as long as they train. Trials without GPUs keep off machines that have some
(`service.execution.cluster`), as long as another machine is large enough.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, gcd, inf
from typing import Any

from service.domain.definition import Resources

_ROUNDING = 1e-9
_UNITS = 10_000
"""Ray counts a GPU in parts of so many."""

Needs = Sequence[tuple[Resources, int]]
"""What a trial holds, and how many of them."""


@dataclass(frozen=True)
class Machine:
    """What one machine holds."""

    cpus: float
    gpus: float = 0.0


@dataclass(frozen=True)
class Capacity:
    """What all workers hold together, and each machine of them; where those are not known all count as one."""

    cpus: float
    gpus: float
    nodes: tuple[Machine, ...] = ()

    @staticmethod
    def of(held: Mapping[str, Any]) -> "Capacity":
        """From what `dataclasses.asdict` made of one."""
        return Capacity(held["cpus"], held["gpus"], tuple(Machine(**node) for node in held.get("nodes", ())))

    @cached_property
    def kinds(self) -> tuple[tuple[Machine, int], ...]:
        """The machines, those that are alike counted; those without GPUs and the small ones first."""
        found = Counter(self.nodes or (Machine(self.cpus, self.gpus),))
        return tuple(sorted(found.items(), key=lambda kind: (kind[0].gpus, kind[0].cpus)))

    @property
    def largest(self) -> Machine:
        """The most CPUs and the most GPUs that any machine has, not always the same one."""
        machines = [machine for machine, _ in self.kinds]
        return Machine(max(one.cpus for one in machines), max(one.gpus for one in machines))


def slots_within(capacity: Capacity, resources: Resources) -> int:
    """Trials with these needs that fit side by side, up to the study's own limit."""
    every = sum(_on_one(machine, resources) * count for machine, count in _open_to(capacity, resources))
    return min(every, resources.max_concurrent_trials)


def fit(capacity: Capacity, needs: Needs) -> bool:
    """Whether so many trials fit side by side, and the first of each study finds a place wherever the others' are."""
    some = [(resources, trials) for resources, trials in needs if trials > 0]
    if not _have_places(capacity, some):
        return False
    return all(_finds_a_place(capacity, one, [*some[:at], *some[at + 1 :]]) for at, (one, _) in enumerate(some))


def _open_to(capacity: Capacity, resources: Resources) -> list[tuple[Machine, int]]:
    """The machines that such a trial may be on."""
    able = [(machine, count) for machine, count in capacity.kinds if _on_one(machine, resources)]
    without = [(machine, count) for machine, count in able if not machine.gpus]
    return without if without and not resources.gpus else able


def _on_one(machine: Machine, resources: Resources) -> int:
    by_cpu = int((machine.cpus + _ROUNDING) // resources.cpus_per_trial)
    return max(0, min(by_cpu, _shares(machine.gpus, resources.gpus)) if resources.gpus else by_cpu)


def _shares(gpus: float, share: float) -> int:
    """Trials that fit when each has its share of one GPU, as Ray does not lay one over two, or has several whole ones."""
    if share > 1:
        return int(gpus / share + _ROUNDING)
    whole = int(gpus + _ROUNDING)
    return whole * int(1 / share + _ROUNDING) + int((gpus - whole) / share + _ROUNDING)


@dataclass(frozen=True)
class _Left:
    """What is left of a machine: CPUs, and of each GPU. `machine` is what it was."""

    machine: Machine
    cpus: float
    cards: tuple[float, ...]

    def room_for(self, resources: Resources) -> int:
        """How many such trials more it can hold."""
        by_cpu = int((self.cpus + _ROUNDING) // resources.cpus_per_trial)
        if not resources.gpus:
            return by_cpu
        if resources.gpus >= 1:
            return min(by_cpu, int(sum(free >= 1 - _ROUNDING for free in self.cards) // resources.gpus))
        return min(by_cpu, sum(int(free / resources.gpus + _ROUNDING) for free in self.cards))

    def without(self, resources: Resources, trials: int) -> "_Left":
        """What is left when so many of them are on it, which fit."""
        whole, cards = round(resources.gpus) * trials if resources.gpus >= 1 else 0, []
        part, rest = resources.gpus, trials if 0 < resources.gpus < 1 else 0
        for free in self.cards:
            here = min(rest, int(free / part + _ROUNDING)) if rest else 0
            is_taken = whole > 0 and free >= 1 - _ROUNDING
            cards.append(0.0 if is_taken else free - here * part)
            rest, whole = rest - here, whole - is_taken
        return _Left(self.machine, self.cpus - resources.cpus_per_trial * trials, tuple(cards))


def _have_places(capacity: Capacity, needs: Needs) -> bool:
    """Whether there is a machine for each of them: the large ones first, each where one is found first."""
    left = [(_Left(machine, machine.cpus, _cards(machine.gpus)), count) for machine, count in capacity.kinds]
    for resources, trials in sorted(needs, key=lambda need: (-need[0].gpus, -need[0].cpus_per_trial)):
        allowed, rest = {machine for machine, _ in _open_to(capacity, resources)}, trials
        after: list[tuple[_Left, int]] = []
        for one, count in left:
            each = one.room_for(resources) if rest and one.machine in allowed else 0
            full, more = divmod(min(rest, each * count), each) if each else (0, 0)
            after += [(one.without(resources, each), full)] if full else []
            after += [(one.without(resources, more), 1)] if more else []
            after += [(one, count - full - (more > 0))] if count > full + (more > 0) else []
            rest -= full * each + more
        if rest:
            return False
        left = after
    return True


def _cards(gpus: float) -> tuple[float, ...]:
    whole = int(gpus + _ROUNDING)
    part = gpus - whole
    return (*(1.0,) * whole, *((part,) if part > _ROUNDING else ()))


def _finds_a_place(capacity: Capacity, mine: Resources, others: Needs) -> bool:
    """Whether the others leave a machine for one of mine, however badly they are spread.

    They fill a machine by taking its CPUs or by taking its GPUs. No more machines are filled than all the CPUs that they hold
    could fill, and all the GPUs; nor more than if each filled the larger part of one, be it of its CPUs or of its GPUs.
    """
    machines = _open_to(capacity, mine)
    near = [(one, n) for one, n in others if any(kind in machines for kind in _open_to(capacity, one))]
    counts = [count for _, count in machines]
    cpus = [float(one.cpus_per_trial) for one, _ in near]
    enough_cpus = [_enough(machine.cpus, mine.cpus_per_trial, cpus) for machine, _ in machines]
    cards = [_cards_taken(mine.gpus, one.gpus, [other.gpus for other, _ in near]) for one, _ in near]
    enough_cards = [_enough(ceil(one.gpus), max(1, int(mine.gpus)), cards) if mine.gpus else inf for one, _ in machines]
    apart = _most_filled(zip(enough_cpus, counts, strict=True), zip(cpus, (n for _, n in near), strict=True))
    apart += _most_filled(zip(enough_cards, counts, strict=True), zip(cards, (n for _, n in near), strict=True))
    largest = [max(1 / min(enough_cpus) * cpu, 1 / min(enough_cards) * card) for cpu, card in zip(cpus, cards, strict=True)]
    at_once = sum(min(1.0, part) * n for part, (_, n) in zip(largest, near, strict=True))
    return apart < sum(counts) or at_once < sum(counts) - _ROUNDING


def _cards_taken(mine: float, other: float, all_others: Iterable[float]) -> float:
    """GPUs on which one of mine has no room any more by one of the others."""
    if not mine or not other:
        return 0.0
    if mine >= 1 or other >= 1:
        return max(1.0, other)
    parts = [round(one * _UNITS) for one in all_others if 0 < one < 1]
    return min(1.0, round(other * _UNITS) / _least_above(_UNITS - round(mine * _UNITS), gcd(*parts)))


def _enough(held: float, needed: int, parts: Sequence[float]) -> float:
    """How much of what a machine holds the others have to take so that too little is left; they take it in such parts."""
    step = gcd(*(int(part) for part in parts)) if all(part.is_integer() for part in parts) else 1
    return _least_above(int(held + _ROUNDING) - needed, step)


def _least_above(number: int, step: int) -> int:
    """The smallest multiple of `step` that is larger than `number`."""
    return (number // step + 1) * step if step else number + 1


def _most_filled(full: Iterable[tuple[float, int]], parts: Iterable[tuple[float, int]]) -> int:
    """How many machines can be filled at most, where it takes so much for each; there are so many parts of each size."""
    easy = sorted(full)
    left = sum(min(part, easy[-1][0]) * n for part, n in parts) + _ROUNDING if easy else 0.0
    filled = 0
    for enough, count in easy:
        here = min(count, int(left / enough))
        filled += here
        if here < count:
            break
        left -= here * enough
    return filled
