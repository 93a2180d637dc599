"""`tuneyard study pause`, `resume`, `extend`, `patch`, `stop` and `cancel`, and `tuneyard trial stop`: what a study is told."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.fork import changes_of
from service.cli.output import Format, FormatOption, emit, say
from service.cli.session import session_of
from service.cli.studies import StudyArgument
from service.cli.trials import NumberArgument

if TYPE_CHECKING:
    from service.api.schemas import StudyView
    from service.client import Client


def pause(
    context: typer.Context,
    study: StudyArgument,
    now: Annotated[bool, typer.Option("--now", help="In the middle of an epoch, and not at the next report.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Free a study's workers. Its trials go on later from where they stand."""
    _tell(context, output, lambda client: client.pause(study, now=now))
    say(f"let it go on with: tuneyard study resume {study}")


def resume(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Let a paused study go on."""
    _tell(context, output, lambda client: client.resume(study))


def extend(
    context: typer.Context,
    study: StudyArgument,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="LIMIT=VALUE", help="A larger limit of the budget, as in trials=60; null takes it out. May be "
            "repeated.", show_default=False,
        ),
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Give a study more to spend. One that was completed or stopped goes on."""
    budget = changes_of(settings or [])

    def tell(client: "Client") -> "StudyView":
        if not budget and client.study(study).state != "stopped":
            detail = "name what is to grow, as in --set trials=60: only a study that was stopped goes on without"
            raise typer.BadParameter(detail, param_hint="--set")
        return client.extend(study, budget)

    _tell(context, output, tell)


def patch(
    context: typer.Context,
    study: StudyArgument,
    settings: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="priority, resources.max_concurrent_trials or a key of budget, as in "
            "budget.trials=40. May be repeated.", show_default=False,
        ),
    ],
    output: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Change a running study's priority, concurrency or budget."""
    changes = changes_of(settings)
    _tell(context, output, lambda client: client.patch(study, changes))


def stop(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """End a study at its trials' next reports. Results stay."""
    _tell(context, output, lambda client: client.stop(study))


def cancel(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """End a study now."""
    _tell(context, output, lambda client: client.cancel(study))


def stop_trial(context: typer.Context, study: StudyArgument, number: NumberArgument, output: FormatOption = Format.TABLE) -> None:
    """End one trial at its next report. What it has stays, and the search goes on."""
    from service.cli.tables import trials_table

    with session_of(context).client() as client:
        found = client.stop_trial(study, number)
    emit(output, found, lambda: trials_table([found]))


def _tell(context: typer.Context, output: Format, tell: "Callable[[Client], StudyView]") -> None:
    from service.cli.tables import study_table

    with session_of(context).client() as client:
        found = tell(client)
        emit(output, found, lambda: study_table(found, client.mlflow_address(found)))
