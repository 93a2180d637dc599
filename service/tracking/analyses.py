"""Where the models of an ended study go wrong, beside their runs in the tracker."""

import io
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from service.domain.errors import CheckpointNotFound
from service.domain.ports import CheckpointStore
from service.domain.study import Study
from service.domain.trial import Trial
from service.tracking.tracker import Tracker

_LOG = logging.getLogger("tuneyard.mirror")
_FOLDER = "analysis"

Pictures = Mapping[str, bytes]
Draw = Callable[[Mapping[str, Any]], "Future[Pictures]"]
"""Begins to draw an analysis and answers at once: that takes seconds, and studies that run are not to wait for it."""


def no_pictures(_analysis: Mapping[str, Any]) -> "Future[Pictures]":
    """Draws nothing."""
    drawing: Future[Pictures] = Future()
    drawing.set_result({})
    return drawing


class Analyses:
    """Those of a study's best trials that are not uploaded yet. Uploading one again changes nothing."""

    def __init__(self, study: Study, trials: Sequence[Trial]) -> None:
        self.version = study.version
        self._study_id = study.id
        self._left = _kept(study, trials)
        self._drawing: Future[Pictures] | None = None

    def upload_next(self, checkpoints: CheckpointStore, tracker: Tracker, draw: Draw, run_of: Callable[[int], str]) -> bool:
        """Upload one, unless it is still being drawn; whether none is left. A trial without an analysis is passed over."""
        while self._left:
            number, report = self._left[0]
            try:
                analysis = checkpoints.analysis(self._study_id, number, report)
            except CheckpointNotFound:
                self._pass()
                continue
            if self._drawing is None:
                self._drawing = draw(analysis)
            if not self._drawing.done():
                return False
            files = {"analysis.json": json.dumps(analysis, indent=1).encode(), **self._drawn(number, self._drawing)}
            for name, content in files.items():
                tracker.upload(run_of(number), f"{_FOLDER}/{name}", io.BytesIO(content), len(content))
            self._pass()
            break
        return not self._left

    def _pass(self) -> None:
        self._left, self._drawing = self._left[1:], None

    def _drawn(self, number: int, drawing: "Future[Pictures]") -> Pictures:
        error = drawing.exception()
        if error is None:
            return drawing.result()
        _LOG.warning("study %s: the analysis of trial %d gets no pictures: %s", self._study_id, number, error)
        return {}


def _kept(study: Study, trials: Sequence[Trial]) -> Sequence[tuple[int, int]]:
    """Number and best report of the `checkpoints.keep` best trials, the best one first."""
    ranked = sorted(
        (study.definition.objective.sort_key(trial.best_value), trial.number, trial.best_report)
        for trial in trials
        if trial.best_value is not None and trial.best_report is not None
    )
    return [(number, report) for _, number, report in ranked[: study.definition.checkpoints.keep]]
