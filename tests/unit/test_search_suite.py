"""The samplers of our own against the suite that Optuna ships for samplers."""

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from random import Random
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.testing.pytest_samplers import BasicSamplerTestCase, MultiObjectiveSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from search_spaces import CategoricalParameter, Configuration, FloatParameter, IntParameter, Parameter, Space
from service.domain.pareto import best_first
from service.search.nsga2 import nsga2_proposals
from service.search.sobol import sobol_configuration
from service.search.tpe import parzen_proposals

Propose = Callable[[Space, Sequence[Configuration], int], Iterator[Configuration]]


def parzen(space: Space, ranked: Sequence[Configuration], seed: int) -> Iterator[Configuration]:
    return parzen_proposals(space, ranked, [], set(), seed)


def genetic(space: Space, ranked: Sequence[Configuration], seed: int) -> Iterator[Configuration]:
    return nsga2_proposals(space, ranked, 10, set(), (seed, len(ranked)))


def evenly(space: Space, ranked: Sequence[Configuration], seed: int) -> Iterator[Configuration]:
    found = sobol_configuration(space, seed % 64, set())
    return iter(() if found is None else (found,))


class Adapted(optuna.samplers.BaseSampler):  # type: ignore[misc]  # optuna is untyped here
    """One of ours as a sampler of Optuna's, with no start-up phase."""

    def __init__(self, propose: Propose) -> None:
        self._propose = propose
        self._search_space = IntersectionSearchSpace()
        self._random = Random(0)  # noqa: S311 - a search, not a secret

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {name: one for name, one in self._search_space.calculate(study).items() if not one.single()}

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if not search_space or not done:
            return {}
        space = Space({name: parameter_of(one) for name, one in search_space.items()})
        signs = [1 if direction == optuna.study.StudyDirection.MINIMIZE else -1 for direction in study.directions]
        order = best_first([[sign * value for sign, value in zip(signs, one.values, strict=True)] for one in done])
        done = [done[place] for place in order]
        known = [
            {name: place_of(search_space[name], one.params[name]) for name in search_space}
            for one in done
            if all(
                search_space[name]._contains(one.distributions[name].to_internal_repr(one.params[name])) for name in search_space
            )
        ]
        found = next(self._propose(space, known, self._random.randrange(2**31)), None)
        return {} if found is None else {name: value_for(search_space[name], value) for name, value in found.items()}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        drawn = Space({param_name: parameter_of(param_distribution)}).draw(self._random)
        return value_for(param_distribution, drawn[param_name])


def parameter_of(distribution: Any) -> Parameter:
    match distribution:
        case FloatDistribution(low=low, high=high, log=log, step=None):
            return FloatParameter(kind="float", low=low, high=high, log=log)
        case FloatDistribution(low=low, high=high, step=step):
            return IntParameter(kind="int", low=0, high=round((high - low) / step))
        case IntDistribution(low=low, high=high, log=log, step=step):
            return IntParameter(kind="int", low=low, high=high, log=log, step=step)
        case CategoricalDistribution(choices=choices):
            return CategoricalParameter(kind="categorical", choices=tuple(range(len(choices))))
    raise TypeError(distribution)


def value_for(distribution: Any, value: Any) -> Any:
    match distribution:
        case FloatDistribution(low=low, step=float(step)):
            return float(Decimal(str(low)) + value * Decimal(str(step)))
        case CategoricalDistribution(choices=choices):
            return choices[value]
    return value


def holds(distribution: Any, value: Any) -> bool:
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def place_of(distribution: Any, value: Any) -> Any:
    match distribution:
        case FloatDistribution(low=low, step=float(step)):
            return round((value - low) / step)
        case CategoricalDistribution():
            return int(distribution.to_internal_repr(value))
    return value


@pytest.fixture(scope="module", autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)


class _Sampled:
    @pytest.fixture(params=[parzen, genetic, evenly], ids=lambda propose: propose.__name__)
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], optuna.samplers.BaseSampler]:
        return lambda: Adapted(request.param)


class TestASampler(_Sampled, BasicSamplerTestCase):  # type: ignore[misc]  # as above
    pass


class TestJointSamples(_Sampled, RelativeSamplerTestCase):  # type: ignore[misc]  # as above
    pass


class TestSeveralObjectives(_Sampled, MultiObjectiveSamplerTestCase):  # type: ignore[misc]  # as above
    pass
