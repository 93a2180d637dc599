"""What the controller does next, from what it sees. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from service.controller.allocation import SharingRules
from service.controller.room import Capacity, slots_within
from service.controller.sharing import too_large
from service.domain.study import Study, StudyState
from service.domain.waiting import WaitingCause

_TOLD = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LAUNCHES_WITHOUT_PROGRESS = 5
"""Drivers of one study that may end one after another, without a new report, before the study fails."""
_GOING = frozenset({StudyState.QUEUED, StudyState.RUNNING})
_ROOM_FOR_ALL = Capacity(cpus=1e9, gpus=1e9)


@dataclass(frozen=True)
class Launched:
    """A driver process of ours: whether it lives, and how its study's launches went so far."""

    alive: bool
    at: datetime
    fruitless: int = 0


@dataclass(frozen=True)
class StartDriver:
    """Start a driver for this study."""

    study_id: str


@dataclass(frozen=True)
class EndStudy:
    """End a study that is stopping and has no driver to do it."""

    study_id: str


@dataclass(frozen=True)
class PauseStudy:
    """Pause a study that is pausing and has no driver to do it."""

    study_id: str


@dataclass(frozen=True)
class GiveUp:
    """Pause a study whose drivers keep ending, or fail it."""

    study_id: str


Command = StartDriver | EndStudy | PauseStudy | GiveUp


@dataclass(frozen=True)
class Seen:
    """One look at the world. `studies` are those that have not ended, `leases` those with a living driver of any origin.

    `capacity` is None while the cluster does not say what it holds.
    """

    studies: Sequence[Study]
    leases: Mapping[str, str]
    launched: Mapping[str, Launched]
    capacity: Capacity | None
    now: datetime
    rules: SharingRules = field(default_factory=SharingRules)

    def is_driven(self, study: Study) -> bool:
        """Whether the study has a driver now."""
        launched = self.launched.get(study.id)
        return study.id in self.leases or (launched is not None and launched.alive)


def decide(seen: Seen) -> list[Command]:
    """Commands that bring the world closer to what was asked for; a driver starts for whoever has nothing to wait for."""
    commands: list[Command] = []
    for study in seen.studies:
        if seen.is_driven(study):
            continue
        if study.state is StudyState.STOPPING:
            commands.append(EndStudy(study.id))
        elif study.state is StudyState.PAUSING:
            commands.append(PauseStudy(study.id))
        elif _is_given_up(seen, study):
            commands.append(GiveUp(study.id))
    waiting = why_not_driven(seen)
    return commands + [StartDriver(study.id) for study in _in_turn(seen) if study.id not in waiting]


def why_not_driven(seen: Seen) -> Mapping[str, tuple[WaitingCause, str]]:
    """Of each study that should run and gets no driver now, why: drivers run for at most `most_running` studies at a time.

    Those that run stay; a study that ran goes on before one that never did, then the higher priority comes first, then the older.
    """
    found: dict[str, tuple[WaitingCause, str]] = {}
    running = [study for study in seen.studies if seen.is_driven(study)]
    queue = 0
    for study in _in_turn(seen):
        cause = _own_cause(seen, study) or _cause_in_queue(seen.rules, study, running, queue)
        if cause is None:
            running.append(study)
            continue
        found[study.id] = cause
        queue += cause[0] is WaitingCause.QUEUE
    return found


def demanding(seen: Seen) -> list[Study]:
    """Studies that use workers, or would if there were any: those with a driver first, then the others as their turn comes."""
    waiting = why_not_driven(replace(seen, capacity=_ROOM_FOR_ALL))
    driven = [study for study in seen.studies if seen.is_driven(study) and study.state in _GOING]
    able = [study for study in sorted(driven, key=_turn) if seen.rules.of_project(study.project).spent is None]
    return [*able, *(study for study in _in_turn(seen) if study.id not in waiting)]


def _in_turn(seen: Seen) -> list[Study]:
    """Studies that should run and have no driver, in the order in which they get one."""
    should = [
        study for study in seen.studies if study.state in _GOING and not seen.is_driven(study) and not _is_given_up(seen, study)
    ]
    return sorted(should, key=_turn)


def _turn(study: Study) -> tuple[bool, float, datetime, str]:
    return study.state is StudyState.QUEUED, -study.definition.priority, study.created_at, study.id


def _own_cause(seen: Seen, study: Study) -> tuple[WaitingCause, str] | None:
    """Why a study does not get a driver whatever else runs."""
    if seen.capacity is None or not seen.capacity.cpus:
        return WaitingCause.CLUSTER, "No worker is up: the study starts as soon as one is."
    if not slots_within(seen.capacity, study.resources):
        return WaitingCause.SIZE, too_large(seen.capacity, study.resources)
    spent = seen.rules.of_project(study.project).spent
    if spent is not None:
        return WaitingCause.QUOTA, spent
    again = _starts_again_at(seen, study)
    if again is not None:
        return WaitingCause.DRIVER, f"Its driver ended without a new report: it is started again at {again:%H:%M:%S} UTC."
    return None


def _cause_in_queue(rules: SharingRules, study: Study, running: Sequence[Study], before: int) -> tuple[WaitingCause, str] | None:
    """Why a study does not get a driver beside those that run; `before` are in the queue before it."""
    if len(running) >= rules.most_running:
        ahead = f", and {_about(before)} more go before it" if before else ", and it is the next"
        return WaitingCause.QUEUE, f"{_run(len(running))}, as many as may at once (max_running_studies){ahead}."
    of_project = rules.of_project(study.project).most_running
    if of_project is not None and sum(one.project == study.project for one in running) >= of_project:
        many = "1 study" if of_project == 1 else f"{of_project} studies"
        return WaitingCause.QUOTA, f"Project {study.project!r} runs {many}, as many as it may at once (max_running_studies)."
    most, user = rules.most_running_of_a_user, study.created_by
    if user is not None and most is not None and sum(one.created_by == user for one in running) >= most:
        return WaitingCause.QUOTA, f"{_run(most, user)}, as many as may at once (max_running_studies_per_user)."
    return None


def _about(number: int) -> str:
    """A place in a long queue. To the one it would change, and be written, for each of many studies whenever one starts."""
    return str(number) if number < _TOLD[0] else f"at least {max(step for step in _TOLD if step <= number)}"


def _run(number: int, user: str | None = None) -> str:
    of_user = "" if user is None else f" of {user!r}"
    return f"1 study{of_user} runs" if number == 1 else f"{number} studies{of_user} run"


def _is_given_up(seen: Seen, study: Study) -> bool:
    launched = seen.launched.get(study.id)
    return launched is not None and not launched.alive and launched.fruitless >= LAUNCHES_WITHOUT_PROGRESS


def _starts_again_at(seen: Seen, study: Study) -> datetime | None:
    launched = seen.launched.get(study.id)
    if launched is None or launched.fruitless == 0:
        return None
    again = launched.at + timedelta(seconds=min(30, 2**launched.fruitless))
    return again if seen.now < again else None
