"""Which weights of ended trials are kept. Pure."""

from collections.abc import Mapping

from service.domain.final import kept_runs
from service.domain.front import front_of
from service.domain.history import History
from service.domain.study import Study


def kept(study: Study, history: History) -> Mapping[int, int | None]:
    """The report whose export is kept, of each trial that has ended; None keeps nothing of it.

    The `checkpoints.keep` best trials keep their best report's; so do all on the front where there are several objectives, and
    the best of each finalist's runs. Trials that have not ended are not named, nor are those that started after `history` was
    read: what they have is left alone.
    """
    objective = study.definition.objective
    ranked = sorted(
        (trial for trial in history.searched.trials.values() if trial.best_value is not None),
        key=lambda trial: (objective.sort_key(trial.best_value or 0.0), trial.number),
    )
    best = {trial.number for trial in ranked[: study.definition.checkpoints.keep]}
    if len(study.definition.objectives) > 1:
        best |= {member.trial.number for member in front_of(study, history).members}
    best |= kept_runs(study, list(history.trials.values()))
    ended = [trial for trial in history.trials.values() if trial.state.is_end]
    return {trial.number: trial.best_report if trial.number in best else None for trial in ended}
