"""`tuneyard study preview` and `tuneyard study final`: the first and the last step of a study, as tables."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Format, FormatOption, emit
from service.cli.session import session_of
from service.cli.studies import StudyArgument

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from service.api.step_schemas import FinalView, PreviewView, SpreadView


def preview(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Study definition, YAML or JSON; - reads stdin.", show_default=False)
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a study would do and how long it would take, without starting it."""
    definition = sys.stdin.buffer.read() if file == "-" else _read(Path(file))
    with session_of(context).client() as client:
        found = client.preview(definition)
    emit(output, found, lambda: _preview_table(found))


def final(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Show how a study's best configurations did when trained again."""
    with session_of(context).client() as client:
        found = client.final(study)
    emit(output, found, lambda: _final_table(found))


def _preview_table(preview: "PreviewView") -> "RenderableType":
    from rich.console import Group

    from service.cli.words import duration, scalar

    known = preview.warm_start
    head = _pairs(
        [
            ("strategy", _strategy(preview)),
            ("why", preview.reason),
            ("space", "endless" if preview.space_size is None else f"{preview.space_size} configurations"),
            ("grid", None if preview.grid_size is None else f"{preview.grid_size} configurations"),
            ("trials", _count(preview.trials, f", {preview.reports} reports")),
            ("final", f"{preview.final_runs} runs on top" if preview.final_runs else None),
            ("a report", None if preview.report_time.seconds is None else f"{preview.report_time.seconds:.3g} s"),
            ("", preview.report_time.sentence),
            ("takes", "not known" if preview.seconds is None else f"about {duration(preview.seconds)}"),
            ("warm start", None if known is None else f"{known.carried_over} trials carry over, {known.left_out} do not"),
            *(("note", note) for note in preview.notes),
        ]
    )
    parts: list[RenderableType] = [head]
    if preview.brackets:
        ladders = _table(">bracket", "trials to report")
        for one in preview.brackets:
            sizes = [str(trials) for trials in one.sizes] or ["?"] * len(one.rungs)
            steps = [f"{trials} to {rung}" for trials, rung in zip(sizes, one.rungs, strict=True)]
            ladders.add_row(str(one.index), ", ".join(steps))
        parts += ["", ladders]
    names = list(dict.fromkeys(name for one in preview.configurations for name in one.parameters))
    first = _table(">first", *[f">{name}" for name in names], "why")
    for place, trial in enumerate(preview.configurations):
        values = [scalar(trial.parameters[name]) if name in trial.parameters else "" for name in names]
        first.add_row(str(place), *values, trial.why)
    return Group(*parts, "", first)


def _final_table(final: "FinalView") -> "RenderableType":
    from rich.console import Group

    from service.cli.words import size

    metrics = list(dict.fromkeys(name for one in final.finalists for name in one.tests))
    table = _table(">trial", f">{final.metric}", *[f">{name}" for name in metrics], ">runs", ">p", ">seconds", ">model", "")
    for one in final.finalists:
        table.add_row(
            str(one.trial),
            _spread(one.objective),
            *(_spread(one.tests.get(name)) for name in metrics),
            str(one.objective.n if one.objective else 0),
            "" if one.p_value is None else f"{one.p_value:.2g}",
            "" if one.seconds is None else f"{one.seconds:.1f}",
            "" if one.bytes is None else size(one.bytes),
            "winner" if one.trial == final.winner else "",
        )
    return Group(final.verdict, "", table)


def _strategy(preview: "PreviewView") -> str:
    sampler = preview.strategy.get("sampler")
    return f"{preview.strategy['kind']}, {sampler['kind']}" if sampler else str(preview.strategy["kind"])


def _count(trials: int | None, more: str) -> str:
    return "not known" if trials is None else f"{trials}{more}"


def _spread(spread: "SpreadView | None") -> str:
    from service.cli.words import number

    if spread is None:
        return "-"
    return number(spread.mean) + ("" if spread.deviation is None else f" ± {spread.deviation:.2g}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="FILE") from error


def _table(*headings: str) -> "Table":
    """A table without lines; a heading that starts with > is aligned right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings:
        table.add_column(heading.removeprefix(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    return table


def _pairs(rows: list[tuple[str, str | None]]) -> "Table":
    """Names and values; what has no value is left out."""
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        if value is not None:
            table.add_row(name, value)
    return table
