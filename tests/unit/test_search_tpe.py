"""The Parzen estimator by itself; `test_search_suite` holds it to the suite that Optuna ships."""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

from search_spaces import CategoricalParameter, Constraint, FloatParameter, IntParameter, Space
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
