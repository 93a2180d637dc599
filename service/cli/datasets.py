"""`tuneyard dataset`: upload rows to train on."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from service.cli.exits import EPILOG
from service.cli.output import Format, FormatOption, emit, is_terminal, say, working
from service.cli.session import session_of

app = typer.Typer(help="Data sets: upload files, list and delete them.", no_args_is_help=True, epilog=EPILOG)


@app.command()
def put(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A CSV, JSONL, Parquet or CoNLL file, or a zip of images.",
            exists=True,
            dir_okay=False,
            show_default=False,
        ),
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Upload a file; a study then names it as dataset://NAME/FILE."""
    from service.cli.tables import datasets_table
    from service.domain.datasets import check_dataset_name
    from service.domain.errors import UnsafePath

    for hint, one in (("NAME", name), ("FILE", file.name)):
        try:
            check_dataset_name(one)
        except UnsafePath as error:
            raise typer.BadParameter(error.detail, param_hint=hint) from error
    with session_of(context).client() as client, working("uploading"):
        stored = client.upload(name, file)
    say(f"a study names it as {stored.uri}")
    emit(output, stored, lambda: datasets_table([stored]))


@app.command("ls")
def list_datasets(context: typer.Context, output: FormatOption = Format.TABLE) -> None:
    """List uploaded files, and the data sets that are always there."""
    from service.cli.tables import datasets_table

    with session_of(context).client() as client:
        found = client.datasets()
    emit(output, found, lambda: datasets_table(found.uploads, found.builtins))


@app.command("rm")
def remove(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set.", show_default=False)],
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="One file of it; all of them when left out.", show_default=False)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Delete a data set, or one file of it. No study that has not ended may need it."""
    from service.domain.sizes import size

    what = f"data set {name}" if file is None else f"{file} of data set {name}"
    if not yes:
        if not is_terminal(sys.stdin):
            raise typer.BadParameter("nobody is there to confirm: add --yes", param_hint="--yes")
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    with session_of(context).client() as client:
        removed = client.delete_dataset(name, file)
    files = "1 file" if len(removed.files) == 1 else f"{len(removed.files)} files"
    say(f"{what} is deleted: {files}, {size(removed.bytes)}")
    if output is not Format.TABLE:
        emit(output, removed, lambda: "")
