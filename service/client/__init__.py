"""The typed Python client: `from service.client import Client`. The command line and the demo use it and nothing else."""

from service.client.client import Client
from service.client.errors import (
    CorruptDownload,
    NotLetIn,
    ProblemError,
    PullRefused,
    ServiceUnreachable,
    UnusableAddress,
    WaitedTooLong,
)
from service.client.pull import Progress

__all__ = [
    "Client",
    "CorruptDownload",
    "NotLetIn",
    "ProblemError",
    "Progress",
    "PullRefused",
    "ServiceUnreachable",
    "UnusableAddress",
    "WaitedTooLong",
]
