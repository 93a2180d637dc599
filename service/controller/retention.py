"""Which checkpoints are kept, and which are deleted and why. Pure.

What a trial that has not ended has is never touched, nor is the best export, those on the front and those of the finalists.
Of the rest, what nobody can use goes at once; and where a study has a budget for its checkpoints, what is left goes, oldest
and worst first, until there is room: first the states that only a study which is extended would use, then exports.

The budget holds like this. At a look there lies no more on disk than the budget, less room for one more state and one more
export of each running trial, as large as the largest so far. Between two looks a trial that writes a second checkpoint replaces
its first, and in object storage its third state the first. So the budget is only exceeded by the first checkpoints of trials
that have just started, one each, there two states; or where what is protected is more than the budget: then the study goes on,
and says so.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from service.domain.final import kept_runs
from service.domain.front import front_of
from service.domain.history import History
from service.domain.stored import Stored, StoredKind
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialReason, TrialState

GRACE = timedelta(minutes=10)
"""How old something must be that no trial accounts for: a worker may have begun it before the history was read."""

_REVIVED = frozenset({TrialReason.BUDGET_SPENT, TrialReason.TARGET_REACHED, TrialReason.STOP_REQUESTED})
"""Ends after which a trial goes on when its study is extended."""
_FINAL = frozenset({StudyState.CANCELLED, StudyState.FAILED})
"""Ends after which a study is never extended."""

_WRITTEN = (StoredKind.RESUME, StoredKind.EXPORT)
"""What a report may write."""


class Because(StrEnum):
    """Why a checkpoint was deleted."""

    ENDED = "ended"
    """A state: its trial has ended and will not go on."""
    NOT_KEPT = "not_kept"
    """An export: its trial is not among the best that `checkpoints.keep` keeps."""
    SUPERSEDED = "superseded"
    """An export of a report that is not its trial's best, or an earlier attempt's of the one that is."""
    UNFINISHED = "unfinished"
    """A killed writer left it."""
    UNKNOWN_TRIAL = "unknown_trial"
    """The study has no such trial."""
    BUDGET = "budget"
    """There was no room for it within `checkpoints.max_total_gb`."""


@dataclass(frozen=True)
class Deletion:
    """A checkpoint to delete."""

    stored: Stored
    because: Because


@dataclass(frozen=True)
class Retained:
    """What to delete, the bytes that stay, and the trials whose protected export is not on the disk.

    `over` are the bytes by which what is protected exceeds the budget.
    """

    deletions: Sequence[Deletion]
    bytes: int
    over: int
    missing: tuple[int, ...]


def retain(study: Study, history: History, stored: Sequence[Stored], now: datetime) -> Retained:
    """What to delete of `stored`, which must have been listed before `history` was read."""
    keeping = _Keeping.of(study, history, stored)
    needless = [Deletion(one, why) for one in stored if (why := keeping.needless(one, now)) is not None]
    gone = {deletion.stored for deletion in needless}
    left = [one for one in stored if one not in gone]
    limit = study.definition.checkpoints.max_bytes
    total, dropped = sum(one.bytes for one in left), []
    if limit is not None:
        target = limit - reserve(stored, len(history.in_state(TrialState.RUNNING)))
        for one in sorted((one for one in left if keeping.may_go(one)), key=keeping.worst_first):
            if total <= target:
                break
            dropped.append(Deletion(one, Because.BUDGET))
            total -= one.bytes
    here = {one.trial for one in left if one.kind is StoredKind.EXPORT}
    missing = tuple(sorted(number for number in keeping.missing_if_not_here if number not in here))
    return Retained([*needless, *dropped], total, max(0, total - limit) if limit is not None else 0, missing)


def kept(study: Study, history: History) -> Mapping[int, int | None]:
    """The report whose export is kept, as long as there is room, of each trial that has ended; None keeps nothing of it.

    The `checkpoints.keep` best trials keep their best report's; so do all on the front where there are several objectives, and
    the best of each finalist's runs. Trials that have not ended are not named, nor are those that started after `history` was
    read: what they have is left alone.
    """
    best = {trial.number for trial in _ranked(study, history)[: study.definition.checkpoints.keep]} | _protected(study, history)
    ended = [trial for trial in history.trials.values() if trial.state.is_end]
    return {trial.number: trial.best_report if trial.number in best else None for trial in ended}


def reserve(stored: Collection[Stored], running: int) -> int:
    """Room for what running trials write until the next look."""
    sizes = {kind: max((one.bytes for one in stored if one.kind is kind), default=0) for kind in _WRITTEN}
    return running * sum(sizes.values())


def _ranked(study: Study, history: History) -> list[Trial]:
    """The search's trials that have a best report, the best one first."""
    objective = study.definition.objective
    measured = [trial for trial in history.searched.trials.values() if trial.best_value is not None]
    return sorted(measured, key=lambda trial: (objective.sort_key(trial.best_value or 0.0), trial.number))


