"""What a table is searched with elsewhere: random search, Optuna's TPE, and Ray Tune's asynchronous Hyperband as it comes.

They run on a clock as `service.search.simulate` does. Ray's rule sees the best value so far, as that is what a service that keeps
the best checkpoint gets; the others run whole trials.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import optuna
from ray.tune.schedulers import TrialScheduler
from ray.tune.schedulers.async_hyperband import _Bracket

from benchmarks.tables import NearestRow, Table
from search_spaces import CategoricalParameter, Configuration, FloatParameter, IntParameter, Space

_RAY_FACTOR = 4
_RAY_GRACE = 1


class Peer(Protocol):
    """Proposes configurations and is told how they do, in costs: less is better."""

    def ask(self) -> tuple[Configuration, Any] | None: ...  # None when every row was tried
    def goes_on(self, handle: Any, report: int, cost: float) -> bool: ...
    def tell(self, handle: Any, cost: float) -> None: ...


class RandomSearch:
    """Rows drawn without replacement, or configurations drawn from the space."""

    def __init__(self, table: Table, space: Space, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._draw = _seeded_draws(space, seed)
        self._rows = [] if table.function else list(self._random.permutation(len(table.rows)))
        self._table = table

    def ask(self) -> tuple[Configuration, Any] | None:
        if self._table.function:
            return self._draw(), None
        return (self._table.rows[self._rows.pop()], None) if self._rows else None

    def goes_on(self, handle: Any, report: int, cost: float) -> bool:  # noqa: ARG002 - it never stops a trial
        return True

    def tell(self, handle: Any, cost: float) -> None:
        pass


class RayAsha(RandomSearch):
    """`ASHAScheduler` with its defaults: factor 4, a grace period of 1, one bracket; configurations at random."""

    def __init__(self, table: Table, space: Space, seed: int) -> None:
        super().__init__(table, space, seed)
        self._bracket = _Bracket(_RAY_GRACE, table.reports, _RAY_FACTOR, 0)
        self._count = 0

    def ask(self) -> tuple[Configuration, Any] | None:
        asked = super().ask()
        self._count += 1
        return asked and (asked[0], _Named(str(self._count)))

    def goes_on(self, handle: Any, report: int, cost: float) -> bool:
        return bool(self._bracket.on_result(handle, report, -cost) == TrialScheduler.CONTINUE)


class OptunaTpe:
    """`TPESampler` with running trials counted as bad ones, whole trials."""

    def __init__(self, table: Table, space: Space, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space = space
        self._study: Any = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True))
        self._distributions = {name: _distribution(parameter) for name, parameter in space.parameters.items()}
        self._nearest = None if table.function else NearestRow(table, space)
        self._taken: list[Configuration] = []

    def ask(self) -> tuple[Configuration, Any] | None:
        trial = self._study.ask(self._distributions)
        configuration = {name: _outer(self._space.parameters[name], value) for name, value in trial.params.items()}
        if self._nearest is None:
            return configuration, trial
        row = self._nearest.of(configuration, self._taken)
        if row is None:
            return None
        self._taken.append(row)
        inner = {name: _inner(self._space.parameters[name], value) for name, value in row.items()}
        if inner != trial.params:
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            self._study.enqueue_trial(inner)
            trial = self._study.ask(self._distributions)
        return row, trial

    def goes_on(self, handle: Any, report: int, cost: float) -> bool:  # noqa: ARG002 - it never stops a trial
        return True

    def tell(self, handle: Any, cost: float) -> None:
        self._study.tell(handle, cost)


PEERS: Mapping[str, Callable[[Table, Space, int], Peer]] = {
    "random search": RandomSearch,
    "Optuna TPE": OptunaTpe,
    "Ray ASHA": RayAsha,
}


@dataclass
class _Named:
    trial_id: str


@dataclass(order=True)
class _Running:
    due: float
    order: int
    parameters: Configuration = field(compare=False)
    handle: Any = field(compare=False)
    curve: Sequence[float] = field(compare=False)
    report: int = field(compare=False, default=0)
    best: float = field(compare=False, default=np.inf)


def run_peer(
    table: Table, peer: Peer, workers: int, seconds: float, report_seconds: Callable[[], float]
) -> tuple[tuple[float, float], ...]:
    """The best value by the time it was seen, until `seconds` have passed."""
    sign = -1.0 if table.maximize else 1.0
    waiting: list[_Running] = []
    found: list[tuple[float, float]] = []
    clock, order = 0.0, 0
    while True:
        while len(waiting) < workers and (asked := peer.ask()) is not None:
            parameters, handle = asked
            order += 1
            heapq.heappush(waiting, _Running(clock + report_seconds(), order, parameters, handle, table.curve(parameters)))
        if not waiting or waiting[0].due > seconds + 1e-9:
            return tuple(found)
        trial = heapq.heappop(waiting)
        clock = trial.due
        cost = sign * trial.curve[trial.report]
        trial.report += 1
        trial.best = min(trial.best, cost if np.isfinite(cost) else np.inf)
        if not found or trial.best < sign * found[-1][1]:
            found.append((clock, sign * trial.best))
        is_over = trial.report >= min(len(trial.curve), table.reports)
        if is_over or not peer.goes_on(trial.handle, trial.report, trial.best):
            peer.tell(trial.handle, trial.best)
        else:
            trial.due = clock + report_seconds()
            heapq.heappush(waiting, trial)


def _seeded_draws(space: Space, seed: int) -> Callable[[], Configuration]:
    from random import Random  # noqa: PLC0415 - the other randomness here is numpy's

    random = Random(seed)  # noqa: S311 - a search, not a secret
    return lambda: space.draw(random)


def _distribution(parameter: Any) -> Any:
    match parameter:
        case FloatParameter(low=low, high=high, log=log):
            return optuna.distributions.FloatDistribution(low, high, log=log)
        case IntParameter(low=low, high=high, log=log):
            return optuna.distributions.IntDistribution(low, high, log=log)
        case CategoricalParameter(choices=choices, ordered=True):
            return optuna.distributions.IntDistribution(0, len(choices) - 1)
        case CategoricalParameter(choices=choices):
            return optuna.distributions.CategoricalDistribution(choices)
    raise TypeError(parameter)


def _outer(parameter: Any, value: Any) -> Any:
    is_place = isinstance(parameter, CategoricalParameter) and parameter.ordered
    return parameter.choices[value] if is_place else value


def _inner(parameter: Any, value: Any) -> Any:
    is_place = isinstance(parameter, CategoricalParameter) and parameter.ordered
    return parameter.choices.index(value) if is_place else value
