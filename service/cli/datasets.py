"""`tuneyard dataset`: upload rows to train on."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.exits import EPILOG
from service.cli.output import Format, FormatOption, emit, say
from service.cli.session import session_of

app = typer.Typer(help="Data sets: upload files, list them.", no_args_is_help=True, epilog=EPILOG)


@app.command()
def put(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The data set.", show_default=False)],
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A CSV, JSONL or Parquet file.", exists=True, dir_okay=False, show_default=False),
    ],
    output: FormatOption = Format.TABLE,
) -> None:
    """Upload a file; a study then names it as dataset://NAME/FILE."""
    from service.cli.tables import datasets_table

    with session_of(context).client() as client:
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
