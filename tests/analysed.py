"""Histories of studies whose trials make a given function, and analyses of them."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from service.analysis.axes import axes_of
from service.analysis.importance import compared, importance_of, request_of
from service.analysis.learned import analysed, values_of
from service.domain.history import History
from service.domain.study import Study
from service.domain.study_analysis import StudyAnalysis
from service.domain.trial import TrialState
from tests.builders import NOW, a_study, a_trial

SPACE = {
    "learning_rate": {"kind": "float", "low": 1e-5, "high": 1e-2, "log": True},
    "batch_size": {"kind": "categorical", "choices": [16, 32]},
    "weight_decay": {"kind": "float", "low": 0.0, "high": 0.3},
}


def a_searched_study(**changes: Any) -> Study:
    """A running study with parameters of several kinds."""
    return a_study(**{"space": SPACE, **changes}).running(NOW)


def a_history(
    configurations: Sequence[Mapping[str, Any]],
    curve: Callable[[Mapping[str, Any]], Sequence[float]],
    state: TrialState = TrialState.COMPLETED,
) -> History:
    """One trial for each configuration, ended one after the other, ten seconds a report."""
    trials, values, seconds = {}, {}, 0.0
    for number, configuration in enumerate(configurations):
        values[number] = tuple(curve(configuration))
        seconds += 10 * len(values[number])
        trials[number] = a_trial(
            number, parameters=configuration, state=state, reports=len(values[number]), ended_at=NOW + timedelta(seconds=seconds)
        )
    return History(trials, values)


def configurations(count: int) -> list[dict[str, Any]]:
    """Spread over `SPACE` like the points of a lattice: no two parameters go together."""
    return [
        {
            "learning_rate": 10 ** (-5 + 3 * (number * 0.618034 % 1)),
            "batch_size": 16 if number * 0.754878 % 1 < 0.5 else 32,
            "weight_decay": 0.3 * (number * 0.569840 % 1),
        }
        for number in range(count)
    ]


def an_analysis(
    study: Study | None = None, history: History | None = None, shares: Sequence[float] | None = None
) -> StudyAnalysis:
    """What is learned from twelve trials, unless told otherwise; `shares` stand for what the child answers."""
    study = study or a_searched_study()
    history = history or a_history(configurations(12), lambda one: [0.5, 0.9 - one["weight_decay"]])
    axes = axes_of(study.definition.space)
    trials = compared(history, values_of(history), study.definition.objective, axes)
    asked = request_of(trials)
    given = None if asked is None else shares or [0.2, 0.1, 0.7][: len(trials.varied)]
    return analysed(study, history, importance_of(trials, given))
