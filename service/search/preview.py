"""A preview of a study, by the code that leads it. Run as a process of its own, as models are heavy to import.

python -m service.search.preview < REQUEST.json
"""

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from search_spaces import Configuration
from service.domain.definition import StudyDefinition
from service.domain.history import History, PriorTrial
from service.domain.preview import PlannedBracket, PlannedTrial, Preview
from service.domain.rungs import all_rungs, brackets
from service.domain.strategy import (
    BayesianStrategy,
    GridStrategy,
    HyperbandStrategy,
    MedianStrategy,
    PbtStrategy,
    RandomSampler,
    RandomStrategy,
    Strategy,
)
from service.domain.study import Study, StudyState
from service.search.actions import Start
from service.search.decide import next_action
from service.search.draws import random_of
from service.search.simulate import Simulation, simulate

FIRST = 10
"""Configurations that are shown."""
_LONGEST_SECONDS = 60
_MOST_BRACKETS = 20
_MOST_REPORTS = 5_000
"""Reports that are simulated: some seconds' work."""
_NOW = datetime(2000, 1, 1, tzinfo=UTC)
_RANDOM = RandomSampler(kind="random")


def main() -> int:
    request = json.load(sys.stdin)
    definition = StudyDefinition.model_validate_json(json.dumps(request["definition"]))
    prior = [PriorTrial(**{**one, "values": tuple(one["values"])}) for one in request["prior"]]
    json.dump(asdict(previewed(definition, prior, request["seconds_per_report"])), sys.stdout)
    return 0


def previewed(definition: StudyDefinition, prior: Sequence[PriorTrial], seconds_per_report: float | None) -> Preview:
    """What a study of this definition would do. Models are not asked again and again: they change what is tried, not how much."""
    study = _study(definition)
    size = definition.search_space.size()
    course = _course(study, seconds_per_report)
    return Preview(
        strategy=definition.plan.strategy.model_dump(mode="json"),
        reason=definition.plan.reason,
        brackets=list(_brackets(definition, course.done)),
        configurations=[
            PlannedTrial(start.parameters, start.why.sentence if start.why else "") for start in _first(study, prior)
        ],
        grid_size=_grid_size(definition),
        space_size=size,
        trials=course.trials,
        reports=course.reports,
        final_runs=course.final_runs,
        seconds=course.seconds if seconds_per_report is not None else None,
        notes=course.notes,
    )


@dataclass(frozen=True)
class _Course:
    """How a simulated study went; `done` is None where it cannot be simulated to its end."""

    done: Simulation | None
    notes: tuple[str, ...] = ()

    @property
    def trials(self) -> int | None:
        return None if self.done is None else len(self.done.history.searched.trials)

    @property
    def reports(self) -> int | None:
        return None if self.done is None else self.done.history.searched.reports_given

    @property
    def final_runs(self) -> int | None:
        return None if self.done is None else len(self.done.history.trials) - (self.trials or 0)

    @property
    def seconds(self) -> float | None:
        return None if self.done is None else self.done.seconds


def _first(study: Study, prior: Sequence[PriorTrial]) -> Iterator[Start]:
    """The first new trials, all of them running when the next one is asked for."""
    history = History(prior=tuple(prior))
    for _ in range(FIRST):
        action = next_action(study, history, _NOW)
        if not isinstance(action, Start):
            return
        yield action
        history = history.with_trial(action.trial(study.id, _NOW).started(_NOW))


