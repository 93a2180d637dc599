"""`tuneyard token`, `project`, `logout` and `audit`: who may use the service, and what they did."""

import math
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.exits import EPILOG, ExitCode
from service.cli.output import Format, FormatOption, emit, say
from service.cli.session import session_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from service.api.access_views import AuditEntryView, ProjectView, TokenView
    from service.cli.layout import Rows

tokens = typer.Typer(help="Tokens: make, list, revoke them.", no_args_is_help=True, epilog=EPILOG)
projects = typer.Typer(help="Projects: make and list them, set their quotas.", no_args_is_help=True, epilog=EPILOG)

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The project.", show_default=False)]
_UNLIMITED = math.inf


def _limit(text: str) -> float:
    if text == "none":
        return _UNLIMITED
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise typer.BadParameter(f"{text!r} is no number from 0 on: give one, or none for no limit")
    return int(value) if value.is_integer() else value


RunningOption = Annotated[
    float | None,
    typer.Option(
        "--max-running-studies", parser=_limit, metavar="COUNT|none", help="Studies that run at once.", show_default=False
    ),
]
HoursOption = Annotated[
    float | None,
    typer.Option(
        "--max-gpu-hours", parser=_limit, metavar="HOURS|none", help="Hours of GPU of all its studies.", show_default=False
    ),
]
StoredOption = Annotated[
    float | None,
    typer.Option(
        "--max-stored-gb", parser=_limit, metavar="GB|none", help="Gigabytes of all its checkpoints and uploads.",
        show_default=False,
    ),
]  # fmt: skip


