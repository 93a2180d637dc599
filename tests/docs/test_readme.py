"""What the README shows is what the code takes."""

import ast
import importlib
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml

from service.cli.app import app
from service.cli.exits import ExitCode
from service.client import Client
from service.domain.definition import parse_definition
from service.domain.strategy import Strategy
from service.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
FILES = ("study.yaml", "train.csv", "test.csv", "FILE")
"""Files that the examples name."""


def blocks(*languages: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [text for language, text in found if language in languages]


def inline(start: str) -> list[str]:
    return re.findall(rf"`({re.escape(start)}[^`]*)`", README)


def command_lines() -> list[list[str]]:
    """Every `tuneyard` command line, as its arguments."""
    lines = [line for block in blocks("sh", "console") for line in block.splitlines()] + inline("tuneyard ")
    found = []
    for line in lines:
        words = shlex.split(line, comments=True)
        if "tuneyard" in words:
            arguments = words[words.index("tuneyard") + 1 :]
            found.append([word for word in arguments if word not in {"|", ">"}])
    return found


def parse(command: Any, name: str, arguments: list[str], parent: Any = None) -> None:
    """Let the command line's own parser read the arguments, without running anything."""
    context = command.make_context(name, list(arguments), parent=parent)
    if hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        found, subcommand, left = command.resolve_command(context, rest)
        parse(subcommand, found, left, context)


@pytest.mark.parametrize("arguments", command_lines(), ids=" ".join)
def test_a_command_line_of_the_readme_is_understood(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in FILES:
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    if "--help" in arguments:
        arguments.remove("--help")
    parse(typer.main.get_command(app), "tuneyard", arguments)


def test_the_readme_shows_every_group_of_commands() -> None:
    groups = {group.name for group in app.registered_groups}
    assert groups <= {arguments[0] for arguments in command_lines()}


def test_a_command_line_that_is_wrong_is_noticed() -> None:
    with pytest.raises(Exception, match="--no-such-option"):
        parse(typer.main.get_command(app), "tuneyard", ["study", "ls", "--no-such-option"])


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.partition("\n")[0])
def test_a_study_of_the_readme_is_accepted(text: str) -> None:
    assert parse_definition(yaml.safe_load(text)).budget.is_bounded


@pytest.mark.parametrize("text", inline("strategy: ") + inline("checkpoints: "))
def test_a_part_of_a_study_is_accepted(text: str) -> None:
    study = yaml.safe_load(blocks("yaml")[0])
    study["space"] = {"dropout": {"kind": "float", "low": 0.0, "high": 0.3, "grid": [0.0, 0.1]}}
    parse_definition({**study, **yaml.safe_load(text)})


def test_the_readme_shows_every_strategy() -> None:
    shown = {yaml.safe_load(text)["strategy"]["kind"] for text in inline("strategy: ")}
    assert shown == {str(get_args(one.model_fields["kind"].annotation)[0]) for one in get_args(get_args(Strategy)[0])}


@pytest.mark.parametrize("text", blocks("python"), ids=lambda text: text.partition("\n")[0])
def test_a_python_example_names_what_exists(text: str) -> None:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            names = dir(importlib.import_module(str(node.module)))  # asks for the names without loading what is behind them
            assert {alias.name for alias in node.names} <= set(names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "client":
            assert hasattr(Client, node.attr)


def test_every_setting_is_in_the_table() -> None:
    listed = set(re.findall(r"^\| `(TUNEYARD_\w+)` \| ", README.partition("## Settings")[2].partition("\n## ")[0], re.MULTILINE))
    assert listed == {f"TUNEYARD_{name.upper()}" for name in Settings.model_fields}


def test_what_is_on_no_index_is_installed_from_a_clone() -> None:
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "service").rglob("*.py")]
    assert [file.name for file in files if re.search(r"pip install [^\n`]*tuneyard\[", file.read_text())] == []


def test_every_exit_code_is_in_the_table() -> None:
    listed = re.findall(r"^\| (\d+) \| ", README, re.MULTILINE)
    assert [int(code) for code in listed] == sorted(ExitCode)


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "studies").glob("*.yaml")), ids=lambda file: file.name)
def test_a_study_behind_a_figure_is_understood_and_named_beside_it(file: Path) -> None:
    parse_definition(yaml.safe_load(file.read_text()))
    assert f"`{file.stem}`" in README
