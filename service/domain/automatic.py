"""What `auto` stands for: the strategy that a definition's space, budget and workers ask for, and why in a sentence.

A pure function of the definition, so that a study that was started with it is led by the same strategy to its end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from search_spaces import CategoricalParameter, count
from service.domain.strategy import (
    AutoSampler,
    AutoStrategy,
    BayesianStrategy,
    BohbSampler,
    GpSampler,
    GridStrategy,
    HyperbandStrategy,
    Nsga2Sampler,
    RandomSampler,
    SobolStrategy,
    Strategy,
    TpeSampler,
)

if TYPE_CHECKING:
    from service.domain.definition import StudyDefinition

_FACTOR = 3
_MOST_PROMOTIONS = 3
"""The lowest rung is at 1/27 of a whole trial: four rungs did best on all tables of `benchmarks.search`, three clearly worse."""

_LARGEST_RUNG = 1000
"""What a definition may say of its lowest rung."""

_RANDOM_SHARE = 0.15
_FEWEST_REPORTS = 3
_FEWEST_TRIALS = 4
_ROUNDS_TO_LEARN = 2
"""A model that hears of a trial after most others began has nothing to lead."""

_GP_PARAMETERS = 6
_GP_TRIALS = 60
_NSGA2_TRIALS = 200
"""On ZDT1 in six dimensions a Parzen estimator has the larger front after 100 trials, the genetic search after 200."""


@dataclass(frozen=True)
class Plan:
    """The strategy that leads a study, and why it was chosen; no reason where the user chose it."""

    strategy: Strategy
    reason: str | None = None


def plan_of(definition: StudyDefinition) -> Plan:
    """The strategy of a definition with nothing left open."""
    match definition.strategy:
        case AutoStrategy(chosen=None):
            return _chosen(definition)
        case AutoStrategy(chosen=strategy, because=because):
            settled = plan_of(definition.model_copy(update={"strategy": strategy}))
            return Plan(settled.strategy, because or settled.reason)
        case BayesianStrategy(sampler=AutoSampler(chosen=sampler, because=because)) if sampler is not None:
            return Plan(BayesianStrategy(kind="bayesian", sampler=sampler), because)
        case BayesianStrategy(sampler=AutoSampler()):
            sampler, why = _model_for(definition)
            return Plan(BayesianStrategy(kind="bayesian", sampler=sampler), f"`{sampler.kind}`, as {why}.")
        case strategy:
            return Plan(strategy)


def settled(definition: StudyDefinition) -> Strategy:
    """The strategy with nothing left that a change of the budget or of the workers could decide anew."""
    plan = definition.plan
    match definition.strategy, plan.strategy:
        case AutoStrategy(chosen=None), strategy if not isinstance(strategy, AutoStrategy):
            return AutoStrategy(kind="auto", chosen=strategy, because=plan.reason)
        case AutoStrategy(because=because), strategy if not isinstance(strategy, AutoStrategy):
            return AutoStrategy(kind="auto", chosen=strategy, because=because)
        case BayesianStrategy(sampler=AutoSampler()), BayesianStrategy(
            sampler=TpeSampler() | GpSampler() | Nsga2Sampler() as one
        ):
            return BayesianStrategy(kind="bayesian", sampler=AutoSampler(kind="auto", chosen=one, because=plan.reason))
        case strategy, _:
            return strategy


def _chosen(definition: StudyDefinition) -> Plan:
    trials, size = definition.budget.trials, definition.search_space.size()
    reports = definition.max_reports
    if size is not None and definition.budget.epochs is None and size <= (trials or 0) and _grid_size(definition) == size:
        return Plan(GridStrategy(kind="grid"), f"Every one of the {size} configurations, as the budget holds them all.")
    if len(definition.objectives) > 1:
        fitting, why = _model_for(definition)
        return Plan(BayesianStrategy(kind="bayesian", sampler=fitting), f"Whole trials led by `{fitting.kind}`, as {why}.")
    stops = "epochs" not in definition.space and reports >= _FEWEST_REPORTS
    if stops and (trials is None or trials >= _FEWEST_TRIALS):
        parts = _FACTOR ** min(_MOST_PROMOTIONS, _steps(reports))
        while reports // parts > _LARGEST_RUNG:
            parts *= _FACTOR
        sampler = BohbSampler(kind="tpe", random_share=_RANDOM_SHARE)
        if trials is not None and trials <= sampler.startup_trials:
            chosen: BohbSampler | RandomSampler = RandomSampler(kind="random")
            model = "drawn at random, as they are too few for a model"
        else:
            chosen, model = sampler, "led by a model of the highest rung"
        return Plan(
            HyperbandStrategy(
                kind="hyperband",
                mode="async",
                reduction_factor=_FACTOR,
                min_epochs=reports // parts,
                sampler=chosen,
            ),
            f"Asynchronous Hyperband, as a trial's {reports} reports allow stopping the worse ones from report "
            f"{round(reports / parts)} on and nobody waits for anybody; configurations are {model}.",
        )
    short = "a whole trial has too few reports to stop one early" if not stops else "there are too few trials to stop any early"
    workers = definition.resources.max_concurrent_trials
    if trials is not None and workers > 1 and trials <= _ROUNDS_TO_LEARN * workers:
        reason = (
            f"Whole trials that fill the space evenly, as {short} and most begin before the first of {workers} workers is done."
        )
        return Plan(SobolStrategy(kind="sobol"), reason)
    fitting, why = _model_for(definition)
    return Plan(
        BayesianStrategy(kind="bayesian", sampler=fitting), f"Whole trials led by `{fitting.kind}`, as {short} and {why}."
    )


def _grid_size(definition: StudyDefinition) -> int | None:
    """Configurations that a grid would try; None where a continuous parameter gives it no values."""
    try:
        return definition.search_space.grid_size()
    except ValueError:
        return None


def _model_for(definition: StudyDefinition) -> tuple[GpSampler | TpeSampler | Nsga2Sampler, str]:
    if len(definition.objectives) > 1:
        return _model_for_several(definition)
    space = definition.search_space
    varying = [one for one in space.parameters.values() if count(one) != 1]
    choices = [one for one in varying if isinstance(one, CategoricalParameter) and not one.ordered]
    if choices or space.has_conditions or space.constraints:
        return TpeSampler(kind="tpe"), "choices, conditions and constraints suit a Parzen estimator"
    if len(varying) > _GP_PARAMETERS:
        return TpeSampler(kind="tpe"), f"{len(varying)} parameters are many for a Gaussian process"
    if definition.budget.trials is None or definition.budget.trials > _GP_TRIALS:
        return TpeSampler(kind="tpe"), "many trials suit a Parzen estimator"
    return GpSampler(kind="gp"), "a small numeric space and few trials suit a Gaussian process"


def _model_for_several(definition: StudyDefinition) -> tuple[TpeSampler | Nsga2Sampler, str]:
    trials = definition.budget.trials
    if trials is not None and trials >= _NSGA2_TRIALS:
        return Nsga2Sampler(kind="nsga2"), "several objectives and many trials suit a genetic search"
    return TpeSampler(kind="tpe"), "a Parzen estimator finds a front of several objectives in fewer trials than a genetic search"


def _steps(reports: int) -> int:
    """The most promotions a trial of so many reports can have."""
    return int(math.log(reports, _FACTOR) + 1e-9)
