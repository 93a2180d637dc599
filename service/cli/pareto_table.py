"""A study's front as a table for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.text import Text

from service.api.pareto_schemas import ParetoView
from service.cli.layout import Rows
from service.cli.words import configuration, number, short_names


def pareto_table(pareto: ParetoView) -> RenderableType:
    """A row for each trial on the front, and the volume they dominate."""
    metrics = [objective.metric for objective in pareto.objectives]
    table = Rows(
        ">trial", *[f">{metric}" for metric in metrics], ">report", "state", "parameters",
        short=short_names(metrics), flow=("parameters",), drop=("state", "report"),
    )  # fmt: skip
    for one in pareto.trials:
        values = [number(one.values[objective.metric]) for objective in pareto.objectives]
        table.add_row(str(one.trial), *values, str(one.report), one.state, configuration(one.parameters))
    return Group(table, *_below(pareto))


def _below(pareto: ParetoView) -> Iterator[RenderableType]:
    if not pareto.trials:
        yield Text("no trial has a report that counts yet")
        return
    yield ""
    if len(pareto.trials) < pareto.size:
        yield Text(f"{len(pareto.trials)} of {pareto.size} trials, those farthest from their neighbours: --limit shows more")
    if pareto.hypervolume is None or pareto.reference is None:
        yield Text("the front has too many trials to measure its hypervolume")
    else:
        reference = ", ".join(f"{metric} {number(value)}" for metric, value in pareto.reference.items())
        yield Text(f"hypervolume {number(pareto.hypervolume)} up to {reference}")
