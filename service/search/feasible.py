"""Outcomes: when a trial cannot keep them any more, and when none of its reports has."""

from service.domain.decision import Decision
from service.domain.history import History
from service.domain.outcomes import MODEL_PREFIX, broken_said
from service.domain.study import Study
from service.domain.trial import Trial, TrialReason


def broken_outcome(study: Study, history: History, trial: Trial, *, is_last: bool) -> tuple[TrialReason, Decision] | None:
    """Why the outcomes end a trial with its last report; None when they do not.

    What is measured of the model does not change, so breaking a limit on it ends a trial at once. Other limits may be kept by a
    later report: a trial is only ended by them with its last one, when none has kept them all.
    """
    limits, points = study.definition.limits, history.points.get(trial.number, ())
    if not limits or not points or trial.repeats is not None:
        return None
    said, report = broken_said(limits, points[-1], MODEL_PREFIX), len(points)
    if said is None and is_last and trial.best_value is None:
        nearest = min(range(len(points)), key=lambda place: points[place].violation)
        said, report = broken_said(limits, points[nearest]), nearest + 1
    return None if said is None else (TrialReason.OUTCOME_BROKEN, Decision(kind="cut", by="outcome", report=report, outcome=said))
