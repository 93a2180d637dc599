"""What the controller does next, from what it sees. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.controller.allocation import Capacity, grant
from service.domain.study import Study, StudyState

LAUNCHES_WITHOUT_PROGRESS = 5
"""Drivers of one study that may end one after another, without a new report, before the study fails."""


@dataclass(frozen=True)
class Launched:
    """A driver process of ours: whether it lives, the slots it was given, and how its study's launches went so far."""

    alive: bool
    slots: int
    at: datetime
    fruitless: int = 0


@dataclass(frozen=True)
class StartDriver:
    """Start a driver for this study."""

    study_id: str
    slots: int


@dataclass(frozen=True)
class EndStudy:
    """End a study that is stopping and has no driver to do it."""

    study_id: str


@dataclass(frozen=True)
class GiveUp:
    """Fail a study whose drivers keep ending."""

    study_id: str


Command = StartDriver | EndStudy | GiveUp


@dataclass(frozen=True)
class Seen:
    """One look at the world. `studies` are those that have not ended, `leases` those with a living driver of any origin."""

    studies: Sequence[Study]
    leases: Mapping[str, str]
    launched: Mapping[str, Launched]
    capacity: Capacity
    now: datetime


def decide(seen: Seen) -> list[Command]:
    """Commands that bring the world closer to what was asked for."""
    driven = {study.id for study in seen.studies if study.id in seen.leases or _is_alive(seen, study)}
    commands: list[Command] = []
    waiting: list[Study] = []
    for study in seen.studies:
        if study.id in driven:
            continue
        if study.state is StudyState.STOPPING:
            commands.append(EndStudy(study.id))
        elif _fruitless(seen, study) >= LAUNCHES_WITHOUT_PROGRESS:
            commands.append(GiveUp(study.id))
        elif not _backs_off(seen, study):
            waiting.append(study)
    running = [study for study in seen.studies if study.id in driven]
    granted = {study.id: _slots(seen, study) for study in running}
    # A study that already ran goes on before one that never did.
    for group in (StudyState.RUNNING, StudyState.QUEUED):
        members = [study for study in waiting if study.state is group]
        grants = grant(seen.capacity, granted, running, members)
        commands += [StartDriver(study_id, slots) for study_id, slots in grants.items()]
        granted.update(grants)
        running += [study for study in members if study.id in grants]
    return commands


def _is_alive(seen: Seen, study: Study) -> bool:
    launched = seen.launched.get(study.id)
    return launched is not None and launched.alive


def _fruitless(seen: Seen, study: Study) -> int:
    launched = seen.launched.get(study.id)
    return launched.fruitless if launched else 0


def _backs_off(seen: Seen, study: Study) -> bool:
    launched = seen.launched.get(study.id)
    if launched is None or launched.fruitless == 0:
        return False
    return seen.now < launched.at + timedelta(seconds=min(30, 2**launched.fruitless))


def _slots(seen: Seen, study: Study) -> int:
    launched = seen.launched.get(study.id)
    return launched.slots if launched else study.definition.resources.max_concurrent_trials