def _protected(study: Study, history: History) -> set[int]:
    """The trials whose export stays whatever it takes: the best one, those on the front, and the best of each finalist's runs."""
    protected = {trial.number for trial in _ranked(study, history)[:1]} | kept_runs(study, list(history.trials.values()))
    if len(study.definition.objectives) > 1:
        protected |= {member.trial.number for member in front_of(study, history).members}
    return protected


@dataclass(frozen=True)
class _Keeping:
    """What may be deleted of one study.

    `kept` and `protected` are what the functions of those names say; what users asked to stop, `stops`, is never revived.
    `attempts` are the last ones that exported a trial's report: that is what is pulled.
    """

    study: Study
    trials: Mapping[int, Trial]
    kept: Mapping[int, int | None]
    protected: Collection[int]
    stops: Collection[int]
    attempts: Mapping[tuple[int, int], int]

    @classmethod
    def of(cls, study: Study, history: History, stored: Collection[Stored]) -> "_Keeping":
        exports = sorted((one for one in stored if one.kind is StoredKind.EXPORT), key=lambda one: one.attempt)
        attempts = {(one.trial, one.report): one.attempt for one in exports}
        return cls(study, history.trials, kept(study, history), _protected(study, history), history.stops, attempts)

    @property
    def missing_if_not_here(self) -> Collection[int]:
        """The trials that have ended and whose export must be on the disk."""
        return [number for number in self.protected if self.kept.get(number) is not None]

    def needless(self, one: Stored, now: datetime) -> Because | None:
        """Why nobody can use it; None where somebody may."""
        trial, is_old = self.trials.get(one.trial), now - one.at > GRACE
        if trial is None:
            return Because.UNKNOWN_TRIAL if is_old else None
        if one.kind is StoredKind.UNFINISHED:
            is_left = trial.state.is_end or (is_old and trial.state is not TrialState.RUNNING)
            return Because.UNFINISHED if is_left else None
        if not trial.state.is_end:
            return None
        if one.kind is StoredKind.RESUME:
            return None if self._may_be_revived(trial) else Because.ENDED
        report = self.kept[trial.number]
        if report is None:
            return Because.NOT_KEPT
        is_pulled = one.report == report and one.attempt == self.attempts[one.trial, one.report]
        return None if is_pulled else Because.SUPERSEDED

    def may_go(self, one: Stored) -> bool:
        """Whether what is not needless may be deleted for want of room."""
        trial = self.trials.get(one.trial)
        if trial is None or not trial.state.is_end or one.kind is StoredKind.UNFINISHED:
            return False
        return one.kind is StoredKind.RESUME or one.trial not in self.protected

    def worst_first(self, one: Stored) -> tuple[bool, bool, float, datetime, int]:
        """Order to delete in: states before exports, the worst first, and the oldest of equals."""
        value = self.trials[one.trial].best_value
        badness = 0.0 if value is None else -self.study.definition.objective.sort_key(value)
        return one.kind is StoredKind.EXPORT, value is not None, badness, one.at, one.trial

    def _may_be_revived(self, trial: Trial) -> bool:
        return trial.reason in _REVIVED and trial.number not in self.stops and self.study.state not in _FINAL
