"""`tuneyard study`: apply, list, show, watch, analyse and remove studies."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.exits import EPILOG, ExitCode
from service.cli.output import Format, FormatOption, emit, is_terminal, say, working
from service.cli.session import session_of

if TYPE_CHECKING:
    from service.api.schemas import StudyView
    from service.client import Client

app = typer.Typer(help="Searches: apply, list, show, watch, control, analyse, remove.", no_args_is_help=True, epilog=EPILOG)

StudyArgument = Annotated[str, typer.Argument(metavar="STUDY", help="A study's id.", show_default=False)]
TimeoutOption = Annotated[
    float | None, typer.Option("--timeout", help="Seconds to watch at most; then exit code 9.", min=0.0, show_default=False)
]


@app.command()
def apply(
    context: typer.Context,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Study definition, YAML or JSON; - reads stdin.", show_default=False)
    ],
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Do not watch it.")] = False,
    key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="The same key and file give the same study again.", show_default=False),
    ] = None,
    timeout: TimeoutOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Start a study and watch it. Ctrl-C detaches."""
    definition = sys.stdin.buffer.read() if file == "-" else _read(Path(file))
    with session_of(context).client() as client:
        study = client.apply(definition, idempotency_key=key)
        say(f"study {study.id} is {study.state}")
        if detach:
            _show(client, output, study)
        else:
            _watch(client, study, output, timeout)


@app.command("ls")
def list_studies(
    context: typer.Context,
    state: Annotated[list[str] | None, typer.Option(help="Only in this state; may be repeated.", show_default=False)] = None,
    name: Annotated[str | None, typer.Option(help="Only with this in the name.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(help="Most studies to print.", min=1)] = 50,
    order: Annotated[str, typer.Option(help="created_at, -created_at, name or -name.")] = "-created_at",
    output: FormatOption = Format.TABLE,
) -> None:
    """List studies, the newest first."""
    from itertools import islice

    from service.cli.tables import studies_table

    with session_of(context).client() as client:
        found = list(islice(client.studies(state=state or (), name=name, order=order, limit=limit), limit))
    emit(output, found, lambda: studies_table(found))


@app.command()
def get(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Show one study."""
    with session_of(context).client() as client:
        _show(client, output, client.study(study))


@app.command()
def watch(
    context: typer.Context, study: StudyArgument, timeout: TimeoutOption = None, output: FormatOption = Format.TABLE
) -> None:
    """Follow a study to its end; Ctrl-C leaves it running."""
    with session_of(context).client() as client:
        _watch(client, client.study(study), output, timeout)


@app.command()
def analysis(
    context: typer.Context,
    study: StudyArgument,
    file: Annotated[
        Path | None, typer.Option("--to", metavar="FILE", help="File to write all of it to, as JSON.", show_default=False)
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show which parameters matter, and how the best was found."""
    from service.cli.analysis_tables import analysis_table

    with session_of(context).client() as client, working("analysing"):
        found = client.study_analysis(study)
    if file is not None:
        try:
            file.write_text(found.model_dump_json(indent=2) + "\n", "utf-8")
        except OSError as error:
            raise typer.BadParameter(f"cannot write {file}: {error.strerror}", param_hint="--to") from error
        say(f"the analysis of {study} is in {file}")
    emit(output, found, lambda: analysis_table(found))


@app.command()
def lineage(context: typer.Context, study: StudyArgument, output: FormatOption = Format.TABLE) -> None:
    """Show what a population's members were trained with."""
    from service.cli.lineage_table import lineage_table

    with session_of(context).client() as client:
        found = client.lineage(study)
    if not found.members:
        say(f"{study} has no population: only the strategy pbt copies trials")
    emit(output, found, lambda: lineage_table(found))


@app.command()
def pareto(
    context: typer.Context,
    study: StudyArgument,
    reference: Annotated[
        list[float] | None,
        typer.Option("--reference", help="Worst value of an objective for the volume; once for each.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option(help="Most trials to print.", min=1, max=1000)] = 200,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show the trials that no other beats in all objectives."""
    from service.cli.pareto_table import pareto_table

    with session_of(context).client() as client:
        found = client.pareto(study, reference or (), limit)
    emit(output, found, lambda: pareto_table(found))


@app.command("rm")
def remove(
    context: typer.Context,
    study: StudyArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Delete a study that has ended. Its trials, checkpoints and runs in MLflow go with it."""
    from service.domain.sizes import size

    if not yes:
        if not is_terminal(sys.stdin):
            raise typer.BadParameter("nobody is there to confirm: add --yes", param_hint="--yes")
        typer.confirm(f"Delete study {study} with its trials, checkpoints and runs in MLflow?", abort=True, err=True)
    with session_of(context).client() as client:
        removed = client.delete(study)
    freed = removed.checkpoints.bytes + removed.prepared.bytes
    say(f"study {study} is deleted: {removed.trials} trials with {removed.reports} reports, and {size(freed)} of the disk")
    say("its runs in MLflow and their files go within a minute, or as soon as MLflow can be reached")
    if output is not Format.TABLE:
        emit(output, removed, lambda: "")


def _watch(client: "Client", study: "StudyView", output: Format, timeout: float | None) -> None:
    """Follow a study, print it, end with its exit code."""
    from service.cli.watch import exit_code, watch

    try:
        ended = watch(client, study.id, timeout_seconds=timeout)
    except KeyboardInterrupt:
        say(f"\ndetached: the study goes on. Watch it again with: tuneyard study watch {study.id}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    _show(client, output, ended)
    raise typer.Exit(exit_code(ended))


def _show(client: "Client", output: Format, study: "StudyView") -> None:
    from service.cli.tables import study_table

    emit(output, study, lambda: study_table(study, client.mlflow_address(study)))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"cannot read {path}: {error.strerror}", param_hint="FILE") from error
