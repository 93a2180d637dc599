"""The final: once the search is over, its best configurations are trained again, whole, under seeds of their own.

All of them get the same seeds, one seed after the other, so that a study whose time runs out has as many runs of each.
Samplers and schedulers never hear of these runs, and only wall-clock and GPU time bound them.
"""

import math
from itertools import count, islice

from service.domain.decision import Decision
from service.domain.definition import StudyDefinition
from service.domain.history import History
from service.domain.study import Study
from service.domain.trial import Trial, TrialState
from service.search.actions import Start
from service.search.draws import seed_of
from service.search.improvement import is_stagnant
from service.search.samplers import next_number

_SEEDS = 2**31
_UNSOUND = frozenset({TrialState.FAILED, TrialState.INFEASIBLE})


def next_run(study: Study, history: History) -> Start | None:
    """The next run of the final; None when all have begun. To be asked once every trial of the search has ended."""
    begun = {(run.repeats, run.seed) for run in history.trials.values() if run.repeats is not None}
    best = finalists(study, history)
    for seed in seeds(study.definition):
        for trial in best:
            if (trial.number, seed) not in begun:
                return Start(
                    number=next_number(history), parameters=trial.parameters, bracket=0, rung=0,
                    until=study.definition.reports_of(trial.parameters), repeats=trial.number, seed=seed,
                    why=Decision(kind="proposed", by="final", parent=trial.number),
                )  # fmt: skip
    return None


def finalists(study: Study, history: History) -> list[Trial]:
    """The trials of the search with the best values, best first, but for those that could not be trained to their end."""
    final, objective = study.definition.final, study.definition.objective
    ranked = sorted(
        (objective.sort_key(trial.best_value), trial.number)
        for trial in history.searched.trials.values()
        if trial.best_value is not None and math.isfinite(trial.best_value) and trial.state not in _UNSOUND
    )
    return [history.trials[number] for _, number in ranked[: final.top if final else 0]]


def seeds(definition: StudyDefinition) -> list[int]:
    """The seeds of the final, all different and none the one that the search trained with."""
    drawn = (seed_of(definition.seed, place, "final") % _SEEDS for place in count())
    fresh = dict.fromkeys(islice((seed for seed in drawn if seed != definition.trainer.seed), 10 * _most(definition)))
    return list(fresh)[: _most(definition)]


def search_is_over(study: Study, history: History) -> bool:
    """Whether nothing may be searched any more, whatever is left of the budget, because the final has begun or can."""
    if study.definition.final is None:
        return False
    return _has_begun(study, history) or reached_target(study, history) or is_stagnant(study, history)


def _has_begun(study: Study, history: History) -> bool:
    """Whether the final has begun, and the budget was not changed since: a larger one lets the search go on.

    The final is then held once more, with the runs that it has already and those of new members.
    """
    runs = [run for run in history.trials.values() if run.repeats is not None]
    return any(study.amended_at is None or run.created_at > study.amended_at for run in runs)


def reached_target(study: Study, history: History) -> bool:
    """Whether a trial of the search is as good as the budget's target."""
    target, best = study.definition.budget.target, history.best(study.definition.objective)
    return target is not None and best is not None and study.definition.objective.reaches(best.best_value or 0.0, target)


def ends_study(study: Study, trial: Trial) -> bool:
    """Whether a trial's value ends the study at once: it reached the target, and no final is to come."""
    target, value = study.definition.budget.target, trial.best_value
    if target is None or value is None or study.definition.final is not None:
        return False
    return study.definition.objective.reaches(value, target)


def _most(definition: StudyDefinition) -> int:
    return definition.final.seeds if definition.final else 0
