"""Which trials' weights are kept. Pure."""

from dataclasses import dataclass

from service.domain.history import History
from service.domain.study import Study


@dataclass(frozen=True)
class Kept:
    """Trials whose exported model is kept, and trials that may still go on from a saved state."""

    exports: frozenset[int]
    resumable: frozenset[int]


def kept(study: Study, history: History) -> Kept:
    """The `checkpoints.keep` best trials keep their export, those that have not ended keep both."""
    objective = study.definition.objective
    ranked = sorted(
        (trial for trial in history.trials.values() if trial.best_value is not None),
        key=lambda trial: (objective.sort_key(trial.best_value or 0.0), trial.number),
    )
    live = frozenset(trial.number for trial in history.trials.values() if not trial.state.is_end)
    best = frozenset(trial.number for trial in ranked[: study.definition.checkpoints.keep])
    return Kept(exports=best | live, resumable=live)
