"""docs/search.md shows what a definition takes, and names every strategy, sampler and kind of parameter."""

import re
from typing import Any, get_args

import pytest
import yaml

from search_spaces import Parameter
from service.domain.definition import parse_definition
from service.domain.strategy import BayesianSampler, HyperbandSampler, Strategy
from tests.docs.test_readme import ROOT

TEXT = (ROOT / "docs" / "search.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
REST: dict[str, Any] = {
    "name": "example",
    "trainer": {
        "kind": "text-classification", "model": "m", "data": {"train": "dataset://a/train.csv"}, "epochs": 9, "max_length": 64,
    },
    "space": {"learning_rate": {"kind": "float", "low": 1.0e-5, "high": 1.0e-3, "log": True}},
    "objective": {"metric": "validation/accuracy", "direction": "maximize"},
    "budget": {"trials": 30},
}  # fmt: skip


def kinds_of(union: Any) -> set[str]:
    return {str(get_args(one.model_fields["kind"].annotation)[0]) for one in get_args(get_args(union)[0])}


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_part_of_a_definition(example: str) -> None:
    part = yaml.safe_load(example)
    rest = {name: value for name, value in REST.items() if not (name == "objective" and "objectives" in part)}
    assert parse_definition({**rest, **part})


def test_every_kind_of_parameter_is_named() -> None:
    table = TEXT.partition("## Spaces")[2].partition("```")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \| ", table, re.MULTILINE)) - {"kind"} == kinds_of(Parameter)


def test_every_strategy_and_sampler_is_named() -> None:
    section = TEXT.partition("## Strategies")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `([a-z0-9-]+)` \| ", section, re.MULTILINE)) - {"kind"} == kinds_of(Strategy)
    words = set(re.findall(r"`([a-z0-9]+)`", section))
    assert kinds_of(BayesianSampler) | kinds_of(HyperbandSampler) <= words
