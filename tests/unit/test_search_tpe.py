"""The Parzen estimator: by itself, and against the suite that Optuna ships for samplers."""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from random import Random
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.search_space import IntersectionSearchSpace
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from search_spaces import CategoricalParameter, Constraint, FloatParameter, IntParameter, Parameter, Space
from service.search.tpe import parzen_proposals
from tests.builders import as_number

FLAT = Space({"x": FloatParameter(kind="float", low=0.0, high=1.0), "y": FloatParameter(kind="float", low=0.0, high=1.0)})


def drawn(space: Space, count: int, seed: int = 0) -> list[Mapping[str, Any]]:
    random = Random(seed)  # noqa: S311 - a search, not a secret
    return [space.draw(random) for _ in range(count)]


def far_off(configuration: Mapping[str, Any]) -> float:
    return sum(abs(as_number(value) - 0.2) for value in configuration.values())


def test_proposals_lie_where_the_good_ones_do() -> None:
    ranked = sorted(drawn(FLAT, 60), key=far_off)
    proposals = [next(parzen_proposals(FLAT, ranked, [], set(), seed)) for seed in range(20)]
    by_chance = sum(map(far_off, ranked)) / len(ranked)
    assert sum(map(far_off, proposals)) / len(proposals) < by_chance / 3


def test_the_same_seed_proposes_the_same_and_another_one_something_else() -> None:
    ranked = sorted(drawn(FLAT, 30), key=far_off)
    first, again, other = (list(parzen_proposals(FLAT, ranked, [], set(), seed)) for seed in (1, 1, 2))
    assert first == again
    assert first[0] != other[0]


def test_a_pending_configuration_keeps_proposals_away_from_it() -> None:
    ranked = sorted(drawn(FLAT, 40), key=far_off)
    alone = [next(parzen_proposals(FLAT, ranked, [], set(), seed)) for seed in range(30)]
    center = {name: sum(as_number(one[name]) for one in alone) / len(alone) for name in ("x", "y")}

    def away(configuration: Mapping[str, Any]) -> float:
        return math.dist([as_number(configuration[name]) for name in ("x", "y")], list(center.values()))

    beside = [next(parzen_proposals(FLAT, ranked, [center] * 4, set(), seed)) for seed in range(30)]
    assert sum(map(away, beside)) > 1.1 * sum(map(away, alone))


def test_what_was_seen_is_never_proposed_and_all_the_rest_of_a_small_space_is() -> None:
    space = Space(
        {"n": IntParameter(kind="int", low=0, high=9), "c": CategoricalParameter(kind="categorical", choices=("a", "b"))}
    )
    seen = drawn(space, 8)
    keys = {space.key(one) for one in seen}
    left = []
    while (found := next(parzen_proposals(space, seen, [], keys, len(keys)), None)) is not None:
        assert space.key(found) not in keys
        keys.add(space.key(found))
        left.append(found)
    assert len(keys) == space.size() == 20
    assert len(left) == 20 - len({space.key(one) for one in seen})


def test_a_constraint_that_most_of_the_space_breaks_is_met_by_every_proposal() -> None:
    narrow = Space(FLAT.parameters, (Constraint("x + y <= 0.5", {}),))
    ranked = sorted(drawn(narrow, 30), key=lambda one: -far_off(one))
    for seed in range(10):
        for proposal in parzen_proposals(narrow, ranked, [], set(), seed):
            assert as_number(proposal["x"]) + as_number(proposal["y"]) <= 0.5


def test_a_parameter_that_exists_only_beside_a_choice_is_learnt_from_those_that_have_it() -> None:
    space = Space(
        {
            "optimizer": CategoricalParameter(kind="categorical", choices=("adamw", "sgd")),
            "momentum": FloatParameter(kind="float", low=0.0, high=1.0, when={"optimizer": "sgd"}),
        }
    )
    ranked = sorted(drawn(space, 80), key=lambda one: abs(as_number(one["momentum"]) - 0.9) if "momentum" in one else 2.0)
    proposals = [next(parzen_proposals(space, ranked, [], set(), seed)) for seed in range(20)]
    assert all(space.contains(one) for one in proposals)
    momenta = [as_number(one["momentum"]) for one in proposals if "momentum" in one]
    assert len(momenta) >= 15
    assert all(momentum > 0.6 for momentum in momenta)


def test_a_choice_without_an_order_is_learnt() -> None:
    space = Space(
        {
            "model": CategoricalParameter(kind="categorical", choices=tuple("abcdef")),
            "x": FloatParameter(kind="float", low=0.0, high=1.0),
        }
    )
    ranked = sorted(drawn(space, 60), key=lambda one: one["model"] != "e")
    found = [next(parzen_proposals(space, ranked, [], set(), seed))["model"] for seed in range(20)]
    assert found.count("e") >= 15


class Adapted(optuna.samplers.BaseSampler):  # type: ignore[misc]  # optuna is untyped here
    """Our estimator as a sampler of Optuna's, with no start-up phase."""

    def __init__(self) -> None:
        self._search_space = IntersectionSearchSpace()
        self._random = Random(0)  # noqa: S311 - a search, not a secret

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {name: one for name, one in self._search_space.calculate(study).items() if not one.single()}

    def sample_relative(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        done = study.get_trials(deepcopy=False, states=[TrialState.COMPLETE])
        if not search_space or not done:
            return {}
        space = Space({name: parameter_of(one) for name, one in search_space.items()})
        sign = 1 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1
        done.sort(key=lambda one: sign * one.value)
        known = [
            {name: place_of(search_space[name], one.params[name]) for name in search_space}
            for one in done
            if all(
                search_space[name]._contains(one.distributions[name].to_internal_repr(one.params[name])) for name in search_space
            )
        ]
        found = next(parzen_proposals(space, known, [], set(), self._random.randrange(2**31)), None)
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


class TestTheSuiteOfOptuna(BasicSamplerTestCase):  # type: ignore[misc]  # as above
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return Adapted


class TestTheSuiteOfOptunaForJointSamples(RelativeSamplerTestCase):  # type: ignore[misc]  # as above
    @pytest.fixture
    def sampler(self) -> Callable[[], optuna.samplers.BaseSampler]:
        return Adapted
