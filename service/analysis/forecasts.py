"""Forecasts: what a study's end will be like, by the code that leads it, in a process of its own, as that code loads models.

While a study runs the controller's process keeps some of its forecasts, so that one can see later what they were worth.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from service.analysis.children import Turn, run_module
from service.domain.errors import AnalysisFailed, AnalysisTimedOut, NotReady, StudyNotFound, TooFewTrials
from service.domain.forecast import Course, Forecast, is_due
from service.domain.ports import CheckpointStore, Clock, Store, StudyQuery
from service.domain.standing import Standing, losses, overhead_seconds, under_way
from service.domain.stored import StoredKind
from service.domain.study import Study, StudyState

_LOG = logging.getLogger("tuneyard.forecast")
_SECONDS = 50.0
_SOONEST_SECONDS = 30.0
_MOST_KEPT = 32

Simulate = Callable[[Standing], Sequence[Course]]
"""Ways in which a study may go on; none where it is too large for that."""


def simulate(standing: Standing) -> Sequence[Course]:
    """Courses of a study, by a child process. Raises AnalysisFailed, AnalysisTimedOut."""
    doing = "Forecasting the study"
    answer = run_module("service.search.forecast", [], given=standing.to_json().encode(), seconds=_SECONDS, doing=doing)
    return [Course(**course) for course in json.loads(answer)]


class Forecasts:
    """The port `Forecaster`. One child at a time; a forecast is kept as long as the study does not go on, nor outlasts it."""

    def __init__(
        self, store: Store, checkpoints: CheckpointStore, clock: Clock, simulate: Simulate = simulate, turn: Turn | None = None
    ) -> None:
        self._store = store
        self._checkpoints = checkpoints
        self._clock = clock
        self._simulate = simulate
        self._turn = turn or Turn("forecast")
        self._kept: dict[str, tuple[object, Forecast]] = {}
        self._seen: Mapping[str, int] = {}
        """How many trials of each study had ended at the last look."""

    def __call__(self, study_id: str) -> Forecast:
        with self._turn.soon():
            return self._forecast(study_id)

    def watch(self) -> None:
        """Keep a forecast of each running study after its 1st, 2nd, 4th, 8th ... trial that ended; one that fails is left out.

        None of the first half minute, which says little, and which short studies do well without.
        """
        running = self._store.studies.find(StudyQuery(states=frozenset({StudyState.RUNNING}), limit=500)).items
        ended = self._ended([study.id for study in running if study.active_seconds(self._clock.now()) >= _SOONEST_SECONDS])
        for study_id, number in ended.items():
            if self._seen.get(study_id) != number:
                self._keep(study_id, number)
        self._seen = ended

    def _keep(self, study_id: str, ended: int) -> None:
        try:
            if is_due(ended, [forecast.ended for forecast in self._store.forecasts.of(study_id)]):
                with self._turn.at_last():
                    self._store.forecasts.add(study_id, self._forecast(study_id))
        except (StudyNotFound, TooFewTrials):
            pass  # deleted meanwhile; or all that ended failed
        except (NotReady, AnalysisFailed, AnalysisTimedOut):
            _LOG.warning("study %s: no forecast after %d trials", study_id, ended, exc_info=True)

    def _forecast(self, study_id: str) -> Forecast:
        study = self._store.studies.get(study_id)
        totals = self._store.trials.totals([study_id])[study_id]
        state = (study.version, totals.reports, self._ended([study_id]), self._slots(study))
        kept, now = self._kept.get(study_id), self._clock.now()
        elapsed = study.active_seconds(now)
        if kept is None or kept[0] != state or elapsed >= kept[1].seconds.expected:
            kept = (state, self._foretold(study))
            self._kept = {**{one: self._kept[one] for one in list(self._kept)[-_MOST_KEPT:]}, study_id: kept}
        if study.idle_since is not None:  # no time passes for it: its end moves on with the clock
            return replace(kept[1], at=now)
        return kept[1] if elapsed < kept[1].seconds.low else kept[1].later(now, elapsed)

    def _foretold(self, study: Study) -> Forecast:
        history, now = self._store.trials.history(study.id), self._clock.now()
        if not any(history.seconds.values()):
            detail = f"No trial of study {study.id!r} has reported yet, so nothing says how long one takes: ask again later, or "
            raise TooFewTrials(detail + "see `POST /v1/studies:preview`.")
        elapsed, slots = study.active_seconds(now), self._slots(study)
        attempts = {number: one for number, one in self._store.trials.all_attempts(study.id).items() if number in history.trials}
        overhead, lost = overhead_seconds(history, attempts), losses(history, attempts)
        definition = study.definition.model_copy(update={"resources": study.resources})  # as many on a GPU as now
        since = under_way(history, attempts, overhead, now)
        courses = self._simulate(Standing(definition, history, now, elapsed, slots, overhead, lost, study.amended_at, since))
        if not courses:
            raise NotReady(f"Study {study.id!r} is too large to be simulated to its end: ask again when less of it is left.")
        return Forecast.of(
            courses, at=now, elapsed_seconds=elapsed, slots=slots, export_bytes=self._export_bytes(study.id), notes=_notes(study),
            ended=sum(trial.state.is_end for trial in history.trials.values()),
        )  # fmt: skip

    def _ended(self, study_ids: Sequence[str]) -> Mapping[str, int]:
        """How many trials of each study have ended."""
        counts = self._store.trials.counts(study_ids)
        return {one: sum(count for state, count in found.items() if state.is_end) for one, found in counts.items()}

    def _slots(self, study: Study) -> int:
        """How many trials run side by side: its share of the workers, where it has one."""
        share, most = self._store.shares.get(study.id), study.definition.resources.max_concurrent_trials
        return most if share is None or not share.slots else min(most, share.slots)

    def _export_bytes(self, study_id: str) -> float | None:
        """The mean size of the exported models that lie there."""
        sizes = [one.bytes for one in self._checkpoints.stored(study_id) if one.kind is StoredKind.EXPORT]
        return sum(sizes) / len(sizes) if sizes else None


def _notes(study: Study) -> Sequence[str]:
    """What the forecast does not say by itself."""
    found = []
    if study.state in {StudyState.PAUSING, StudyState.PAUSED}:
        found.append("The study is paused: this is how it would end if it went on now.")
    if study.definition.budget.target is not None:
        detail = (
            "It ends as soon as a trial reaches the target, from the next report on: when that is, is little more than a guess."
        )
        found.append(detail)
    if study.definition.budget.no_improvement is not None:
        found.append("When trials stop getting better is drawn from the values so far: it is little more than a guess.")
    return found
