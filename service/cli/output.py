"""What commands print: models as JSON or YAML for programs on stdout, tables for people, messages on stderr."""

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console, RenderableType

PLAIN_COLUMNS = 200
"""Width of a table that goes to a file or another program, where nothing is dropped or cut: it may be wider."""


class Format(StrEnum):
    """How a command prints what it got."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


FORMAT_HELP = "table for people; json and yaml hold the API's own fields."
FormatOption = Annotated[Format, typer.Option("--output", "-o", help=FORMAT_HELP)]


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""What a terminal obeys instead of showing it, and what turns the direction of writing; not tabs and newlines."""


def shown(text: str) -> str:
    """A text from elsewhere, safe to print: what steers a terminal stands there spelt out, as Python spells it."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


def console(stream: TextIO | None = None) -> "Console":
    """A console on a stream (stdout unless given): colours and boxes on a terminal only. What it is given is text, no markup."""
    from service.cli.shown import ShowingConsole

    file = stream or sys.stdout
    if is_terminal(file):
        return ShowingConsole(file=file, highlight=False, markup=False, emoji=False, soft_wrap=False)
    return ShowingConsole(
        file=file, highlight=False, markup=False, emoji=False, no_color=True, force_terminal=False, width=PLAIN_COLUMNS
    )


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at this stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def say(message: str, style: str | None = None) -> None:
    """A message for people, on stderr."""
    if is_terminal(sys.stderr):
        console(sys.stderr).print(message, style=style, markup=False, soft_wrap=True)
    else:
        sys.stderr.write(shown(message) + "\n")
        sys.stderr.flush()


@contextmanager
def working(what: str) -> Iterator[None]:
    """A sign of life on stderr while something takes long; nothing where nobody looks."""
    if not is_terminal(sys.stderr):
        yield
        return
    with console(sys.stderr).status(f"{what} ..."):
        yield


def emit(form: Format, models: "BaseModel | Sequence[BaseModel]", table: "Callable[[], RenderableType]") -> None:
    """Print one model, or a list of them, on stdout."""
    match form:
        case Format.TABLE:
            target = console()
            target.print(table(), crop=target.is_terminal)
        case Format.JSON:
            text = json.dumps(_plain(models), indent=2, ensure_ascii=False)
            sys.stdout.write(_CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
        case Format.YAML:
            import yaml

            text = yaml.safe_dump(_plain(models), sort_keys=False, allow_unicode=True)
            sys.stdout.write(yaml.safe_dump(_plain(models), sort_keys=False) if _CONTROL.search(text) else text)
    sys.stdout.flush()


def _plain(models: "BaseModel | Sequence[BaseModel]") -> Any:
    """What JSON and YAML can hold."""
    if isinstance(models, Sequence):
        return [model.model_dump(mode="json") for model in models]
    return models.model_dump(mode="json")
