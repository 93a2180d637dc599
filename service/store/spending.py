"""What a study's budget went into, added up by the database."""

from collections.abc import Sequence

from sqlalchemy import Connection, func, select

from service.domain.spending import SpendingTable, Spent, SpentOn
from service.domain.trial import Trial, TrialState
from service.store import tables
from service.store.rows import trial_of
from service.store.studies import require_study

_TRIALS = tables.trials.c


def spending_of(connection: Connection, study_id: str) -> SpendingTable:
    """One sum over the trials. Raises StudyNotFound."""
    require_study(connection, study_id)
    is_final = _TRIALS.repeats.is_not(None)
    trials = (
        select(
            _TRIALS.state,
            _TRIALS.rung,
            is_final,
            func.count(),
            func.sum(_TRIALS.reports - _TRIALS.parent_report),
            func.sum(_TRIALS.seconds),
            func.sum(_TRIALS.lost_seconds),
            func.sum(_TRIALS.gpu_seconds),
        )
        .where(_TRIALS.study_id == study_id)
        .group_by(_TRIALS.state, _TRIALS.rung, is_final)
        .order_by(_TRIALS.state, _TRIALS.rung, is_final)
    )
    parts = [
        SpentOn(TrialState(state), rung, bool(final), Spent(int(count), int(reports), float(seconds), float(lost), float(gpu)))
        for state, rung, final, count, reports, seconds, lost, gpu in connection.execute(trials)
    ]
    return SpendingTable(parts)


def costliest_of(connection: Connection, study_id: str, limit: int) -> Sequence[Trial]:
    """The trials that took the most time. Raises StudyNotFound."""
    require_study(connection, study_id)
    took = (_TRIALS.seconds + _TRIALS.lost_seconds).desc()
    statement = select(tables.trials).where(_TRIALS.study_id == study_id).order_by(took, _TRIALS.number).limit(limit)
    return [trial_of(row) for row in connection.execute(statement).mappings()]
