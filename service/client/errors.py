"""What can go wrong for a client, one class a situation; `detail` is a sentence that says what to do."""

from pathlib import Path

from service.api.schemas import Problem
from service.domain.errors import TuneyardError


class ProblemError(TuneyardError):
    """The service answered with a problem document (RFC 9457)."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail or problem.title)
        self.problem = problem


class NotLetIn(ProblemError):
    """The service does not know who asks: no token came with the request, or one that does not count."""

    def __init__(self, problem: Problem, url: str, *, sent: bool, origin: str) -> None:
        super().__init__(problem)
        found = (
            f"does not take the token {origin}: it is wrong, has run out or was revoked" if sent else f"wants a token: {origin}"
        )
        self.detail = f"The service at {url} {found}."


class ServiceUnreachable(TuneyardError):
    """Nothing answers at the service's address, or it stopped answering."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(
            f"Nothing answers at {url} ({cause}): start the service with `tuneyard serve`, "
            "or name its address in TUNEYARD_URL or --url."
        )
        self.url = url


class UnusableAddress(TuneyardError):
    """What is to name the service, or to open it, can be part of no request."""


class WaitedTooLong(TuneyardError):
    """The study did not end in the time given to wait for it."""

    def __init__(self, study_id: str, seconds: float) -> None:
        super().__init__(f"Study {study_id!r} has not ended within {seconds:g} s: it goes on; watch it again to wait longer.")


class PullRefused(TuneyardError):
    """A checkpoint that is not written to disk: its folder holds something else, or a file would leave it."""


class CorruptDownload(TuneyardError):
    """A downloaded file is not what the manifest says."""

    def __init__(self, path: str, found: str) -> None:
        super().__init__(f"{path} arrived damaged ({found}): nothing was kept; pull again.")


def not_replaceable(directory: Path) -> PullRefused:
    """The refusal to write over files that no earlier pull left."""
    return PullRefused(
        f"{directory} holds files that no earlier pull left there: name another folder, or replace it with `force` (--force)."
    )
