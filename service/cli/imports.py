"""`tuneyard study import`: a search that another tool's file defines, as a study's file. No service is asked."""

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from service.cli.exits import ExitCode
from service.cli.output import say

_KIND = "text-classification"
_PLACEHOLDERS = {
    "model": "OWNER/NAME  # a model of the hub, a folder under a model root, or builtin://NAME",
    "data": "{train: dataset://NAME/FILE}  # and the names of the columns",
}
"""What a file of another tool cannot say. It stands in the study as comments, so that a service asks for each key by its name."""
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
"""Plain words that YAML 1.1 or 1.2 takes for something else."""


def import_study(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A Katib Experiment, a W&B sweep or a Determined experiment, YAML or JSON; - reads stdin.",
            show_default=False,
        ),
    ],
    trainer: Annotated[str | None, typer.Option(help="Kind of trainer.", show_default=_KIND)] = None,
    model: Annotated[str | None, typer.Option(help="Base model; left out, a comment to fill in.", show_default=False)] = None,
    train: Annotated[
        str | None,
        typer.Option(help="Training rows, as dataset://NAME/FILE; left out, a comment to fill in.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="File to write; left out, stdout.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace that file if it is there.")] = False,
) -> None:
    """Write a study's file from another tool's search definition.

    The other tool's file says what varies, what is better, how to search and what it may spend. Its program cannot be
    imported: a trainer takes the program's place, with the model and the rows that --model and --train name. Left out, they
    stand in the study as comments, and a service refuses it until they are filled in.

    Messages say what was changed or does not carry over, with its place in the other tool's file, and then what a service
    would still refuse, with its place in the study.
    """
    from search_spaces.importers import NotImportable, import_definition
    from service.domain.errors import MalformedDocument

    kind = trainer or _KIND
    _check_options(kind, output, force=force)
    try:
        imported = import_definition(_decoded(file))
    except (NotImportable, MalformedDocument) as refused:
        say(f"error: {'stdin' if file == '-' else file}: {refused}", style="red")
        raise typer.Exit(ExitCode.INVALID) from refused
    options = {"kind": kind, "model": model, "data": {"train": train} if train else None}
    document = {**imported.document, "trainer": _filled(options, imported.document["trainer"])}
    _write(written(document, imported.tool), output, force=force)
    for note in imported.notes:
        say(f"note: {note}")
    if trainer is None:
        say(f"note: the trainer is {kind}: --trainer names another")
    _check(document)


def written(document: Mapping[str, Any], tool: str) -> str:
    """The study as YAML: a line for each setting and parameter, and comments where the trainer is to be filled in."""
    lines = [f"# Imported from {tool} by `tuneyard study import`."]
    for section, value in document.items():
        if section in ("trainer", "space") and value:
            missing = {key: hint for key, hint in _PLACEHOLDERS.items() if section == "trainer" and key not in value}
            lines += [
                f"{section}:",
                *(f"  {_flow(key)}: {_flow(item)}" for key, item in value.items()),
                *(f"  # {key}: {hint}" for key, hint in missing.items()),
            ]
        else:
            lines.append(f"{section}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _check_options(kind: str, output: Path | None, *, force: bool) -> None:
    """Raise `typer.BadParameter` for a kind of trainer that is none, and for a file that is there already."""
    from trainers.configs import CONFIGS

    kinds = [name for name, config in CONFIGS.items() if "model" in config.model_fields]
    if kind not in kinds:
        raise typer.BadParameter(f"no trainer {kind!r} trains a model: name one of {', '.join(kinds)}", param_hint="--trainer")
    if output is not None and output.exists() and not force:
        raise typer.BadParameter(f"{output} is there already: name another file, or add --force", param_hint="--to")


def _decoded(file: str) -> Any:
    """The file's document, read as a study's is. Raises `MalformedDocument`."""
    from service.api.documents import MAX_BYTES, decode
    from service.domain.errors import MalformedDocument

    body = _read(file, MAX_BYTES + 1)
    if len(body) > MAX_BYTES:
        raise MalformedDocument(f"is larger than {MAX_BYTES} bytes, which no search definition is: name another file")
    try:
        return decode(body, None)
    except MalformedDocument as error:
        if "another document" not in error.detail:
            raise
        raise MalformedDocument(f"holds several documents: keep the one to import ({error.detail})") from error


def _read(file: str, most: int) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(most)
    try:
        with Path(file).open("rb") as stream:
            return stream.read(most)
    except OSError as error:
        raise typer.BadParameter(f"cannot read {file}: {error.strerror}", param_hint="FILE") from error


def _filled(options: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The trainer's settings: what an option says comes before what the other tool's file says."""
    given = {key: value for key, value in options.items() if value is not None}
    return {**given, **{key: value for key, value in found.items() if key not in given}}


def _write(text: str, output: Path | None, *, force: bool) -> None:
    if output is None:
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    try:
        with output.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {output}: {error.strerror}", param_hint="--to") from error
    say(f"{output} is written")


def _check(document: Mapping[str, Any]) -> None:
    """Say what a service would refuse of the study as it stands."""
    from service.domain.definition import parse_definition
    from service.domain.errors import InvalidDefinition

    stand_ins = {"model": "OWNER/NAME", "data": {"train": "dataset://NAME/FILE"}}
    missing = [key for key in stand_ins if key not in document["trainer"]]
    refused = [f"/trainer/{key}: is required: add it" for key in missing]
    try:
        parse_definition({**document, "trainer": {**stand_ins, **document["trainer"]}})
    except InvalidDefinition as invalid:
        refused += [f"{violation.pointer or '/'}: {violation.detail}" for violation in invalid.violations]
    if refused:
        say("to do in the study before `tuneyard study apply`:", style="yellow")
        for line in refused:
            say(f"  {line}")


def _flow(value: Any) -> str:
    """A value on one line, which YAML 1.1 and 1.2 read alike."""
    match value:
        case Mapping():
            return "{" + ", ".join(f"{_flow(key)}: {_flow(item)}" for key, item in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_flow, value)) + "]"
        case str() if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
            return value
        case str():
            return _quoted(value)
        case float():
            return _real(value)
        case _:
            return json.dumps(value)


def _quoted(text: str) -> str:
    import yaml

    return yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf).strip()


def _real(value: float) -> str:
    if not math.isfinite(value):
        return {math.inf: ".inf", -math.inf: "-.inf"}.get(value, ".nan")
    # Without a point, version 1.1 takes 1e-05 for a string.
    text = repr(value)
    return text.replace("e", ".0e") if "e" in text and "." not in text else text
