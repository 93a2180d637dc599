"""Whether the trainer reports what a definition names: objectives, and outcomes with limits that can be kept together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from service.domain.errors import Violation
from service.domain.outcomes import contradiction, outcome_of
from service.domain.strategy import (
    BayesianStrategy,
    CmaesSampler,
    GpSampler,
    HyperbandStrategy,
    MedianStrategy,
    PbtStrategy,
)
from trainers.configs import metrics_of, metrics_to_name

if TYPE_CHECKING:
    from service.domain.definition import StudyDefinition


def metrics_needed(study: StudyDefinition) -> list[str]:
    """The metrics that the study cannot do without, its first objective first."""
    named = [*(objective.metric for objective in study.objectives), *(limit.metric for limit in study.limits)]
    return list(dict.fromkeys([study.objective.metric, *named]))


def goal_violations(study: StudyDefinition) -> list[Violation]:
    """What is wrong with the objectives and the outcomes."""
    found = [*_objective_violations(study), *_outcome_violations(study)]
    if study.warm_start and (len(study.objectives) > 1 or study.outcomes):
        detail = "carries over what earlier trials say of one objective, and nothing of others or of `outcomes`: leave it out"
        found.append(Violation("/warm_start", detail))
    return found


def several_violations(study: StudyDefinition) -> list[Violation]:
    """What of the strategy and the budget is for one objective alone, where there are several; asked of a sound space."""
    if len(study.objectives) == 1:
        return []
    found = []
    match study.plan.strategy:
        case HyperbandStrategy(kind=kind) | MedianStrategy(kind=kind) | PbtStrategy(kind=kind):
            detail = f"`{kind}` compares trials by one objective: for several use `random`, `sobol`, `grid` or `bayesian`"
            found.append(Violation("/strategy/kind", detail))
        case BayesianStrategy(sampler=GpSampler(kind=kind) | CmaesSampler(kind=kind)):
            detail = f"`{kind}` models one objective: for several use `tpe` or `nsga2`"
            found.append(Violation("/strategy/sampler/kind", detail))
        case _:
            pass
    if study.budget.target is not None:
        detail = "is a value of one objective: leave it out; what a trial must reach to count goes into `outcomes`"
        found.append(Violation("/budget/target", detail))
    return found


def _objective_violations(study: StudyDefinition) -> list[Violation]:
    if len(study.objectives) == 1:
        return _unknown(study, "/objective/metric", study.objective.metric)
    found = []
    if study.objective != study.objectives[0]:
        found.append(
            Violation("/objective", "of several `objectives` it is the first: leave `objective` out, or leave out the others")
        )
    metrics = [objective.metric for objective in study.objectives]
    for place, metric in enumerate(metrics):
        where = f"/objectives/{place}/metric"
        found += _unknown(study, where, metric)
        if metric in metrics[:place]:
            found.append(Violation(where, f"`{metric}` is an objective already: name another, or take it out"))
    return found


def _outcome_violations(study: StudyDefinition) -> list[Violation]:
    found = []
    limits = [outcome_of(text) for text in study.outcomes]
    for place, limit in enumerate(limits):
        if limit is None:
            detail = "is no outcome: write a metric, `<=` or `>=`, and a number, as in `model/megabytes <= 100`"
            found.append(Violation(f"/outcomes/{place}", f"{study.outcomes[place]!r} {detail}"))
        else:
            found += _unknown(study, f"/outcomes/{place}", limit.metric)
    against = contradiction(study.limits) if None not in limits else None
    if against is not None:
        detail = f"nothing keeps it beside {study.outcomes[against[0]]!r}: change one of them"
        found.append(Violation(f"/outcomes/{against[1]}", detail))
    return found


def _unknown(study: StudyDefinition, where: str, metric: str) -> list[Violation]:
    if metric in metrics_of(study.trainer):
        return []
    listed = ", ".join(f"`{one}`" for one in sorted(metrics_to_name(study.trainer)))
    return [Violation(where, f"trainer `{study.trainer.kind}` reports {listed}: name one of them")]
