"""A study's front as a table for people."""

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.api.pareto_schemas import ParetoView
from service.cli.words import configuration, number


def pareto_table(pareto: ParetoView) -> RenderableType:
    """A row for each trial on the front, and the volume they dominate."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("trial", *(objective.metric for objective in pareto.objectives), "report"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("state", "parameters"):
        table.add_column(heading)
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
