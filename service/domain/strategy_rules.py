"""What a strategy asks of the definition it stands in: what has no end, no grid or no rungs is refused at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from search_spaces import CategoricalParameter, ConstantParameter, count, grid_values
from search_spaces.space import MOST_COUNTED
from service.domain.errors import Violation
from service.domain.pointers import pointer
from service.domain.strategy import (
    AutoStrategy,
    BayesianStrategy,
    CmaesSampler,
    GridStrategy,
    HyperbandStrategy,
    MedianStrategy,
    PbtStrategy,
    RandomStrategy,
    SobolStrategy,
)
from trainers.configs import changeable

if TYPE_CHECKING:
    from service.domain.definition import StudyDefinition

MAX_GRID = MOST_COUNTED
_ENDLESS = Violation("/budget", "would never end: set at least one of `trials`, `epochs`, `wall_clock`, `gpu_hours`, `cost`")


def strategy_violations(study: StudyDefinition) -> list[Violation]:
    """What is wrong with the strategy of a definition whose space is sound."""
    match study.plan.strategy:
        case GridStrategy(sample=sample):
            return [*_payable(study), *_grid_violations(study, sample=sample)]
        case HyperbandStrategy() as hyperband:
            return _hyperband_violations(study, hyperband)
        case MedianStrategy(grace_reports=grace):
            rungs = _rung_violations(study, "grace_reports", grace, "the median of one report")
            return [*_bounded(study), *_payable(study), *rungs]
        case BayesianStrategy(sampler=CmaesSampler()):
            return [*_bounded(study), *_payable(study), *_cmaes_violations(study)]
        case PbtStrategy() as pbt:
            return _pbt_violations(study, pbt)
        case RandomStrategy() | SobolStrategy() | BayesianStrategy() | AutoStrategy():  # a plan has no `auto`
            return [*_bounded(study), *_payable(study)]
        case _:
            assert_never(study.plan.strategy)


def _bounded(study: StudyDefinition) -> list[Violation]:
    return [] if study.is_bounded else [_ENDLESS]


def _payable(study: StudyDefinition) -> list[Violation]:
    """Of a strategy that begins whole trials alone: whether the budget pays for one."""
    reports = study.max_reports if "epochs" not in study.space else 1
    if study.budget.epochs is None or study.budget.epochs >= reports:
        return []
    return [Violation("/budget/epochs", f"is below the {reports} reports of a whole trial, so that none would begin: raise it")]


def _grid_violations(study: StudyDefinition, *, sample: bool) -> list[Violation]:
    continuous = [name for name, parameter in study.space.items() if grid_values(parameter) is None]
    if continuous:
        detail = "a grid needs values: add `grid: [...]` or a `step`, or use `choices`"
        return [Violation(pointer(["space", name]), detail) for name in continuous]
    size = study.search_space.grid_size()
    if size is None:
        most = study.search_space.most_counted
        detail = f"the grid has more than {most} configurations before `constraints` takes some out: make it coarser"
        return [Violation("/space", detail)]
    if size == 0:
        return [Violation("/constraints", "no configuration of the grid meets them: loosen them, or give the grid other values")]
    if study.budget.trials is not None and size > study.budget.trials and not sample:
        detail = f"the grid has {size} configurations: raise `trials` to {size}, leave it out, or set the strategy's `sample`"
        return [Violation("/budget/trials", detail)]
    if size > MAX_GRID:
        return [Violation("/space", f"the grid has {size} configurations, more than {MAX_GRID}: make it coarser")]
    return []


def _hyperband_violations(study: StudyDefinition, hyperband: HyperbandStrategy) -> list[Violation]:
    found = _rung_violations(study, "min_epochs", hyperband.min_epochs, "hyperband")
    return [*found, *(_bounded(study) if hyperband.mode == "async" else [])]


def _rung_violations(study: StudyDefinition, field: str, lowest: int, rule: str) -> list[Violation]:
    """Of a strategy that decides how long a trial runs, from report `lowest` on."""
    found = []
    if "epochs" in study.space:
        detail = f"{rule} decides how long a trial runs: take `epochs` out of the space"
        found.append(Violation("/space/epochs", detail))
    if lowest > study.max_reports:
        detail = f"is above the {study.max_reports} reports of a whole trial: lower it"
        found.append(Violation(f"/strategy/{field}", detail))
    return found


def _pbt_violations(study: StudyDefinition, pbt: PbtStrategy) -> list[Violation]:
    """A copy goes on with its parent's weights: only what may change in the middle of a training can vary."""
    may_vary = changeable(study.trainer)
    listed = ", ".join(f"`{name}`" for name in sorted(may_vary))
    found = [
        Violation(pointer(["space", name]), f"cannot change in the middle of a training, as `pbt` does: search {listed}")
        for name, parameter in study.space.items()
        if name not in may_vary and name != "epochs" and not isinstance(parameter, ConstantParameter)
    ]
    if study.trainer.early_stopping is not None:
        found.append(Violation("/trainer/early_stopping", "`pbt` decides by itself which trials go on: leave it out"))
    if "epochs" in study.space:
        found.append(
            Violation("/space/epochs", "`pbt` trains all members to their end: say in `trainer` how many epochs that is")
        )
    if pbt.interval >= study.max_reports:
        detail = f"a whole trial has {study.max_reports} reports, so its members would never be compared: lower it"
        found.append(Violation("/strategy/interval", detail))
    return [*found, *_population_violations(study, pbt)]


def _population_violations(study: StudyDefinition, pbt: PbtStrategy) -> list[Violation]:
    found, budget, size = [], study.budget, study.search_space.size()
    if size is not None and size < pbt.population:
        detail = f"the space has {size} configurations, and each member begins with one of its own: lower it, or widen the space"
        found.append(Violation("/strategy/population", detail))
    if budget.trials is not None and budget.trials <= pbt.population and pbt.interval < study.max_reports:
        detail = (
            f"copies are trials too, so that no member of a population of {pbt.population} could be replaced: raise it to "
            f"{pbt.most_trials(study.max_reports)} for all comparisons, leave it out, as a population ends by itself, or lower "
            "the strategy's `population`"
        )
        found.append(Violation("/budget/trials", detail))
    first = pbt.population * pbt.interval
    if budget.epochs is not None and budget.epochs < first + pbt.interval:
        detail = (
            f"a population of {pbt.population} gives {first} reports before its members are compared, and a copy {pbt.interval} "
            "more: raise it"
        )
        found.append(Violation("/budget/epochs", detail))
    return found


def _cmaes_violations(study: StudyDefinition) -> list[Violation]:
    found = [
        Violation(pointer(["space", name]), "cmaes needs values with an order: set `ordered`, or use `tpe`")
        for name, parameter in study.space.items()
        if isinstance(parameter, CategoricalParameter) and not parameter.ordered and count(parameter) != 1
    ]
    conditional = [name for name, parameter in study.space.items() if parameter.when]
    return [
        *found,
        *(Violation(pointer(["space", name, "when"]), "cmaes knows no conditions: use `tpe`") for name in conditional),
    ]
