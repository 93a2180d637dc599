"""Median stopping (Golovin et al. 2017): a trial ends whose best value so far is worse than the median of the others' means."""

import math
from statistics import median

from service.domain.decision import Decision
from service.domain.history import History
from service.domain.strategy import MedianStrategy
from service.domain.study import Study
from service.domain.trial import Trial
from service.search.values import Comparison, counts_at


def below_median(study: Study, history: History, trial: Trial, strategy: MedianStrategy) -> Decision | None:
    """Why the trial ends with its last report; None when it goes on.

    Compared are the best value of this trial and, for each other that has come as far, the mean of its reports up to there.
    """
    report = trial.reports
    if report < strategy.grace_reports or report >= study.definition.reports_of(trial.parameters):
        return None
    others = [one for one in history.trials.values() if one.number != trial.number and counts_at(one, report)]
    means = [mean for mean in (_mean(history, one, report) for one in others) if math.isfinite(mean)]
    if len(means) < strategy.min_trials:
        return None
    objective, cut = study.definition.objective, median(means)
    # Whether it keeps the outcomes is another rule's to say: it is compared with what the others had, kept or not.
    values = (value for value in history.values.get(trial.number, ())[:report] if math.isfinite(value))
    value = min(values, key=objective.sort_key, default=math.nan)
    if math.isfinite(value) and not objective.better(cut, value):
        return None
    compared = Comparison.of(study, history, [trial, *others], report, 0)
    return Decision(
        kind="cut", by="median", report=report, value=compared.values.get(trial.number), rank=compared.ranks.get(trial.number),
        among=compared.among, cut=cut,
    ).beside(compared.incumbent)  # fmt: skip


def _mean(history: History, trial: Trial, report: int) -> float:
    values = [value for value in history.values.get(trial.number, ())[:report] if math.isfinite(value)]
    return sum(values) / len(values) if values else math.nan
