"""`tuneyard study preview` and `tuneyard study final`: the first and the last step of a study, as tables."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Format, FormatOption, emit, working
from service.cli.session import session_of
from service.cli.studies import StudyArgument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from service.api.step_schemas import FinalView, PreviewView, SpreadView


def preview(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Study definition, YAML or JSON; - reads stdin.", show_default=False)
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a study would do, without starting it. How long it would take is part of that."""
    definition = sys.stdin.buffer.read() if file == "-" else _read(Path(file))
    with session_of(context).client() as client, working("planning"):
        found = client.preview(definition)
    emit(output, found, lambda: _preview_table(found))


def final(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Show how a study's best configurations did when trained again."""
    with session_of(context).client() as client:
        found = client.final(study)
    emit(output, found, lambda: _final_table(found))


def _preview_table(preview: "PreviewView") -> "RenderableType":
    from rich.console import Group

    from service.cli.layout import Rows, pairs
    from service.cli.words import duration, scalar, short_names

    known = preview.warm_start
    head = pairs(
        [
            ("strategy", _strategy(preview)),
            ("why", preview.reason),
            (
                "space",
                "more than can be counted" if preview.space_size is None else f"{preview.space_size} configurations",
            ),
            ("grid", None if preview.grid_size is None else f"{preview.grid_size} configurations"),
            ("trials", _count(preview.trials, f", with {preview.reports} reports in all")),
            ("final", f"{preview.final_runs} runs on top" if preview.final_runs else None),
            ("a report", None if preview.report_time.seconds is None else f"{preview.report_time.seconds:.3g} s"),
            ("", preview.report_time.sentence),
            ("takes", "not known" if preview.seconds is None else f"about {duration(preview.seconds)} of training"),
            ("", None if preview.seconds is None else "Workers that start and checkpoints that are saved come on top."),
            ("warm start", None if known is None else f"{known.carried_over} trials carry over, {known.left_out} do not"),
            *(("note", note) for note in preview.notes),
        ]
    )
    parts: list[RenderableType] = [head]
    if preview.brackets:
        ladders = Rows(">bracket", "how far its trials train", flow=("how far its trials train",))
        for one in preview.brackets:
            ladders.add_row(str(one.index), _ladder(one.sizes, one.rungs))
        parts += ["", ladders]
    names = list(dict.fromkeys(name for one in preview.configurations for name in one.parameters))
    first = Rows(
        ">first", *[f">{name}" for name in names], "why", short=short_names(names), flow=("why",), drop=[*reversed(names)]
    )
    for place, trial in enumerate(preview.configurations):
        values = [scalar(trial.parameters[name]) if name in trial.parameters else "" for name in names]
        first.add_row(str(place), *values, trial.why)
    return Group(*parts, "", first)


def _ladder(sizes: "Sequence[int]", rungs: "Sequence[int]") -> str:
    if not sizes:
        return f"some to report {rungs[0]}" + "".join(f", fewer on to {rung}" for rung in rungs[1:])
    more = "".join(f", {trials} of them on to {rung}" for trials, rung in zip(sizes[1:], rungs[1:], strict=True))
    return f"{sizes[0]} to report {rungs[0]}{more}"


def _final_table(final: "FinalView") -> "RenderableType":
    from rich.console import Group

    from service.cli.layout import Rows
    from service.cli.words import short_names
    from service.domain.sizes import size

    metrics = list(dict.fromkeys(name for one in final.finalists for name in one.tests))
    table = Rows(
        ">trial", f">{final.metric}", *[f">{name}" for name in metrics], ">runs", ">p", ">seconds", ">model", "result",
        short=short_names([final.metric, *metrics]), drop=("model", "seconds", *reversed(metrics), "runs"),
    )  # fmt: skip
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
