"""docs/budgets.md shows what a budget takes, and names every limit."""

import re
from typing import Any

import pytest
import typer
import yaml

from service.cli.app import app
from service.domain.budget import Budget
from service.domain.definition import parse_definition
from service.search.forecast import COURSES
from tests.docs.test_readme import ROOT, parse
from tests.docs.test_search import REST

TEXT = (ROOT / "docs" / "budgets.md").read_text()
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_a_part_of_a_definition(example: str) -> None:
    part: dict[str, Any] = yaml.safe_load(example)
    assert parse_definition({**REST, "resources": {"gpus_per_trial": 1}, **part}).is_bounded


def test_every_limit_is_named_and_shown() -> None:
    table = TEXT.partition("## Limits")[2].partition("## ")[0]
    assert re.findall(r"^\| `([a-z_]+)` \| ", table, re.MULTILINE) == list(Budget.model_fields)
    assert set(yaml.safe_load(EXAMPLES[0])["budget"]) == set(Budget.model_fields)


@pytest.mark.parametrize("line", sorted(set(re.findall(r"`tuneyard ([^`]*)`", TEXT))))
def test_a_command_line_is_understood(line: str) -> None:
    parse(typer.main.get_command(app), "tuneyard", line.split())


def test_as_many_courses_are_simulated_as_it_says() -> None:
    assert f"up to {COURSES} times" in TEXT
