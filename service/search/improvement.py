"""Whether a search has stopped getting better, by the budget's `no_improvement`."""

from service.domain.history import History
from service.domain.study import Study
from service.domain.trial import TrialState

_OPEN = (TrialState.QUEUED, TrialState.RUNNING, TrialState.PAUSED)


def is_stagnant(study: Study, history: History) -> bool:
    """Whether so many trials in a row, in the order of their ends, were trained to their end without a better best.

    Only those trained to their end count: whom a rung, a median or a population ended early was beaten by one that went on, and
    which stands for both; a failure says nothing of the search. Any trial that ended with a better best than all before it
    begins the row anew, and while one that is better than all ended ones is still open, the search is getting better.
    """
    most, objective = study.definition.budget.no_improvement, study.definition.objective
    if most is None:
        return False
    searched = history.searched
    ended = [(trial.ended_at, trial.number, trial) for trial in searched.trials.values() if trial.ended_at is not None]
    best: float | None = None
    row = 0
    for _, _, trial in sorted(ended, key=lambda one: one[:2]):
        value = trial.best_value
        if value is not None and (best is None or objective.better(value, best)):
            best, row = value, 0
        elif trial.state is TrialState.COMPLETED:
            row += 1
    if row < most:
        return False
    values = [trial.best_value for trial in searched.in_state(*_OPEN)]
    return not any(value is not None and (best is None or objective.better(value, best)) for value in values)
