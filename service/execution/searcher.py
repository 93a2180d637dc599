"""Tune's two questions, answered by the ledger: what next, and may it go on?"""

import logging
import os
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from service.domain.errors import NoSpace, StorageAway
from service.domain.trial import Trial, TrialReason
from service.execution.assignment import Assignment, Progress
from service.execution.keepwarm import keep_warm
from service.execution.ledger import Finished, Idle, Ledger
from service.execution.trainable import ASSIGNMENT, PROGRESS

_LOG = logging.getLogger("tuneyard.driver")

Assign = Callable[[Trial], Assignment]

_OPEN: dict[str, tuple[Ledger, Assign]] = {}
"""Tune pickles its searcher and scheduler, which a ledger cannot be: they carry the study's id and look it up here."""


def open_ledger(ledger: Ledger, assign: Assign) -> None:
    """Make a ledger known to the searchers and schedulers of this process."""
    _OPEN[ledger.study.id] = (ledger, assign)


def give_up(failure: Exception) -> None:
    """End this process as if it had been killed."""
    _LOG.error("the ledger cannot be written", exc_info=failure)
    logging.shutdown()
    os._exit(1)


def _refused(trial: Trial, error: ValidationError) -> Progress:
    """The end of a trial whose parameters make no configuration."""
    said = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
    detail = f"The trainer does not take these parameters together: {said}"
    return Progress(trial.number, trial.attempts, None, outcome="refused", reason=TrialReason.TRAINER_ERROR.value, detail=detail)


class LedgerSearcher(Searcher):  # type: ignore[misc]  # ray has no types
    """What next? Every suggestion is one attempt."""

    def __init__(self, study_id: str) -> None:
        super().__init__()
        self._study_id = study_id
        self._running: dict[str, tuple[int, int]] = {}

    def suggest(self, trial_id: str) -> Any:
        """An assignment; None while nothing may start; FINISHED when nothing runs either, as Tune would block."""
        ledger, assign = _OPEN[self._study_id]
        while True:
            match ledger.next():
                case Idle():
                    return None
                case Finished():
                    return Searcher.FINISHED
                case Trial() as trial:
                    try:
                        assignment = assign(trial).to_json()
                    except ValidationError as error:  # values that only three or more of together the trainer does not take
                        ledger.record(_refused(trial, error))
                        continue
                    except NoSpace as full:
                        ledger.record(Progress(trial.number, trial.attempts, None, outcome="no_space", detail=full.detail))
                        continue
                    except StorageAway as away:
                        ledger.record(Progress(trial.number, trial.attempts, None, outcome="away", detail=away.detail))
                        continue
                    self._running[trial_id] = (trial.number, trial.attempts)
                    return {ASSIGNMENT: assignment}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:  # noqa: FBT001, FBT002 - Tune's signature
        ledger, _ = _OPEN[self._study_id]
        number, attempt = self._running.pop(trial_id, (None, None))
        if number is None or attempt is None:
            return
        try:
            # A result with `done` comes only here, not to the scheduler. `step` never raises: an error is a lost process.
            if result and PROGRESS in result and not error:
                ledger.record(Progress.from_json(result[PROGRESS]))
            ledger.lose(number, attempt, "the worker's process or node was lost")
        except Exception as failure:
            # Tune would log it and go on, with an attempt that never ends. The next driver replays the store instead.
            give_up(failure)

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        return True

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the store has it."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class LedgerScheduler(FIFOScheduler):  # type: ignore[misc]  # ray has no types
    """May it go on?"""

    def __init__(self, study_id: str) -> None:
        super().__init__()
        self._study_id = study_id
        self._warm = False
        self._live: dict[str, Any] = {}
        """In the order in which they came."""

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self._live[trial.trial_id] = trial
        if not self._warm:
            ledger, _ = _OPEN[self._study_id]
            keep_warm(getattr(tune_controller, "_tune_controller", tune_controller), lambda: ledger.slots)
            self._warm = True

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        ledger, _ = _OPEN[self._study_id]
        goes_on = ledger.record(Progress.from_json(result[PROGRESS]))
        return str(TrialScheduler.CONTINUE if goes_on else TrialScheduler.STOP)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The first attempt that waits: as Ray's, without going through all that have ended."""
        for trial in list(self._live.values()):
            if trial.is_finished():
                del self._live[trial.trial_id]
            elif trial.status == trial.PENDING:
                return trial
        return None
