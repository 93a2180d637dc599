"""Analyses of studies: read from the store, computed and drawn in a child process, and kept until the study goes on."""

import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from service.analysis.axes import axes_of
from service.analysis.children import Turn, run_module
from service.analysis.importance import compared, importance_of, request_of
from service.analysis.learned import analysed, values_of
from service.domain.errors import NotFound
from service.domain.ports import Store
from service.domain.study_analysis import Figure, StudyAnalysis

Measure = Callable[[Mapping[str, Any]], Sequence[float]]
"""Answers `service.analysis.importance.request_of`."""
Draw = Callable[[StudyAnalysis], Mapping[str, bytes]]
"""PNGs under their file names."""

_MEASURE_SECONDS = 20.0
_DRAW_SECONDS = 60.0
_KEPT = 16
"""Studies whose last analysis is remembered."""


def measure(request: Mapping[str, Any]) -> Sequence[float]:
    """Shares by fANOVA, in a child process. Raises AnalysisFailed, AnalysisTimedOut."""
    doing = "Measuring the parameters' importance"
    answer = run_module("service.analysis.fanova", [], given=json.dumps(request).encode(), seconds=_MEASURE_SECONDS, doing=doing)
    shares: Sequence[float] = json.loads(answer)
    return shares


def draw(analysis: StudyAnalysis) -> Mapping[str, bytes]:
    """PNGs of what can be drawn, in a child process. Raises AnalysisFailed, AnalysisTimedOut."""
    with tempfile.TemporaryDirectory(prefix="tuneyard-figures-") as name:
        run_module(
            "service.analysis.study_figures", [name], given=_json(analysis), seconds=_DRAW_SECONDS, doing="Drawing the figures"
        )
        return {path.name: path.read_bytes() for path in sorted(Path(name).glob("*.png"))}


@dataclass(frozen=True)
class _Kept:
    """An analysis, of a study as it was; figures once somebody asked for them."""

    state: tuple[object, ...]
    analysis: StudyAnalysis
    figures: Mapping[str, bytes] | None = None


class Analyst:
    """The port `StudyAnalyst`. One child at a time; what it made is kept as long as the study does not go on."""

    def __init__(self, store: Store, measure: Measure = measure, draw: Draw = draw, turn: Turn | None = None) -> None:
        self._store = store
        self._measure = measure
        self._draw = draw
        self._turn = turn or Turn("analysed")
        self._kept: dict[str, _Kept] = {}

    def analysis(self, study_id: str) -> StudyAnalysis:
        state = self._state(study_id)
        kept = self._known(study_id, state)
        if kept is not None:
            return kept.analysis
        with self._turn.soon():
            return self._analysed(study_id, state).analysis

    def figure(self, study_id: str, figure: Figure) -> bytes:
        state = self._state(study_id)
        kept = self._known(study_id, state)
        if kept is None or kept.figures is None:
            with self._turn.soon():
                kept = self._drawn(study_id, state)
        try:
            return (kept.figures or {})[f"{figure}.png"]
        except KeyError:
            raise NotFound(f"There is nothing to draw of study {study_id!r} as `{figure}` yet: ask again later.") from None

    def begin(self, study_id: str) -> "Future[Mapping[str, bytes]]":
        """Start to make all files of an analysis; the thread waits for its turn, and is no reason for the process to stay."""
        making: Future[Mapping[str, bytes]] = Future()

        def act() -> None:
            try:
                with self._turn.at_last():
                    kept = self._drawn(study_id, self._state(study_id))
                making.set_result({"analysis.json": _json(kept.analysis, indent=1), **(kept.figures or {})})
            except Exception as error:
                making.set_exception(error)

        threading.Thread(target=act, name="analysis", daemon=True).start()
        return making

    def _analysed(self, study_id: str, state: tuple[object, ...]) -> _Kept:
        kept = self._known(study_id, state)  # another may have made it while we waited
        if kept is None:
            study, history = self._store.studies.get(study_id), self._store.trials.history(study_id).searched
            trials = compared(history, values_of(history), study.definition.objective, axes_of(study.definition.space))
            request = request_of(trials)
            shares = None if request is None else self._measure(request)
            kept = self._keep(study_id, _Kept(state, analysed(study, history, importance_of(trials, shares))))
        return kept

    def _drawn(self, study_id: str, state: tuple[object, ...]) -> _Kept:
        kept = self._analysed(study_id, state)
        return kept if kept.figures is not None else self._keep(study_id, replace(kept, figures=self._draw(kept.analysis)))

    def _state(self, study_id: str) -> tuple[object, ...]:
        """What an analysis depends on, without reading it: the same again means that nothing happened."""
        study = self._store.studies.get(study_id)
        counts, totals = self._store.trials.counts([study_id]), self._store.trials.totals([study_id])
        return study.version, totals[study_id].reports, tuple(sorted(counts[study_id].items()))

    def _known(self, study_id: str, state: tuple[object, ...]) -> _Kept | None:
        kept = self._kept.get(study_id)
        return kept if kept is not None and kept.state == state else None

    def _keep(self, study_id: str, kept: _Kept) -> _Kept:
        """Remember it as the newest. Only whoever has the turn changes what is kept."""
        others = [one for one in self._kept.items() if one[0] != study_id]
        self._kept = dict([*others[-_KEPT + 1 :], (study_id, kept)])
        return kept


def _json(analysis: StudyAnalysis, indent: int | None = None) -> bytes:
    return json.dumps(asdict(analysis), indent=indent, allow_nan=False).encode()
