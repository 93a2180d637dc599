"""The root command, and the few commands that stand alone: `serve`, `demo`, `login`, `version`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from service import __version__
from service.cli import access, control, database, datasets, fork, imports, models, presets, preview, spending, studies, trials
from service.cli.exits import EPILOG, ExitCode, report_error
from service.cli.output import say
from service.cli.session import Session, session_of

app = typer.Typer(
    name="tuneyard",
    help="Search hyperparameters for fine-tuning: apply a study, watch its trials, pull the best checkpoint.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help takes 0.35 s to import
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(studies.app, name="study")
studies.app.command("import")(imports.import_study)
studies.app.command("preview")(preview.preview)
studies.app.command("final")(preview.final)
studies.app.command("spending")(spending.spending)
studies.app.command("forecast")(spending.forecast)
studies.app.command("refine")(fork.refine)
studies.app.command("fork")(fork.fork)
for command in (control.pause, control.resume, control.extend, control.patch, control.stop, control.cancel):
    studies.app.command()(command)
trials.app.command("stop")(control.stop_trial)
app.add_typer(trials.app, name="trial")
app.add_typer(trials.best_app, name="best")
app.add_typer(datasets.app, name="dataset")
app.add_typer(models.app, name="model")
app.add_typer(presets.app, name="preset")
app.add_typer(access.tokens, name="token")
app.add_typer(access.projects, name="project")
app.command("logout")(access.logout)
app.command("audit")(access.audit)
app.add_typer(database.app, name="db")


def main() -> None:
    """The `tuneyard` command."""
    sys.exit(int(run(sys.argv[1:])))


def run(arguments: Sequence[str], session: Session | None = None) -> int:
    """Run one command line; returns its exit code. `session` brings a network and a clock of its own in tests."""
    try:
        app(args=list(arguments), prog_name="tuneyard", obj=session or Session())
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception as error:
        if os.environ.get("TUNEYARD_DEBUG"):
            raise
        return report_error(error)
    return ExitCode.OK


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="Address of the service.", envvar="TUNEYARD_URL", show_default=False)] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            help="File that holds the token; else TUNEYARD_TOKEN, else the home folder's.",
            envvar="TUNEYARD_TOKEN_FILE",
            show_default=False,
        ),
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(help="Home folder of a service on this machine [~/.tuneyard].", envvar="TUNEYARD_HOME", show_default=False),
    ] = None,
    project: Annotated[
        str | None,
        typer.Option(help="Project to work in, for who sees several.", envvar="TUNEYARD_PROJECT", show_default=False),
    ] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version of this command.")
    ] = False,
) -> None:
    context.obj = replace(context.obj or Session(), url=url, token_file=token_file, home=home, project=project)


@app.command()
def serve(
    context: typer.Context,
    home: Annotated[
        Path | None, typer.Option(help="Folder for everything the service writes [~/.tuneyard].", show_default=False)
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on [8080].", min=0, max=65535, show_default=False)] = None,
    cpus: Annotated[int | None, typer.Option(help="CPU slots for trials [all].", min=1, show_default=False)] = None,
    gpus: Annotated[int | None, typer.Option(help="GPU slots for trials [those found].", min=0, show_default=False)] = None,
    model_root: Annotated[
        list[Path] | None,
        typer.Option(help="Folder whose models studies may name by path; may be repeated.", show_default=False),
    ] = None,
) -> None:
    """Run the service in the foreground, until Ctrl-C or SIGTERM."""
    from service.serve import serve as run_service
    from service.settings import read_settings

    given: dict[str, Any] = {
        "home": home or session_of(context).home,
        "host": host,
        "port": port,
        "cpus": cpus,
        "gpus": gpus,
        "model_roots": tuple(model_root) if model_root else None,
    }
    settings = read_settings(**{key: value for key, value in given.items() if value is not None})
    missing = [folder for folder in settings.model_roots if not folder.expanduser().is_dir()]
    if missing and model_root:
        raise typer.BadParameter(f"there is no folder {missing[0]}", param_hint="--model-root")
    for folder in missing:  # it may be mounted later
        say(f"note: there is no folder {folder}: TUNEYARD_MODEL_ROOTS names it, and no model is found in it")
    raise typer.Exit(run_service(settings))


@app.command()
def demo() -> None:
    """Run a real study on a service of its own. It is in ./.tuneyard/demo, and its best checkpoint goes into ./best."""
    from service.demo import main as run_demo

    raise typer.Exit(run_demo())


@app.command()
def login(
    context: typer.Context,
    next_path: Annotated[str, typer.Option("--next", help="Path to open after the login.")] = "/mlflow/",
) -> None:
    """Print a link that opens MLflow in a browser. It works once, for a few minutes."""
    with session_of(context).client() as client:
        sys.stdout.write(client.login_link(next_path) + "\n")


@app.command()
def version() -> None:
    """Print the version of this command."""
    sys.stdout.write(__version__ + "\n")
