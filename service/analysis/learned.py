"""What a study's history tells of its search: a pure function of what the store remembers, bounded in size."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.analysis.axes import axes_of, place
from service.analysis.spread import best_and_spread, evenly
from service.domain.history import History
from service.domain.study import Study
from service.domain.study_analysis import (
    Axis,
    Curve,
    HistoryPoint,
    Importance,
    LearningCurves,
    Line,
    ParallelCoordinates,
    Slice,
    SlicePoint,
    StudyAnalysis,
)
from service.domain.trial import Trial

_MOST_POINTS = 1000
"""Of the history, beside those where the incumbent changes."""
_BEST_CURVES = _OTHER_CURVES = 50
_CURVE_POINTS = 200
_BEST_LINES, _OTHER_LINES = 100, 400
_MOST_PLACES = 20_000
"""Points of all slices together: a space may have a hundred parameters."""


@dataclass(frozen=True)
class Scored:
    """A trial and its best objective; whether the report that it is from keeps all outcomes."""

    trial: Trial
    objective: float
    counts: bool


def values_of(history: History) -> Mapping[int, Sequence[float]]:
    """The objective at reports 1, 2, ... of each trial that has a finite one; NaN where a report has none, or is not its own."""
    return {number: values for number, values in history.values.items() if any(map(math.isfinite, values))}


def analysed(study: Study, history: History, importance: Importance) -> StudyAnalysis:
    """The whole analysis. A trial has a value once it has given a report with a finite objective, however it ended."""
    objective = study.definition.objective
    best = min if objective.direction == "minimize" else max
    scored = []
    for number, values in sorted(values_of(history).items()):
        kept = history.counted(number, len(values))
        scored.append(Scored(history.trials[number], best(kept or filter(math.isfinite, values)), bool(kept)))
    ranked = sorted(scored, key=lambda one: (not one.counts, objective.sort_key(one.objective), one.trial.number))
    axes = axes_of(study.definition.space)
    numbers = {one.trial.number for one in scored}
    ended = [trial for trial in history.trials.values() if trial.ended_at is not None]
    most = _MOST_PLACES // len(axes)
    return StudyAnalysis(
        study_id=study.id,
        metric=objective.metric,
        direction=objective.direction,
        trials=len(history.trials),
        scored=len(scored),
        excluded=dict(Counter(trial.state.value for trial in ended if trial.number not in numbers)),
        importance=importance,
        history=progress(study, ended, {one.trial.number: one.objective for one in scored if one.counts}),
        learning_curves=LearningCurves(
            len(scored), [_curve(one.trial, history) for one in best_and_spread(ranked, _BEST_CURVES, _OTHER_CURVES)]
        ),
        parallel_coordinates=ParallelCoordinates(
            len(scored), axes, [_line(axes, one) for one in best_and_spread(ranked, _BEST_LINES, _OTHER_LINES)]
        ),
        slices=[_slice(axis, best_and_spread(ranked, most // 4, most - most // 4)) for axis in axes],
    )


def progress(study: Study, ended: Sequence[Trial], objectives: Mapping[int, float]) -> Sequence[HistoryPoint]:
    """The trials with one of these objectives, in the order in which they ended, with the best and what was spent by then."""
    begun = study.started_at or study.created_at
    objective = study.definition.objective
    points: list[HistoryPoint] = []
    reports = 0
    for at, _, trial in sorted((trial.ended_at or begun, trial.number, trial) for trial in ended):
        reports += trial.own_reports
        if trial.number not in objectives:
            continue
        value = objectives[trial.number]
        before = points[-1] if points else None
        is_better = before is None or objective.better(value, before.incumbent)
        incumbent, number = (value, trial.number) if before is None or is_better else (before.incumbent, before.incumbent_trial)
        seconds = max(0.0, (at - begun).total_seconds())
        points.append(HistoryPoint(trial.number, value, incumbent, number, len(points) + 1, reports, seconds))
    turns = [after for before, after in itertools.pairwise(points) if before.incumbent_trial != after.incumbent_trial]
    shown = {point.ended for point in [*turns, *evenly(points, _MOST_POINTS)]}
    return [point for point in points if point.ended in shown]


def _curve(trial: Trial, history: History) -> Curve:
    numbered = evenly(list(enumerate(history.values[trial.number], start=1)), _CURVE_POINTS)
    objectives = [value if math.isfinite(value) else None for _, value in numbered]
    return Curve(trial.number, trial.state.value, [number for number, _ in numbered], objectives)


def _line(axes: Sequence[Axis], one: Scored) -> Line:
    places = {axis.parameter: place(axis, one.trial.parameters) for axis in axes}
    return Line(one.trial.number, one.objective, {name: at for name, at in places.items() if at is not None})


def _slice(axis: Axis, trials: Sequence[Scored]) -> Slice:
    points = [
        SlicePoint(one.trial.number, at, one.objective, one.trial.reports)
        for one in trials
        if (at := place(axis, one.trial.parameters)) is not None
    ]
    return Slice(axis.parameter, points)
