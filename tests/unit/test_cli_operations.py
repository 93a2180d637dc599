"""The command line speaks of commands where the service speaks of requests."""

import re
import shlex

import pytest
import typer

from service.cli.app import app
from service.cli.operations import _COMMANDS, as_commands


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        ("There is no study 'x': `GET /v1/studies` lists them.", "There is no study 'x': `tuneyard study ls` lists them."),
        ("`GET /v1/studies/i-1/trials` lists its trials.", "`tuneyard trial ls i-1` lists its trials."),
        ("see `POST /v1/studies:preview`.", "see `tuneyard study preview FILE`."),
        ("`GET /v1/studies/i-1/pareto` and", "`tuneyard study pareto i-1` and"),
        ("`POST /v1/studies/i-1:fork`", "`tuneyard study fork i-1`"),
        ("`GET /v1/studies/i-1/trials/NUMBER/checkpoint`", "`tuneyard best pull i-1 --trial NUMBER --to FOLDER`"),
        ("`GET /v1/deletions` and `rm -r x`", "`GET /v1/deletions` and `rm -r x`"),
    ],
)
def test_an_operation_is_said_as_the_command_that_does_it(sentence: str, said: str) -> None:
    assert as_commands(sentence) == said


@pytest.mark.parametrize("command", [command for command in _COMMANDS.values() if not {"VERB", "PART"} & set(command.split())])
def test_every_command_that_is_named_is_there(command: str) -> None:
    found = typer.main.get_command(app)
    for word in shlex.split(command):
        if word in getattr(found, "commands", {}):
            found = found.commands[word]  # type: ignore[attr-defined]
    assert not hasattr(found, "commands"), command
    options = {name for parameter in found.params for name in parameter.opts}
    assert set(re.findall(r"--[a-z]+", command)) <= options
