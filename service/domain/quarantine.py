"""Nodes and GPUs on which a study's attempts fail while they succeed elsewhere. Pure: worked out from the attempts alone.

A worker is `node:process`, or `node:process/gpu0,1` where it has GPUs. What was before the study was last resumed does not count,
so that resuming it tries a mended node again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.domain.attempts import DRIVER_GONE, Attempts, is_fault
from service.domain.breaker import error_of
from service.domain.events import Event, EventKind
from service.domain.history import History
from service.domain.study import Study
from service.domain.trial import Attempt, AttemptOutcome, Trial

FAILURES_OF_A_PLACE = 3
"""Trials, one after another, that have to fail at a place."""


@dataclass(frozen=True)
class Quarantine:
    """A place that a study is kept from: a node, or one GPU of a node that has others, with the trials that failed there."""

    node: str
    gpu: str | None
    trials: tuple[int, ...]
    error: str

    @property
    def sentence(self) -> str:
        *first, last = [str(number) for number in self.trials]
        failed = (
            f"trials {', '.join(first)} and {last} failed there, and others went well elsewhere. The last error: {self.error}"
        )
        if self.gpu is None:
            return f"Nothing more of this study runs on node {self.node}: {failed}. Mend it and resume the study to try it again."
        return (
            f"GPU {self.gpu} of node {self.node} seems to be broken: {failed}. Ray cannot keep a study from one GPU: mend it, or "
            "start Ray there without it."
        )


@dataclass(frozen=True)
class _Seen:
    """One attempt at a place. `is_good` is None for what says nothing of the place."""

    trial: Trial
    attempt: Attempt
    is_good: bool | None

    @property
    def node(self) -> str:
        return node_of(self.attempt.worker or "")

    @property
    def gpus(self) -> frozenset[str]:
        return frozenset(gpus_of(self.attempt.worker or ""))


def quarantined(study: Study, history: History, attempts: Attempts, now: datetime) -> tuple[Quarantine, ...]:
    """The nodes that the study is kept from, and the GPUs that seem to be broken."""
    seen = [
        _Seen(history.trials[number], attempt, _is_good(history.trials[number], attempt))
        for number, tried in attempts.items()
        for attempt in tried
        if attempt.worker is not None and _is_new(study, attempt)
    ]
    found = [_judged(seen, node, None, now) for node in sorted({one.node for one in seen})]
    whole = {one.node for one in found if one is not None}
    gpus = sorted({(one.node, gpu) for one in seen if one.node not in whole for gpu in one.gpus})
    found += [_judged(seen, node, gpu, now) for node, gpu in gpus]
    return tuple(one for one in found if one is not None)


def is_known(one: Quarantine, known: Sequence[Quarantine]) -> bool:
    """Whether that place is among them."""
    return (one.node, one.gpu) in {(each.node, each.gpu) for each in known}


def quarantine_event(study_id: str, found: Quarantine, now: datetime) -> Event:
    """What is told when a place is found."""
    payload = {"node": found.node, "gpu": found.gpu, "trials": list(found.trials), "detail": found.sentence}
    return Event(EventKind.STUDY_QUARANTINE, study_id, now, {key: each for key, each in payload.items() if each is not None})


def nodes_of(found: Sequence[Quarantine]) -> frozenset[str]:
    """The nodes among them."""
    return frozenset(one.node for one in found if one.gpu is None)


def elsewhere(attempts: Attempts, found: Sequence[Quarantine]) -> Attempts:
    """The attempts at places that are not quarantined: what failed at one says nothing of the study."""

    def is_kept(attempt: Attempt) -> bool:
        worker = attempt.worker or ""
        return not any(one.node == node_of(worker) and (one.gpu is None or one.gpu in gpus_of(worker)) for one in found)

    return {number: [attempt for attempt in tried if is_kept(attempt)] for number, tried in attempts.items()}


def node_of(worker: str) -> str:
    """The node in a worker's name."""
    return worker.partition(":")[0]


def gpus_of(worker: str) -> list[str]:
    """The GPUs in a worker's name, as its node counts them."""
    gpus = worker.partition("/gpu")[2]
    return gpus.split(",") if gpus else []


def _judged(seen: Sequence[_Seen], node: str, gpu: str | None, now: datetime) -> Quarantine | None:
    """Whether the latest attempts at a place all failed, of several trials, while more went well than badly elsewhere."""
    here: list[_Seen] = []
    others: list[_Seen] = []
    for one in seen:
        (here if one.node == node and (gpu is None or gpu in one.gpus) else others).append(one)
    run: list[_Seen] = []
    for one in sorted(here, key=lambda one: (one.attempt.ended_at or now, one.attempt.started_at), reverse=True):
        if one.is_good:
            break
        if one.is_good is False:
            run.insert(0, one)
    trials = tuple(sorted({one.trial.number for one in run}))
    if len(trials) < FAILURES_OF_A_PLACE:
        return None
    began = run[0].attempt.started_at
    lasted = max(_lasted(one.attempt, now) for one in run)
    good = [one for one in others if _outlived(one, began, lasted, now)]
    bad = [one for one in others if one.is_good is False and (one.attempt.ended_at or now) >= began]
    if len(good) <= len(bad):
        return None
    return Quarantine(node, gpu, trials, error_of(run[-1].attempt.detail))


def _outlived(one: _Seen, began: datetime, lasted: timedelta, now: datetime) -> bool:
    """Whether it went well since the failures began, or has run on for longer than any of them took to fail."""
    if one.attempt.ended_at is None:
        return bool(one.is_good) or _lasted(one.attempt, now) >= lasted
    return bool(one.is_good) and one.attempt.ended_at >= began


def _is_good(trial: Trial, attempt: Attempt) -> bool | None:
    match attempt.outcome:
        case None:
            return True if trial.reports > attempt.first else None
        case AttemptOutcome.CROWDED:
            return None
        case AttemptOutcome.LOST:
            return None if attempt.detail == DRIVER_GONE else False
        case AttemptOutcome.FAILED:
            return False if is_fault(trial, attempt) else None
        case _:
            return True


def _lasted(attempt: Attempt, now: datetime) -> timedelta:
    return (attempt.ended_at or now) - attempt.started_at


def _is_new(study: Study, attempt: Attempt) -> bool:
    return study.resumed_at is None or attempt.ended_at is None or attempt.ended_at > study.resumed_at
