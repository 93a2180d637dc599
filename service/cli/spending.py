"""`tuneyard study spending` and `tuneyard study forecast`: what a study has used, and what it will."""

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Format, FormatOption, emit, working
from service.cli.session import session_of
from service.cli.studies import StudyArgument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from service.api.schemas import SpentView
    from service.api.spending_schemas import AmountView, BandView, ForecastView, PredictionView, ScoreView, SpendingView
    from service.cli.layout import Rows


_NONE = "No forecast of it was kept: those come with a trial's end, after half a minute."
_NONE_YET = "No forecast was kept yet: the first comes with a trial's end, after half a minute."


def spending(
    context: typer.Context,
    study: StudyArgument,
    limit: Annotated[int, typer.Option(help="Most trials to name.", min=0, max=1000)] = 10,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what a study has spent, and on what."""
    with session_of(context).client() as client:
        found = client.spending(study, limit)
    emit(output, found, lambda: _spending_tables(found))


def forecast(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Show how a study is expected to end. Once it has, how well that was foretold."""
    with session_of(context).client() as client, working("foretelling"):
        found = client.forecast(study)
    emit(output, found, lambda: _forecast_tables(found))


def _spending_tables(found: "SpendingView") -> "RenderableType":
    from rich.console import Group

    from service.cli.layout import Rows
    from service.cli.words import amount, duration

    limits, reserved = found.limits, found.reserved
    totals = Rows("budget", ">spent", ">reserved", ">limit")
    totals.add_row("trials", *_of_limit(limits.trials))
    totals.add_row("reports", *_of_limit(limits.epochs, amount(reserved.reports)))
    wall = limits.wall_clock_seconds
    totals.add_row("wall clock", duration(wall.spent, fine=True), "", "" if wall.limit is None else duration(wall.limit))
    totals.add_row("GPU-hours", *_of_limit(limits.gpu_hours, amount(reserved.gpu_hours)))
    if limits.cost is not None and reserved.cost is not None:
        totals.add_row("cost", *_of_limit(limits.cost, amount(reserved.cost)))
    amounts = Rows("on", ">trials", ">reports", ">time", ">lost", ">GPU-hours", ">cost")
    rows: list[tuple[str, AmountView]] = [("all", found.total)]
    rows += [(one.state.value, one) for one in found.by_state]
    if found.final.trials:
        rows.append(("final", found.final))
    if len(found.by_rung) > 1:
        rows += [(f"rung {one.rung}", one) for one in found.by_rung]
    rows += [(f"trial {one.trial}", one) for one in found.costliest]
    for name, one in rows:
        cost = "" if one.cost is None else amount(one.cost)
        lost = duration(one.lost_seconds, fine=True) if one.lost_seconds else ""
        amounts.add_row(
            name, amount(one.trials), amount(one.reports), duration(one.seconds, fine=True), lost, amount(one.gpu_hours), cost
        )
    return Group(totals, "", amounts)


def _forecast_tables(found: "ForecastView") -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    from service.cli.layout import Rows

    parts: list[RenderableType] = []
    if found.now is not None:
        parts += [_prediction(found.now), Text(f"from {found.now.ended_trials} ended trials, {found.now.slots} at once"), ""]
        parts += [Text(note) for note in found.now.notes]
    if not found.past:
        is_over = found.now is None
        return Group(*parts, Text(_NONE if is_over else _NONE_YET))
    table = Rows(">trials", ">foretold", "low to high", ">came", ">error", "band")
    for one in found.past:
        band = one.prediction.seconds
        score = None if one.scores is None else one.scores.seconds
        table.add_row(
            str(one.prediction.ended_trials), _time(band.expected), f"{_time(band.low)} to {_time(band.high)}", *_came(score)
        )
    return Group(*parts, Text("Time it runs, as foretold after so many trials"), table)


def _prediction(now: "PredictionView") -> "Rows":
    from service.cli.layout import Rows
    from service.cli.words import amount, moment
    from service.domain.sizes import size

    table = Rows("of the study", ">expected", "low to high")
    ends = now.ends_at
    table.add_row("ends at", moment(ends.expected), f"{moment(ends.earliest)} to {moment(ends.latest)}")
    table.add_row("runs for", _time(now.seconds.expected), f"{_time(now.seconds.low)} to {_time(now.seconds.high)}")
    bands: list[tuple[str, BandView | None]] = [
        ("GPU-hours", now.gpu_hours), ("cost", now.cost), ("trials", now.trials), ("reports", now.reports),
    ]  # fmt: skip
    for name, band in bands:
        if band is not None:
            table.add_row(name, amount(band.expected), f"{amount(band.low)} to {amount(band.high)}")
    if now.bytes is not None:
        table.add_row("disk", size(round(now.bytes.expected)), f"{size(round(now.bytes.low))} to {size(round(now.bytes.high))}")
    return table


def _came(score: "ScoreView | None") -> tuple[str, str, str]:
    if score is None:
        return "", "", ""
    error = "" if score.error is None else f"{score.error:+.0%}"
    return _time(score.happened), error, "inside" if score.is_inside else "outside"


def _of_limit(spent: "SpentView", reserved: str = "") -> tuple[str, str, str]:
    from service.cli.words import amount

    return amount(spent.spent), reserved, "" if spent.limit is None else amount(spent.limit)


def _time(seconds: float) -> str:
    from service.cli.words import duration

    return duration(seconds, fine=True)
