"""Hosts of our own on one machine: network namespaces on a bridge, each with a name and a mount namespace of its own.

Needs root, and `ip` from iproute2. The machine's own namespace is one of the hosts, `HEAD`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HEAD = "10.77.0.1"
_BRIDGE = "tuneyard0"
_PREFIX = "tuneyard-"


def can_have_hosts() -> bool:
    """Whether this process may make them."""
    if os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("unshare") is None:
        return False
    made = subprocess.run(["ip", "netns", "add", f"{_PREFIX}try"], check=False, capture_output=True).returncode == 0
    if made:
        _ip("netns", "del", f"{_PREFIX}try")
    return made


class Host:
    """One other host. What is at `hidden` on this machine is not there on it."""

    def __init__(self, number: int) -> None:
        self.name = f"node-{number}"
        self.address = f"10.77.0.{number + 1}"
        self._namespace, self._cable = f"{_PREFIX}{number}", f"tuneyard{number}"
        _ip("netns", "add", self._namespace)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "set", self._cable, "master", _BRIDGE, "up")
        for command in (
            ["addr", "add", f"{self.address}/24", "dev", "eth0"],
            ["link", "set", "eth0", "up"],
            ["link", "set", "lo", "up"],
            ["route", "add", "default", "via", HEAD],  # it leads nowhere; Ray looks which address it would have on it
        ):
            _ip("-n", self._namespace, *command)

    def command(self, arguments: Sequence[str], hidden: Path) -> list[str]:
        """How to run something on it, without what is at `hidden`."""
        inside = 'hostname "$1" && mount -t tmpfs -o size=1g none "$2" && shift 2 && exec "$@"'
        start = ["ip", "netns", "exec", self._namespace, "unshare", "--uts", "--mount", "sh", "-c", inside, "sh"]
        return [*start, self.name, str(hidden), *arguments]

    def unplug(self) -> None:
        _ip("link", "set", self._cable, "down")

    def plug_in(self) -> None:
        _ip("link", "set", self._cable, "up")

    def remove(self) -> None:
        _ip("netns", "del", self._namespace)


@contextmanager
def a_network() -> Iterator[None]:
    """A network for hosts; this machine is `HEAD` on it."""
    _ip("link", "add", _BRIDGE, "type", "bridge")
    try:
        _ip("addr", "add", f"{HEAD}/24", "dev", _BRIDGE)
        _ip("link", "set", _BRIDGE, "up")
        yield
    finally:
        _ip("link", "del", _BRIDGE)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
