"""Why a study or a trial waits, in a sentence, and since when."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import islice
from typing import assert_never

from service.domain.budget import may_train
from service.domain.history import History
from service.domain.lineage import members_of
from service.domain.rungs import all_rungs, brackets
from service.domain.strategy import (
    AutoStrategy,
    BayesianStrategy,
    GridStrategy,
    HyperbandStrategy,
    MedianStrategy,
    PbtStrategy,
    RandomStrategy,
    SobolStrategy,
)
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialState


class WaitingCause(StrEnum):
    """What something waits for."""

    CONTROLLER = "controller"
    """The service's own process that starts studies."""
    CLUSTER = "cluster"
    """A worker, of which there is none."""
    SIZE = "size"
    """A worker that is large enough."""
    QUEUE = "queue"
    """Another study's end, as no more may run at once."""
    QUOTA = "quota"
    """Another study of the same user."""
    DRIVER = "driver"
    """Its driver, which starts."""
    SHARE = "share"
    """Its turn among the studies that share the workers."""
    SLOTS = "slots"
    """A slot that is in use."""
    PAUSED = "paused"
    """Somebody who resumes the study."""
    RETRY = "retry"
    """The time at which a trial is tried again after an error."""
    RUNG = "rung"
    """Other trials, which it is compared with."""
    BUDGET = "budget"
    """A larger budget."""


@dataclass(frozen=True)
class Waiting:
    """What it waits for, a sentence for people, and when that began."""

    cause: WaitingCause
    detail: str
    since: datetime


def counted(number: float, what: str) -> str:
    """`1 slot`, `2 slots`, `0.5 slots`, `1,500 slots`."""
    shown = f"{number:.3g}" if number < 100 else f"{number:,.0f}"  # noqa: PLR2004 - digits behind the point say nothing there
    return f"{shown} {what}{'' if number == 1 else 's'}"


_Cause = tuple[WaitingCause, str]
_LIVE = (TrialState.QUEUED, TrialState.RUNNING)


def study_waiting(study: Study, of_share: Waiting | None, *, is_known: bool) -> Waiting | None:
    """Why a study waits. `of_share` is what its share says; it has none before the controller knows it."""
    if study.state not in {StudyState.QUEUED, StudyState.RUNNING}:
        return None
    if of_share is not None or study.state is StudyState.RUNNING:
        return of_share
    since = study.resumed_at or study.created_at
    if not is_known:
        return Waiting(WaitingCause.CONTROLLER, "The service has not looked at it yet, which takes it a second.", since)
    return Waiting(WaitingCause.DRIVER, "Its driver starts, which takes some seconds.", since)


def trial_waiting(
    study: Study, of_study: Waiting | None, history: History, trial: Trial, since: datetime, now: datetime
) -> Waiting | None:
    """Why a trial waits; None for one that runs or has ended. `since` is when its last attempt ended, or it was proposed."""
    if trial.state not in {TrialState.QUEUED, TrialState.PAUSED} or study.state is StudyState.STOPPING or study.state.is_end:
        return None
    if study.state in {StudyState.PAUSED, StudyState.PAUSING}:
        return Waiting(WaitingCause.PAUSED, f"Its study is {study.state}: it goes on when that is resumed.", since)
    if trial.state is TrialState.PAUSED:
        return Waiting(*_at_rung(study, history, trial, now), since)
    if trial.not_before is not None and trial.not_before > now:
        return Waiting(WaitingCause.RETRY, f"After an error it is tried again at {trial.not_before:%H:%M:%S} UTC.", since)
    if of_study is not None:
        return Waiting(of_study.cause, f"Its study waits: {of_study.detail}", since)
    return Waiting(WaitingCause.SLOTS, "It goes on as soon as a slot of its study is free.", since)


def _at_rung(study: Study, history: History, trial: Trial, now: datetime) -> _Cause:
    strategy, place = study.definition.plan.strategy, f"At report {trial.reports}"
    match strategy:
        case HyperbandStrategy(mode="sync"):
            return _in_bracket(study, history, trial, now)
        case HyperbandStrategy():
            there = sum(one.reports >= trial.reports for one in history.searched.trials.values())
            detail = f"of all that come there, {there} so far, the best 1 in {strategy.reduction_factor} go on"
            return _unless_unaffordable(study, history, trial, now) or (
                WaitingCause.RUNG, f"{place} it waits: {detail}, as slots are free.",
            )  # fmt: skip
        case PbtStrategy():
            latest = [trials[-1] for trials in members_of(history.searched.trials.values()).values()]
            coming = sum(one.state in _LIVE and one.rung <= trial.rung for one in latest)
            missing = strategy.population - len(latest)
            others = _others(coming, missing, "member", "members")
            ends = f"{place}, the end of its generation, it waits"
            if others:
                return WaitingCause.RUNG, f"{ends} for {others}: then copies of the best replace the worst."
            return _unless_unaffordable(study, history, trial, now) or (
                WaitingCause.SLOTS, f"{ends} for a slot: all members have come there.",
            )  # fmt: skip
        case GridStrategy() | RandomStrategy() | SobolStrategy() | BayesianStrategy() | MedianStrategy() | AutoStrategy():
            return WaitingCause.RUNG, f"{place} it waits for its study to go on."
        case _:
            assert_never(strategy)


def _in_bracket(study: Study, history: History, trial: Trial, now: datetime) -> _Cause:
    """What a trial of a synchronous bracket waits for."""
    members = [one for one in history.searched.trials.values() if one.bracket == trial.bracket]
    coming = sum(one.state in _LIVE and one.rung <= trial.rung for one in members)
    planned = next(islice(brackets(study.definition), trial.bracket, None), None)
    missing = 0 if planned is None else max(0, planned.sizes[0] - len(members))
    others = _others(coming, missing, "trial of its bracket", "trials of its bracket")
    if others:
        return WaitingCause.RUNG, f"At its rung, report {trial.reports}, it waits for {others}: then the best go on."
    return _unless_unaffordable(study, history, trial, now) or (
        WaitingCause.SLOTS, f"At its rung, report {trial.reports}, all have come: it goes on or ends when a slot is free.",
    )  # fmt: skip


def _unless_unaffordable(study: Study, history: History, trial: Trial, now: datetime) -> _Cause | None:
    """That what it would train next is more than the budget has left, where it is."""
    following = _next_report(study, trial)
    if may_train(study.definition.budget, history.spending(study, now), following - trial.reports):
        return None
    more = f"{counted(following - trial.reports, 'more report')} would be more than the budget has left"
    return WaitingCause.BUDGET, f"At report {trial.reports} it waits: {more}. It ends unless the study is extended."


def _next_report(study: Study, trial: Trial) -> int:
    """The report that it would run to next."""
    strategy, most = study.definition.plan.strategy, study.definition.max_reports
    if isinstance(strategy, PbtStrategy):
        return min(most, trial.reports + strategy.interval)
    return min((rung for rung in all_rungs(study.definition) if rung > trial.reports), default=most)


def _others(coming: int, missing: int, one: str, several: str) -> str | None:
    """`3 other trials of its bracket, of which 2 have not begun`; None where all have come."""
    number = coming + missing
    if not number:
        return None
    of_them = f" of which {missing}" if coming else " which"
    have = "has" if missing == 1 else "have"
    return f"{number} other {one if number == 1 else several}{f',{of_them} {have} not begun' if missing else ''}"
