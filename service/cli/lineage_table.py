"""A population's lineage as a table for people."""

from service.api.lineage_schemas import LineageView
from service.cli.layout import Rows
from service.cli.words import number, short_names


def lineage_table(lineage: LineageView) -> Rows:
    """A row for each part of each member's way; its trial stands behind the part that it trained."""
    names = list(dict.fromkeys(name for member in lineage.members for one in member.stretches for name in one.parameters))
    table = Rows(
        ">member", ">reports", ">trial", *names, "state", "value", short=short_names(names), drop=("state", *reversed(names))
    )
    for member in lineage.members:
        for place, one in enumerate(member.stretches):
            is_last = place == len(member.stretches) - 1
            table.add_row(
                "" if place else str(member.member),
                f"{one.from_report}-{one.to_report}",
                str(one.trial),
                *(_shown(one.parameters.get(name)) for name in names),
                member.state if is_last else "",
                number(member.value) if is_last else "",
            )
    return table


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