@tokens.command("create")
def create_token(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose it is.", show_default=False)],
    role: Annotated[str, typer.Option(help="viewer, editor or admin.")] = "editor",
    project: Annotated[
        str | None, typer.Option(help="The project that they see [yours, where you see one].", show_default=False)
    ] = None,
    all_projects: Annotated[bool, typer.Option("--all-projects", help="They see every project.")] = False,
    days: Annotated[float, typer.Option(help="How long it works; 0 is until it is revoked.", min=0)] = 90,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make a token and print it: it is shown only here."""
    from service.client.errors import ProblemError

    if all_projects and project is not None:
        raise typer.BadParameter("give a project or --all-projects", param_hint="--project")
    chosen = {"project": None} if all_projects else {} if project is None else {"project": project}
    with session_of(context).client() as client:
        try:
            made = client.access.create_token(name, role, expires_in_days=days or None, **chosen)
        except ProblemError as error:
            if not chosen and any(one.pointer == "/project" for one in error.problem.violations or ()):
                detail = "you see every project: name the one that they are to see, or give --all-projects"
                raise typer.BadParameter(detail, param_hint="--project") from error
            raise
    if output is Format.TABLE:
        say(f"{made.name} is {made.role} of {made.project or 'all projects'}; this is shown only once:")
        sys.stdout.write(made.token + "\n")
    else:
        emit(output, made, lambda: _tokens_table([made]))


@tokens.command("ls")
def list_tokens(context: typer.Context, output: FormatOption = Format.TABLE) -> None:
    """List tokens, without their secrets."""
    with session_of(context).client() as client:
        found = client.access.tokens()
    emit(output, found, lambda: _tokens_table(found.items))


@tokens.command("revoke")
def revoke_token(
    context: typer.Context,
    token: Annotated[str, typer.Argument(metavar="ID", help="The token's id.", show_default=False)],
    output: FormatOption = Format.TABLE,
) -> None:
    """Let nobody in with a token any more. Browser sessions that came of it end too."""
    with session_of(context).client() as client:
        revoked = client.access.revoke_token(token)
    emit(output, revoked, lambda: _tokens_table([revoked]))


@projects.command("create")
def create_project(
    context: typer.Context,
    name: NameArgument,
    max_running_studies: RunningOption = None,
    max_gpu_hours: HoursOption = None,
    max_stored_gb: StoredOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Make a project. Its studies and data sets are for its members alone."""
    quotas = {"max_running_studies": max_running_studies, "max_gpu_hours": max_gpu_hours, "max_stored_gb": max_stored_gb}
    with session_of(context).client() as client:
        made = client.access.create_project(name, **_limits(quotas))
    emit(output, made, lambda: _projects_table([made]))


@projects.command("ls")
def list_projects(context: typer.Context, output: FormatOption = Format.TABLE) -> None:
    """List projects, with their quotas and what was taken of them."""
    with session_of(context).client() as client:
        found = client.access.projects()
    emit(output, found, lambda: _projects_table(found.items))


@projects.command("quotas")
def quotas(
    context: typer.Context,
    name: NameArgument,
    max_running_studies: RunningOption = None,
    max_gpu_hours: HoursOption = None,
    max_stored_gb: StoredOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a project's quotas, or change those named. `none` lifts one."""
    given = {"max_running_studies": max_running_studies, "max_gpu_hours": max_gpu_hours, "max_stored_gb": max_stored_gb}
    changes = {key: value for key, value in given.items() if value is not None}
    with session_of(context).client() as client:
        found = next((one for one in client.access.projects().items if one.name == name), None)
        if found is None:
            say(f"error: There is no project {name!r}: `tuneyard project ls` lists those there are.", style="red")
            raise typer.Exit(ExitCode.NOT_FOUND)
        if changes:
            kept = {key: getattr(found, key) for key in given}
            found = client.access.set_quotas(name, **_limits({**kept, **changes}))
    emit(output, found, lambda: _projects_table([found]))


def _limits(quotas: "Mapping[str, float | None]") -> "dict[str, float | None]":
    """As the API has them: null is not limited."""
    return {key: None if value == _UNLIMITED else value for key, value in quotas.items()}


def logout(
    context: typer.Context,
    everybody: Annotated[bool, typer.Option("--all", help="Log every browser out, whoever uses it.")] = False,
) -> None:
    """End the sessions of all browsers. The login links that nobody has used yet end too."""
    if not everybody:
        raise typer.BadParameter("it logs out everybody's browsers: say so with --all", param_hint="--all")
    with session_of(context).client() as client:
        client.access.end_sessions()
    say("Every browser is logged out.")


def audit(
    context: typer.Context,
    after: Annotated[int, typer.Option(help="Only entries with a greater id.", min=0)] = 0,
    as_lines: Annotated[bool, typer.Option("--jsonl", help="A line of JSON for each.")] = False,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show who did what, when, and from where."""
    with session_of(context).client() as client:
        entries = list(client.access.audit(after))
    if as_lines:
        sys.stdout.writelines(entry.model_dump_json() + "\n" for entry in entries)
    else:
        emit(output, entries, lambda: _audit_table(entries))


def _tokens_table(found: "Sequence[TokenView]") -> "Rows":
    from service.cli.layout import Rows
    from service.cli.words import moment

    table = Rows(
        "id", "name", "role", "project", "made by", "expires", "last used", "state", drop=("made by", "last used", "expires")
    )
    for token in found:
        state = "revoked" if token.revoked_at else ""
        expires, used = (moment(at) if at else "never" for at in (token.expires_at, token.last_used_at))
        table.add_row(token.id, token.name, token.role, token.project or "all", token.created_by, expires, used, state)
    return table


def _projects_table(found: "Sequence[ProjectView]") -> "Rows":
    from service.cli.layout import Rows
    from service.domain.sizes import size

    table = Rows("project", ">studies at once", ">GPU-hours", ">stored")
    for one in found:
        hours, stored = f"{one.gpu_hours:.2f}", size(one.stored_bytes + one.dataset_bytes)
        table.add_row(
            one.name,
            "any" if one.max_running_studies is None else f"at most {one.max_running_studies}",
            hours if one.max_gpu_hours is None else f"{hours} of {one.max_gpu_hours:g}",
            stored if one.max_stored_gb is None else f"{stored} of {size(round(one.max_stored_gb * 1e9))}",
        )
    return table


def _audit_table(entries: "Sequence[AuditEntryView]") -> "Rows":
    from service.cli.layout import Rows
    from service.cli.words import moment

    table = Rows(
        ">id", "when", "who", "role", "project", "did", "to", ">answer", "from",
        flow=("to",), drop=("from", "role", "project"),
    )  # fmt: skip
    for one in entries:
        where = one.project or "all"
        table.add_row(
            str(one.id), moment(one.at), one.caller, one.role, where, one.action, one.target, str(one.status), one.address
        )  # fmt: skip
    return table
