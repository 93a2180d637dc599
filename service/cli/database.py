"""`tuneyard db current` and `upgrade`: the tables of the service's database, on the machine that can reach it."""

import sys
from typing import TYPE_CHECKING

import typer

from service.cli.exits import ExitCode, leave
from service.cli.session import session_of

if TYPE_CHECKING:
    from service.settings import Settings

app = typer.Typer(
    help="The tables of the database. It is that of TUNEYARD_DATABASE_URL, or the home folder's file.", no_args_is_help=True
)


@app.command()
def current(context: typer.Context) -> None:
    """Print the version of the database. Exit code 5 where it is not this program's."""
    from service.store.versions import Standing, versions_of

    versions = versions_of(_settings(context).store_url)
    advice = {
        Standing.EMPTY: f"no tables yet: `tuneyard serve` or `tuneyard db upgrade` makes them, version {versions.newest}",
        Standing.OLDER: f"this program needs {versions.newest}: run `tuneyard db upgrade`",
        Standing.CURRENT: "up to date",
        Standing.NEWER: f"this program knows up to {versions.newest}: install the version that wrote it",
    }
    sys.stdout.write(f"{versions.found or 'none'} ({advice[versions.standing]})\n")
    if versions.standing is not Standing.CURRENT:
        leave(ExitCode.CONFLICT)


@app.command()
def upgrade(context: typer.Context) -> None:
    """Make the tables, or bring those of an earlier version up to date. Stop every service and make a backup before."""
    from service.store.versions import upgrade as bring_up_to_date

    before, now = bring_up_to_date(_settings(context).store_url)
    if before == now:
        sys.stdout.write(f"The database is up to date: version {now}.\n")
    else:
        sys.stdout.write(f"The database has version {now} now; before: {before or 'none'}.\n")


def _settings(context: typer.Context) -> "Settings":
    from service.settings import read_settings

    home = session_of(context).home
    return read_settings() if home is None else read_settings(home=home)
