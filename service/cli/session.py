"""What every command needs to reach the service: the global options, and a client made from them."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import httpx

    from service.client import Client


@dataclass(frozen=True)
class Session:
    """The global options. `transport` and `sleep` stand in for the network and the time in tests."""

    url: str | None = None
    token_file: Path | None = None
    home: Path | None = None
    project: str | None = None
    transport: "httpx.BaseTransport | None" = None
    sleep: Callable[[float], None] = time.sleep

    def client(self) -> "Client":
        """A client of the service these options name; raises `UnusableAddress`."""
        from service.client import Client

        return Client(
            self.url, home=self.home, token_file=self.token_file, project=self.project,
            transport=self.transport, sleep=self.sleep,
        )  # fmt: skip


def session_of(context: typer.Context) -> Session:
    """The session that the root command made."""
    found = context.find_root().obj
    assert isinstance(found, Session)  # noqa: S101 - set by the root callback before any command runs
    return found
