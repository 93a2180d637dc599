"""What studies have learned, beside their own runs in the tracker: when they end, and now and then while they run."""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from service.domain.study import Study
from service.domain.trial import Trial
from service.tracking.tracker import Tracker, TrackerRefused

_LOG = logging.getLogger("tuneyard.mirror")
_FOLDER = "analysis"
_SHORTEST, _LONGEST = timedelta(seconds=10), timedelta(seconds=60)
_TRIALS = 25

Files = Mapping[str, bytes]
Make = Callable[[str], "Future[Files]"]
"""Begins to analyse a study and answers at once: that takes seconds, and studies that run are not to wait for it."""


def no_files(_study_id: str) -> "Future[Files]":
    """Makes nothing."""
    making: Future[Files] = Future()
    making.set_result({})
    return making


@dataclass(frozen=True)
class _Begun:
    """An analysis that was begun, of a study as it was then; `is_up` once the tracker has it, or will not get it."""

    version: int
    ended: int
    at: datetime
    making: "Future[Files]"
    is_up: bool = False


class StudyAnalyses:
    """Begins analyses when they are due, and uploads them when they are made. What goes wrong is logged, and stops nothing."""

    def __init__(self, make: Make) -> None:
        self._make = make
        self._begun: dict[str, _Begun] = {}

    def follow(self, study: Study, trials: Sequence[Trial], tracker: Tracker, run_id: str, now: datetime) -> bool:
        """Do what can be done at once; whether nothing is left to do. Of an ended study, raises what the tracker raises."""
        ended = sum(trial.ended_at is not None for trial in trials)
        begun = self._begun.get(study.id)
        if begun is not None and not begun.is_up:
            if not begun.making.done():
                return False
            self._upload(study, begun, tracker, run_id)
            begun = self._begun[study.id] = replace(begun, is_up=True)
        if not _is_due(study, ended, begun, now):
            return True
        self._begun[study.id] = _Begun(study.version, ended, now, self._make(study.id))
        return self.follow(study, trials, tracker, run_id, now)

    def made(self) -> Sequence[str]:
        """Ids of the studies whose analysis waits to be uploaded."""
        return [study_id for study_id, begun in self._begun.items() if begun.making.done() and not begun.is_up]

    def forget(self, study_id: str) -> None:
        """What was begun of a study that is gone, or that the tracker has lost."""
        self._begun.pop(study_id, None)

    def _upload(self, study: Study, begun: _Begun, tracker: Tracker, run_id: str) -> None:
        error = begun.making.exception()
        if error is not None:
            _LOG.warning("study %s gets no analysis beside its run: %s", study.id, error)
            return
        try:
            for name, content in begun.making.result().items():
                tracker.upload(run_id, f"{_FOLDER}/{name}", io.BytesIO(content), len(content))
        except TrackerRefused as refused:
            if study.ended_at is not None:
                raise  # it is tried again, as it will never be made again
            _LOG.warning("study %s: its analysis so far is not uploaded: %s", study.id, refused.detail)


def _is_due(study: Study, ended: int, begun: _Begun | None, now: datetime) -> bool:
    """At its end once more; before, when a minute has passed or many trials have ended since, but only when there is news."""
    if study.ended_at is not None:
        return begun is None or begun.version != study.version
    if begun is None:
        return ended > 0
    since = now - begun.at
    return (since >= _LONGEST and ended > begun.ended) or (since >= _SHORTEST and ended >= begun.ended + _TRIALS)
