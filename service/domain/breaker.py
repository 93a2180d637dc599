"""When a study's failures say that trying on only burns its budget: it pauses, and says why. Pure.

What diverged, did not fit or lost its worker says something of a configuration or a machine, and does not count, but for a trial
that ended because it was lost again and again. What was before the study was last resumed does not count either.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.domain.attempts import OF_CONFIGURATION, Attempts, is_fault
from service.domain.history import History
from service.domain.study import Study
from service.domain.trial import Attempt, Trial, TrialReason, TrialState

FAILURES_ALIKE = 3
LATEST = 10
UNFIT = 10

_FAULTS = frozenset({TrialReason.TRAINER_ERROR, TrialReason.RETRIES_EXHAUSTED})
_FAILED = frozenset({TrialState.FAILED, TrialState.INFEASIBLE})


@dataclass(frozen=True)
class Fault:
    """That a trial failed for no reason of its configuration: when, and what was said."""

    trial: Trial
    at: datetime
    detail: str | None


def tripped(study: Study, history: History, attempts: Attempts) -> str | None:
    """Why the study should pause, and what to do; None while it should go on. The final's runs take nothing from it."""
    trials = list(history.searched.trials.values())
    ended = sorted(
        (trial for trial in trials if trial.ended_at and _is_new(study, trial.ended_at)),
        key=lambda trial: (trial.ended_at, trial.number),
    )
    return (
        _alike(study, [trial for trial in trials if _is_at_work(study, attempts.get(trial.number, ()))], attempts)
        or _mostly_failing(study, [trial for trial in ended if trial.reason not in OF_CONFIGURATION])
        or _nothing_fits(trials, [trial for trial in ended if trial.state in _FAILED][-UNFIT:])
    )


def error_of(detail: str | None) -> str:
    """The line of a traceback that names the exception, or the last line of anything else."""
    lines = [line for line in (detail or "").splitlines() if line.strip()]
    if not lines:
        return "nothing"
    frames = [at for at, line in enumerate(lines) if line.startswith('  File "')]
    after = lines[frames[-1] + 1 :] if frames else ()
    return next((line for line in after if not line[0].isspace()), lines[-1]).strip()


def kind_of_error(detail: str | None) -> str:
    """That line without what differs from trial to trial: numbers, paths, and what is quoted."""
    return _NUMBER.sub("#", _PATH.sub("/", _QUOTED.sub("''", error_of(detail))))


_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|`[^`]*`")
_PATH = re.compile(r"(?<![\w.])(?:~|\.{1,2})?(?:/[\w.@%+-]+)+/?")
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


def _alike(study: Study, trials: Sequence[Trial], attempts: Attempts) -> str | None:
    """Some trials failed with the same error, and no other one has come further than they did."""
    groups: dict[str, list[Fault]] = {}
    for trial in trials:
        fault = _last_fault(study, trial, attempts.get(trial.number, ()))
        if fault is not None:
            groups.setdefault(kind_of_error(fault.detail), []).append(fault)
    for faults in groups.values():
        if len(faults) < FAILURES_ALIKE:
            continue
        furthest = max(fault.trial.reports for fault in faults)
        failing = {fault.trial.number for fault in faults}
        others = [trial for trial in trials if trial.number not in failing]
        if not any(trial.reports > furthest or trial.state is TrialState.COMPLETED for trial in others):
            numbers = sorted(failing)
            named = f"{', '.join(str(number) for number in numbers[:-1])} and {numbers[-1]}"
            what = f"Trials {named} failed alike, and no trial has come further"
            return _advice(what, max(faults, key=lambda fault: (fault.at, fault.trial.number)))
    return None


def _mostly_failing(study: Study, ended: Sequence[Trial]) -> str | None:
    """More than half of the latest trials failed."""
    latest = ended[-LATEST:]
    failed = [trial for trial in latest if trial.reason in _FAULTS]
    if len(latest) < LATEST or 2 * len(failed) <= LATEST:
        return None
    last = failed[-1]
    what = f"{len(failed)} of the last {LATEST} trials failed"
    return _advice(what, Fault(last, last.ended_at or study.created_at, last.detail))


def _nothing_fits(trials: Sequence[Trial], latest: Sequence[Trial]) -> str | None:
    if len(latest) < UNFIT or any(trial.reports for trial in trials):
        return None
    advice = "lower the learning rate, the length or the batch size in the space, or take a smaller model"
    return (
        f"No configuration fits, as the last {len(latest)} trials show: stop the study (`:stop`), {advice}, and start it again; "
        f"or try on with `:resume`. The last one said: {error_of(latest[-1].detail)}"
    )


def _advice(what: str, fault: Fault) -> str:
    said = (fault.detail or "").strip() or "nothing"
    return (
        f"{what}: {error_of(fault.detail)}. Mend what causes it and resume the study with `:resume`, or end it with `:stop`. "
        f"Trial {fault.trial.number} said:\n{said}"
    )


def _last_fault(study: Study, trial: Trial, attempts: Sequence[Attempt]) -> Fault | None:
    if trial.reason is TrialReason.RETRIES_EXHAUSTED and trial.ended_at and _is_new(study, trial.ended_at):
        return Fault(trial, trial.ended_at, trial.detail)
    failed = [attempt for attempt in attempts if is_fault(trial, attempt)]
    found = [Fault(trial, one.ended_at, one.detail) for one in failed if one.ended_at and _is_new(study, one.ended_at)]
    return found[-1] if found else None


def _is_at_work(study: Study, attempts: Sequence[Attempt]) -> bool:
    """Whether some attempt runs, or ended since the study was last resumed."""
    return any(attempt.ended_at is None or _is_new(study, attempt.ended_at) for attempt in attempts)


def _is_new(study: Study, at: datetime) -> bool:
    return study.resumed_at is None or at > study.resumed_at