def _course(study: Study, seconds_per_report: float | None) -> _Course:
    """The study's course when nothing fails, trials differ in how good they are, and no target or early stopping ends any."""
    budget = study.definition.budget
    is_timed = budget.wall_clock is not None or budget.gpu_seconds is not None
    notes = []
    changes: dict[str, Any] = {"target": None, "no_improvement": None}
    if is_timed and seconds_per_report is None:
        if not _ends_without_time(study.definition):
            return _Course(None, ("Only time ends it, and how long a report takes is not known: nor is how many trials fit.",))
        changes |= {"wall_clock": None, "gpu_hours": None, "cost": None}
        notes.append("The limits on time may end it earlier: how long a report takes is not known.")
    if budget.target is not None:
        notes.append("It ends earlier when a trial reaches the target.")
    if budget.no_improvement is not None:
        notes.append("It ends earlier when its trials stop getting better.")
    notes += _of_population(study.definition)
    simplified: dict[str, Any] = {"budget": budget.model_copy(update=changes)}
    simplified["strategy"] = without_model(study.definition.plan.strategy)
    if study.definition.search_space.size() is None and "epochs" not in study.definition.space:
        simplified["constraints"] = ()  # what is tried does not change how much, and may be long to find
    lighter = replace(study, definition=study.definition.model_copy(update=simplified))
    workers = study.definition.resources.max_concurrent_trials
    done = simulate(lighter, _noise(study), workers=workers, seconds=seconds_per_report or 1.0, stop_after_reports=_MOST_REPORTS)
    if done.reason is None:
        return _Course(None, (*notes, f"It takes more than {_MOST_REPORTS} reports, which are not simulated to the end."))
    return _Course(done, tuple(notes))


def _of_population(definition: StudyDefinition) -> Iterator[str]:
    strategy, trials = definition.plan.strategy, definition.budget.trials
    if isinstance(strategy, PbtStrategy) and trials is not None and trials < strategy.most_trials(definition.max_reports):
        copies, all_of_them = trials - strategy.population, strategy.most_trials(definition.max_reports)
        yield (
            f"Copies are trials too: {copies} members can be replaced, {strategy.places} at each comparison and none after that. "
            f"It takes {all_of_them} trials to replace some at each."
        )


def _ends_without_time(definition: StudyDefinition) -> bool:
    budget = definition.budget
    if budget.trials is not None or budget.epochs is not None or isinstance(definition.plan.strategy, PbtStrategy):
        return True
    return definition.search_space.size() is not None or isinstance(definition.plan.strategy, GridStrategy)


def without_model(strategy: Strategy) -> Strategy:
    """The strategy with draws in place of a model's proposals: it tries as much, and costs next to nothing."""
    match strategy:
        case BayesianStrategy():
            return RandomStrategy(kind="random")
        case HyperbandStrategy() | MedianStrategy():
            return strategy.model_copy(update={"sampler": _RANDOM})
        case _:
            return strategy


def _noise(study: Study) -> Any:
    """An objective that has nothing to do with any trainer: each configuration is as good as it happens to be."""

    def objective(parameters: Configuration, report: int) -> float:
        luck = random_of(study.definition.seed, 0, json.dumps(dict(parameters), sort_keys=True)).random()
        return -study.definition.objective.sort_key(luck - 0.5 / report)

    return objective


def _brackets(definition: StudyDefinition, done: Simulation | None) -> Iterator[PlannedBracket]:
    match definition.plan.strategy:
        case HyperbandStrategy(mode="sync"):
            for one in islice(brackets(definition), _MOST_BRACKETS):
                yield PlannedBracket(one.index, one.rungs, one.sizes)
        case HyperbandStrategy():
            rungs = all_rungs(definition)[::-1]
            trials = [] if done is None else list(done.history.searched.trials.values())
            sizes = tuple(sum(trial.reports >= rung for trial in trials) for rung in rungs)
            yield PlannedBracket(0, rungs, sizes if trials else ())
        case _:
            return


def _grid_size(definition: StudyDefinition) -> int | None:
    try:
        return definition.search_space.grid_size()
    except ValueError:  # a continuous parameter without `grid`
        return None


def _study(definition: StudyDefinition) -> Study:
    return Study(id="preview", definition=definition, created_at=_NOW, state=StudyState.RUNNING, started_at=_NOW)


if __name__ == "__main__":
    signal.alarm(_LONGEST_SECONDS)  # whoever started this may be gone
    with contextlib.suppress(OSError):
        os.nice(10)  # training goes first
    sys.exit(main())
