"""What commands print: models as JSON or YAML for programs on stdout, tables for people, messages on stderr."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

PLAIN_COLUMNS = 200
"""Width of a table that goes to a file or another program: nothing is cut at a terminal's edge."""


class Format(StrEnum):
    """How a command prints what it got."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FORMAT_HELP = "table for people; json and yaml hold the API's own fields."
FormatOption = Annotated[Format, typer.Option("--output", "-o", help=FORMAT_HELP)]
OutputFormatOption = Annotated[Format, typer.Option("--output", help=FORMAT_HELP)]


def console(stream: TextIO | None = None) -> "Console":
    """A console on a stream (stdout unless given): colours and boxes on a terminal only."""
    from rich.console import Console

    file = stream or sys.stdout
    if is_terminal(file):
        return Console(file=file, highlight=False, soft_wrap=False)
    return Console(file=file, highlight=False, no_color=True, force_terminal=False, width=PLAIN_COLUMNS)


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def say(message: str, style: str | None = None) -> None:
    """A message for people, on stderr."""
    if is_terminal(sys.stderr):
        console(sys.stderr).print(message, style=style, markup=False, soft_wrap=True)
    else:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()


def emit(form: Format, models: "BaseModel | Sequence[BaseModel]", table: "Callable[[], RenderableType]") -> None:
    """Print one model, or a list of them, on stdout."""
    match form:
        case Format.TABLE:
            console().print(table())
        case Format.JSON:
            sys.stdout.write(json.dumps(_plain(models), indent=2, ensure_ascii=False) + "\n")
        case Format.YAML:
            import yaml

            sys.stdout.write(yaml.safe_dump(_plain(models), sort_keys=False, allow_unicode=True))
    sys.stdout.flush()


def _plain(models: "BaseModel | Sequence[BaseModel]") -> Any:
    """What JSON and YAML can hold."""
    if isinstance(models, Sequence):
        return [model.model_dump(mode="json") for model in models]
    return models.model_dump(mode="json")
