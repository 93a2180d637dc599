"""A study's decisions made again from what its store says happened, in that order: each must be the one that was recorded.

What a driver knew at each moment is rebuilt from the study's events, and `next_action` is asked again wherever a trial was
started, promoted or cut. So a study whose drivers were killed has decided as one whose driver lived on, or this finds where not.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from service.domain.decision import Decision
from service.domain.events import Event, EventKind
from service.domain.history import History
from service.domain.ports import Store
from service.domain.retries import pause_seconds
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import AttemptOutcome, Report, Trial, TrialReason, TrialState
from service.search import Action, Cut, Done, Promote, Resume, Start, next_action
from service.search.decide import end_of
from service.search.final import ends_study

_PAGE = 500
_WAITING = {TrialState.QUEUED, TrialState.PAUSED}
_BY_REPORT = {TrialReason.BELOW_MEDIAN}
"""Ends of running trials that a rule decides at a report."""


def events_of(store: Store, study_id: str) -> list[Event]:
    """All events of a study, in order."""
    found: list[Event] = []
    while page := store.events.after(study_id, found[-1].id if found else 0, _PAGE):
        found += page
    return found


def differences(store: Store, study_id: str) -> list[str]:
    """Every decision of an ended study that would be another one now."""
    events = events_of(store, study_id)
    return list(_Replay.of(store, study_id, events).run(events))


@dataclass
class _Replay:
    study: Study
    ended: History
    """The history at the study's end: what events do not tell of trials is taken from here."""
    reports: dict[tuple[int, int], Report]
    outcomes: dict[tuple[int, int], AttemptOutcome | None]
    decisions: dict[int, list[Decision]]
    history: History
    promotions: Mapping[int, int]
    """How often each trial was promoted until the end."""
    cutting: list[int] = field(default_factory=list)
    """Trials of a cut whose events are still to come."""
    state: StudyState = StudyState.QUEUED

    @classmethod
    def of(cls, store: Store, study_id: str, events: Sequence[Event]) -> "_Replay":
        study, ended = store.studies.get(study_id), store.trials.history(study_id)
        numbers = list(ended.trials)
        return cls(
            study=replace(study, state=StudyState.RUNNING, reason=None, ended_at=None),
            ended=ended,
            reports={(number, one.number): one for number in numbers for one in store.trials.reports(study_id, number)},
            outcomes={
                (number, one.number): one.outcome for number, each in store.trials.all_attempts(study_id).items() for one in each
            },
            decisions={number: [one for _, one in store.trials.decisions(study_id, number)] for number in numbers},
            history=History(prior=ended.prior),
            promotions=_promotions(events),
        )

    def run(self, events: Sequence[Event]) -> Iterator[str]:
        for event in events:
            match event.kind:
                case EventKind.STUDY_STATE:
                    yield from self._study_moved(event)
                case EventKind.TRIAL_REQUESTED:
                    self.history = replace(self.history, requested=(*self.history.requested, event.payload["parameters"]))
                case EventKind.TRIAL_CREATED:
                    yield from self._created(event)
                case EventKind.TRIAL_REPORT:
                    self._reported(event)
                case EventKind.TRIAL_STATE:
                    yield from self._moved(event)
        yield from (f"trial {number}: no reason was asked for {left}" for number, left in self.decisions.items() if left)

    def _study_moved(self, event: Event) -> Iterator[str]:
        self.state = StudyState(event.payload["state"])
        if self.state is not StudyState.STOPPING:
            return
        reason = StudyReason(event.payload["reason"])
        if reason is StudyReason.TARGET_REACHED and self.study.definition.final is None:
            best = self.history.best(self.study.definition.objective)
            if best is None or not ends_study(self.study, best):
                yield "the study ended at a target that no trial had reached"
        elif reason not in {StudyReason.STOP_REQUESTED, StudyReason.CANCEL_REQUESTED}:
            action = self._next(event)
            if action != Done(reason):
                yield f"the study ended for {reason}, where {action} would come next"

    def _created(self, event: Event) -> Iterator[str]:
        payload = event.payload
        number, known = payload["trial"], self.ended.trials[payload["trial"]]
        start = Start(
            number=number, parameters=payload["parameters"], until=payload["until"],
            bracket=known.bracket, rung=known.rung - self.promotions[number], parent=known.parent,
            parent_report=known.parent_report, repeats=known.repeats, seed=known.seed,
        )  # fmt: skip
        yield from self._compare(event, start)
        self._keep(start.trial(self.study.id, event.at).started(event.at))

    def _reported(self, event: Event) -> None:
        number = event.payload["trial"]
        report = self.reports[number, event.payload["report"]]
        definition = self.study.definition
        gpus, counts = definition.resources.gpus, definition.counts(report.metrics)
        self._keep(self.history.trials[number].reported(report, definition.objective, gpus, counts=counts))
        value, point = report.metrics[definition.objective.metric], definition.point(report.metrics)
        self.history = self.history.with_value(number, value, point, report.seconds)

    def _moved(self, event: Event) -> Iterator[str]:
        before = self.history.trials[event.payload["trial"]]
        state = TrialState(event.payload["state"])
        if state is TrialState.RUNNING:
            yield from self._started(event, before)
        elif state.is_end:
            yield from self._ended(event, before, TrialReason(event.payload["reason"]))
        elif state is TrialState.PAUSED:
            self._keep(before.paused())
        else:
            self._keep(self._queued_again(event, before))

    def _queued_again(self, event: Event, before: Trial) -> Trial:
        if self.outcomes.get((before.number, before.attempts)) is AttemptOutcome.FAILED:
            return before.failed_attempt(event.at + timedelta(seconds=pause_seconds(before.errors)))
        return before.interrupted()

    def _started(self, event: Event, before: Trial) -> Iterator[str]:
        until = event.payload["until"]
        if before.state is TrialState.PAUSED:
            yield from self._compare(event, Promote(before.number, before.rung + 1, until))
            before = before.promoted(before.rung + 1, until)
        else:
            yield from self._compare(event, Resume(before.number))
        self._keep(before.started(event.at))

    def _ended(self, event: Event, before: Trial, reason: TrialReason) -> Iterator[str]:
        # A driver may cut before it has heard of a pause.
        if before.state in _WAITING and self.state in {StudyState.RUNNING, StudyState.PAUSING}:
            yield from self._cut(event, before, reason)
        elif reason in _BY_REPORT:
            found = end_of(self.study, self.history, before)
            if found is None or found[0] is not reason:
                yield f"trial {before.number} was ended by {reason} at report {before.reports}, and would go on"
            else:
                yield from self._explained(before.number, found[1])
        self._keep(before.ended(reason, event.at))

    def _cut(self, event: Event, before: Trial, reason: TrialReason) -> Iterator[str]:
        if not self.cutting:
            action = self._next(event)
            if not isinstance(action, Cut) or action.reason is not reason or before.number not in action.numbers:
                yield f"trial {before.number} was cut by {reason}, where {action} would come next"
                return
            self.cutting = list(action.numbers)
            for number, why in zip(action.numbers, action.why, strict=False):
                yield from self._explained(number, why)
        if before.number in self.cutting:
            self.cutting.remove(before.number)
        else:
            yield f"trial {before.number} was cut beside {self.cutting}"

    def _compare(self, event: Event, made: Action) -> Iterator[str]:
        if self.cutting:
            yield f"a cut left trials {self.cutting} out"
            self.cutting = []
        action = self._next(event)
        if action != made:
            yield f"event {event.id}: {made} was done, and {action} would be"
        elif isinstance(action, Start | Promote):
            yield from self._explained(action.number, action.why)

    def _explained(self, number: int, why: Decision | None) -> Iterator[str]:
        """Whether the reason that was recorded next for the trial is this one."""
        if why is None:
            return
        said = self.decisions[number].pop(0) if self.decisions[number] else None
        if said != why:
            yield f"trial {number}: `{said}` was recorded, and `{why}` would be"

    def _next(self, event: Event) -> Action:
        return next_action(self.study, self.history, event.at)

    def _keep(self, trial: Trial) -> None:
        self.history = self.history.with_trial(trial)


def _promotions(events: Sequence[Event]) -> Mapping[int, int]:
    counted: Counter[int] = Counter()
    states: dict[int, str] = {}
    for event in events:
        if event.kind in {EventKind.TRIAL_CREATED, EventKind.TRIAL_STATE}:
            number, state = event.payload["trial"], event.payload["state"]
            counted[number] += (states.get(number), state) == (TrialState.PAUSED, TrialState.RUNNING)
            states[number] = state
    return counted


def told(trial: Any) -> tuple[Any, ...]:
    """What a simulation of a study must say of a trial too."""
    return dict(trial.parameters), trial.reports, trial.rung, trial.bracket, trial.reason, trial.best_value
