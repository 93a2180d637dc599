"""`tuneyard study refine` and `tuneyard study fork`: what a study that follows should search, and the start of it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Format, FormatOption, emit, say, working
from service.cli.session import session_of
from service.cli.studies import StudyArgument

if TYPE_CHECKING:
    from rich.console import RenderableType

    from service.api.step_schemas import RefinementView


def refine(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Show a narrower space, drawn around a study's good trials."""
    with session_of(context).client() as client, working("comparing the trials"):
        found = client.refinement(study)
    emit(output, found, lambda: _refinement_table(found))


def fork(
    context: typer.Context,
    study: StudyArgument,
    refined: Annotated[bool, typer.Option("--refine", help="Search the space that `tuneyard study refine` shows.")] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a key of the definition, as in budget.trials=50; null takes it out. "
            "May be repeated.", show_default=False,
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="The same key and changes give the same study again.", show_default=False),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Start a study like an old one. It knows the old one's trials."""
    from service.cli.tables import study_table

    changes = changes_of(settings or [])
    with session_of(context).client() as client:
        found = client.fork(study, refine=refined, changes=changes, idempotency_key=key)
        say(f"study {found.id} is {found.state}: follow it with tuneyard study watch {found.id}")
        emit(output, found, lambda: study_table(found, client.mlflow_address(found)))


def changes_of(settings: list[str]) -> dict[str, Any]:
    """A merge patch from lines like `budget.trials=50`. Raises `typer.BadParameter`."""
    found: dict[str, Any] = {}
    for setting in settings:
        path, has_value, text = setting.partition("=")
        *groups, key = path.split(".")
        if not has_value or not all((*groups, key)):
            raise typer.BadParameter(f"{setting!r} is not KEY=VALUE, as in budget.trials=50", param_hint="--set")
        branch = found
        for group in groups:
            branch = branch.setdefault(group, {})
            if not isinstance(branch, dict):
                raise typer.BadParameter(f"{path!r} is set beside a part of itself: leave one out", param_hint="--set")
        if key in branch:
            raise typer.BadParameter(f"{path!r} is set twice: leave one out", param_hint="--set")
        branch[key] = _value(setting, text)
    return found


def _value(setting: str, text: str) -> Any:
    """A value as a definition file would hold it."""
    from service.api.documents import decode
    from service.domain.errors import MalformedDocument

    try:
        return decode(text.encode(), None)
    except MalformedDocument as error:
        raise typer.BadParameter(f"{setting!r}: {error.detail}", param_hint="--set") from error


def _refinement_table(refinement: "RefinementView") -> "RenderableType":
    """What becomes of each parameter."""
    from rich.console import Group

    from service.cli.layout import Rows

    good = ", ".join(map(str, refinement.good))
    table = Rows("parameter", "change", "why", flow=("why",))
    for change in refinement.changes:
        table.add_row(change.parameter, change.action, change.sentence)
    head = f"{refinement.trials} trials compared at report {refinement.report}; the best: {good}"
    return Group(head, "", table)
