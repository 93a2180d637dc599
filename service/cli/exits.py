"""Exit codes: part of the command line's contract, never renumbered."""

import sys
from enum import IntEnum
from typing import TYPE_CHECKING

from service.cli.output import say
from service.domain.errors import StorageRefused, TuneyardError, WrongSettings

if TYPE_CHECKING:
    from service.api.schemas import Problem


class ExitCode(IntEnum):
    """What a script can tell from how a command ended."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOT_FOUND = 3
    INVALID = 4
    CONFLICT = 5
    NOT_AUTHENTICATED = 6
    UNREACHABLE = 7
    NOT_COMPLETED = 8
    TIMED_OUT = 9
    NO_SPACE = 10
    INTERRUPTED = 130


EPILOG = (
    "Exit codes: 0 done · 1 unexpected error · 2 wrong usage · 3 not found · 4 refused as invalid · 5 conflict · "
    "6 not authenticated, or not allowed · 7 service unreachable · 8 the watched study failed or was cancelled · "
    "9 waited too long · 10 no room on the service's disk · 130 interrupted"
)

_OF_STATUS = {
    400: ExitCode.INVALID,
    401: ExitCode.NOT_AUTHENTICATED,
    403: ExitCode.NOT_AUTHENTICATED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    412: ExitCode.CONFLICT,
    413: ExitCode.INVALID,
    415: ExitCode.INVALID,
    422: ExitCode.INVALID,
    429: ExitCode.UNREACHABLE,
    503: ExitCode.UNREACHABLE,
    507: ExitCode.NO_SPACE,
}


def report_error(error: Exception) -> ExitCode:
    """Say on stderr what went wrong and what to do; returns the exit code that stands for it."""
    from service.client.errors import (
        NotLetIn,
        ProblemError,
        PullRefused,
        ServiceUnreachable,
        UnusableAddress,
        WaitedTooLong,
    )

    match error:
        case ProblemError():
            problem = error.problem
            headline, *more = [error.detail] if isinstance(error, NotLetIn) else _told(problem)
            say(f"error: {headline}", style="red")
            for line in more:
                say(f"  {line}")
            if isinstance(error, NotLetIn):
                say("hint: set TUNEYARD_TOKEN or --token-file, or name the service's home folder with --home.")
            return _OF_STATUS.get(problem.status, ExitCode.UNEXPECTED)
        case UnusableAddress() | StorageRefused() | WrongSettings():
            code = ExitCode.USAGE
        case ServiceUnreachable():
            code = ExitCode.UNREACHABLE
        case WaitedTooLong():
            code = ExitCode.TIMED_OUT
        case PullRefused():
            code = ExitCode.CONFLICT
        case _:
            code = ExitCode.UNEXPECTED
    detail = error.detail if isinstance(error, TuneyardError) else f"{type(error).__name__}: {error}"
    say(f"error: {detail}", style="red")
    return code


def _told(problem: "Problem") -> list[str]:
    """What a problem says, and then each violation once: the service's own sentence may be the first of them."""
    from service.cli.operations import as_commands

    detail = problem.detail or problem.title
    lines = [f"{violation.pointer or '/'}: {violation.detail}" for violation in problem.violations or ()]
    if not problem.violations or problem.violations[0].detail not in detail:
        told = [detail, *lines]
    else:
        told = [detail] if len(lines) == 1 else [problem.title, *lines]
    return [as_commands(line) for line in told]


def leave(code: ExitCode) -> None:
    """End the process."""
    sys.exit(int(code))
