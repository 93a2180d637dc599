"""Which study may run how many trials at once. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from service.domain.definition import Resources
from service.domain.study import Study


@dataclass(frozen=True)
class Capacity:
    """What all workers together can hold; `node_gpus` are those of the largest machine, where that is known."""

    cpus: float
    gpus: float
    node_gpus: float | None = None


def slots_within(capacity: Capacity, resources: Resources) -> int:
    """Trials with these needs that fit into `capacity` side by side, up to the study's own limit."""
    if capacity.node_gpus is not None and resources.gpus_per_trial > capacity.node_gpus:
        return 0  # a trial's processes are on one machine
    by_cpu = int(capacity.cpus // resources.cpus_per_trial)
    by_gpu = _shares(capacity.gpus, resources.gpus_per_trial) if resources.gpus_per_trial else by_cpu
    return max(0, min(by_cpu, by_gpu, resources.max_concurrent_trials))


def grant(capacity: Capacity, granted: Mapping[str, int], running: Sequence[Study], queued: Sequence[Study]) -> Mapping[str, int]:
    """Slots for those of `queued` that may start now, first come first served; `granted` are the slots of `running`.

    A study starts as soon as one of its trials fits, with as many as fit then. One that does not fit holds back those
    behind it, so that a study with large trials is not passed over for ever; one that could never fit holds back nobody.
    """
    whole = capacity
    for study in running:
        capacity = _without(capacity, study.definition.resources, granted.get(study.id, 0))
    grants: dict[str, int] = {}
    for study in sorted(queued, key=lambda study: (study.created_at, study.id)):
        slots = slots_within(capacity, study.definition.resources)
        if slots == 0 and slots_within(whole, study.definition.resources) == 0:
            continue
        if slots == 0:
            break
        grants[study.id] = slots
        capacity = _without(capacity, study.definition.resources, slots)
    return grants


def _without(capacity: Capacity, resources: Resources, slots: int) -> Capacity:
    cpus, gpus = capacity.cpus - slots * resources.cpus_per_trial, capacity.gpus - slots * resources.gpus_per_trial
    return replace(capacity, cpus=cpus, gpus=gpus)


def _shares(gpus: float, share: float) -> int:
    """Trials that fit when each has its share of one GPU, as Ray does not lay one over two, or has several whole ones."""
    if share > 1:
        return int(gpus / share + _ROUNDING)
    whole = int(gpus + _ROUNDING)
    return whole * int(1 / share + _ROUNDING) + int((gpus - whole) / share + _ROUNDING)


_ROUNDING = 1e-9
