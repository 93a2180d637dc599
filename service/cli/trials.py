"""`tuneyard trial` and `tuneyard best`: look at trials, ask for further ones, pull their checkpoints."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.exits import EPILOG
from service.cli.output import Format, FormatOption, console, emit, is_terminal, say, working
from service.cli.session import session_of
from service.cli.studies import StudyArgument

if TYPE_CHECKING:
    from service.client import Progress

app = typer.Typer(help="Trials of a study: list, show, analyse, add, stop.", no_args_is_help=True, epilog=EPILOG)
best_app = typer.Typer(help="The best checkpoint of a study: pull it.", no_args_is_help=True, epilog=EPILOG)


@app.command("ls")
def list_trials(
    context: typer.Context,
    study: StudyArgument,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be repeated.", show_default=False)] = None,
    order: Annotated[str, typer.Option(help="number, -number, best_value or -best_value.")] = "number",
    limit: Annotated[int, typer.Option(help="Most trials to print.", min=1)] = 1000,
    output: FormatOption = Format.TABLE,
) -> None:
    """List a study's trials."""
    from itertools import islice

    from service.cli.tables import trials_table

    with session_of(context).client() as client:
        found = list(islice(client.trials(study, state=state or (), order=order), limit))
    emit(output, found, lambda: trials_table(found))


NumberArgument = Annotated[int, typer.Argument(metavar="NUMBER", help="The trial's number.", min=0, show_default=False)]


@app.command()
def get(
    context: typer.Context,
    study: StudyArgument,
    number: NumberArgument,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show one trial. As a table, with why it was tried, its reports and attempts."""
    from service.cli.tables import trial_table

    with session_of(context).client() as client:
        trial = client.trial(study, number)
        if output is Format.TABLE:
            reports, attempts = client.reports(study, number), client.attempts(study, number)
            emit(output, trial, lambda: trial_table(trial, reports, attempts))
        else:
            emit(output, trial, lambda: "")


@app.command()
def analysis(context: typer.Context, study: StudyArgument, number: NumberArgument, output: FormatOption = Format.TABLE) -> None:
    """Show where a trial's model is wrong. It is that of the best report, on the validation rows; -o json has all."""
    from service.cli.analysis_tables import mistakes_table

    with session_of(context).client() as client, working("reading the analysis"):
        found = client.analysis(study, number)
    emit(output, found, lambda: mistakes_table(found))


@app.command()
def add(
    context: typer.Context,
    study: StudyArgument,
    parameters: Annotated[
        list[str],
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="A parameter of the space, as in learning_rate=3e-5; one for each.",
            show_default=False,
        ),
    ],
    key: Annotated[
        str | None, typer.Option("--idempotency-key", help="The same key and parameters ask once.", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:  # fmt: skip
    """Ask a study to try these parameters next."""
    from service.cli.tables import request_table

    with session_of(context).client() as client:
        asked = client.request_trial(study, parameters_of(parameters), idempotency_key=key)
    emit(output, asked, lambda: request_table(asked))


def parameters_of(settings: Sequence[str]) -> dict[str, Any]:
    """Values by name from lines like `learning_rate=3e-5`, read as a definition file would be. Raises `typer.BadParameter`."""
    from service.api.documents import decode
    from service.domain.errors import MalformedDocument

    found: dict[str, Any] = {}
    for setting in settings:
        name, has_value, text = setting.partition("=")
        if not name or not has_value:
            raise typer.BadParameter(f"{setting!r} is not NAME=VALUE, as in learning_rate=3e-5", param_hint="--parameter")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice: leave one out", param_hint="--parameter")
        try:
            found[name] = decode(text.encode(), None)
        except MalformedDocument as error:
            raise typer.BadParameter(f"{setting!r}: {error.detail}", param_hint="--parameter") from error
    return found


@best_app.command()
def pull(
    context: typer.Context,
    study: StudyArgument,
    directory: Annotated[
        Path,
        typer.Option("--to", metavar="FOLDER", help="Folder to write; an earlier pull there is replaced.", show_default=False),
    ],
    trial: Annotated[int | None, typer.Option(help="Pull this trial instead of the best one.", min=0, show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the folder whatever it holds.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Download a checkpoint, verified. `from_pretrained` of transformers loads it."""
    from service.cli.tables import manifest_table

    with session_of(context).client() as client:
        manifest = client.manifest(study, trial=trial)
        total = sum(file.bytes for file in manifest.files)
        with pull_progress(total) as progress:
            target = client.pull(study, directory, trial=trial, force=force, progress=progress, manifest=manifest)
    say(f"pulled trial {manifest.trial}, report {manifest.report} of {manifest.study_id} into {target}")
    if output is not Format.TABLE or not is_terminal(sys.stdout):
        emit(output, manifest, lambda: manifest_table(manifest))


@contextmanager
def pull_progress(total_bytes: int) -> "Iterator[Progress]":
    """A bar on stderr over all files together; nothing where nobody looks."""
    from service.client.pull import silent

    if not is_terminal(sys.stderr):
        yield silent
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task("pulling", total=total_bytes)
        finished: dict[str, int] = {}

        def advance(path: str, done: int, total: int) -> None:
            finished[path] = min(done, total)
            bar.update(task, completed=sum(finished.values()), description=path)

        yield advance
