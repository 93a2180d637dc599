"""Ray nodes on hosts of their own: a head on this machine, and workers with one CPU."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from service.execution.environment import for_cluster, reachable
from service.lifeline import end_with_parent
from service.settings import Layout, write_private
from tests.cluster.network import HEAD, Host
from tests.running import wait_until

PORT = 6390
_STARTED = "Ray runtime started."
RAYLET_PORT = 6391
"""Of a worker: each host has ports of its own."""


def slots(layout: Layout) -> float:
    capacity = layout.run / "capacity.json"
    return float(json.loads(capacity.read_text())["cpus"]) if capacity.exists() else 0.0


class Node:
    """A Ray node on a host: the head, on this machine, or a worker with one CPU. It gets `more` variables."""

    def __init__(self, layout: Layout, more: Mapping[str, str], host: Host | None = None) -> None:
        self.host = host
        self._hidden = layout.root
        self._folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        token = self._folder / "token"
        write_private(token, layout.ray_token.read_text())
        start = [
            sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats", "--num-gpus=0",
            f"--temp-dir={self._folder}", "--include-log-monitor=false", f"--object-store-memory={128 * 1024**2}",
            "--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0",
        ]  # fmt: skip
        if host is None:
            start += ["--head", f"--port={PORT}", f"--node-ip-address={HEAD}", "--include-dashboard=false", "--num-cpus=0"]
        else:
            start += [f"--address={HEAD}:{PORT}", f"--node-ip-address={host.address}", "--num-cpus=1"]
            start += [f"--node-manager-port={RAYLET_PORT}"]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TUNEYARD_", "AWS_"))}
        environment |= {**for_cluster(token), **more, "TUNEYARD_WORKER_CACHE": str(self._folder / "cache")}
        self._environment = environment
        self.log = self._folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._there(start),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no other thread is at work meanwhile
            )

    def _there(self, command: list[str]) -> list[str]:
        return command if self.host is None else self.host.command(command, self._hidden)

    def has_joined(self) -> bool:
        """Whether it is in the cluster by now; False once it has given up, as Ray does after half a minute on a busy machine."""
        wait_until(lambda: _STARTED in self.log.read_text() or self._process.poll() is not None, 120, "a node does nothing")
        return self._process.poll() is None

    def is_alive(self) -> bool:
        """What its container's health check would say."""
        command = self._there([sys.executable, "-m", "service.execution.alive", str(RAYLET_PORT)])
        return subprocess.run(command, env=self._environment, check=False, capture_output=True).returncode == 0

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Its raylet stands still meanwhile."""
        [raylet] = [pid for pid in self.pids() if _is_called(pid, "raylet")]
        os.kill(raylet, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(raylet, signal.SIGCONT)

    def stop(self) -> None:
        """Let it leave; what it said is shown where the test fails."""
        sys.stdout.write(f"{self.host.name if self.host else 'head'}: {self.log.read_text()[-2000:]}\n")
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill(self) -> None:
        """As if the host had lost its power: every process at once."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def pids(self) -> list[int]:
        """Its processes: Ray moves some of them into sessions of their own, but they know their folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal() and int(entry.name) != os.getpid():
                try:
                    said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                except OSError:
                    continue
                if str(self._folder).encode() in said:
                    found.append(int(entry.name))
        return found

    def environments(self) -> list[dict[str, str]]:
        """Of its processes that train."""
        found = []
        for pid in self.pids():
            with suppress(OSError):  # gone meanwhile
                command = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"ray::" in command:
                    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                    found.append(dict(pair.partition("=")[::2] for pair in pairs if pair))
        return found


def _is_called(pid: int, name: str) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == name
    except OSError:  # gone meanwhile
        return False


class Cluster:
    """A head and workers on hosts of their own; says on stderr what happens, and when."""

    def __init__(self, layout: Layout, variables: Callable[[str], Mapping[str, str]]) -> None:
        """`variables` are those of the node with an address."""
        self._layout, self._variables = layout, variables
        self._began = time.monotonic()
        self.hosts: list[Host] = []
        self.nodes: list[Node] = []
        self._head: Node | None = None

    def start(self, workers: int) -> None:
        self._head = Node(self._layout, self._variables(HEAD))
        wait_until(lambda: reachable(f"{HEAD}:{PORT}"), 180, "the head does not come up")
        for _ in range(workers):
            self.add()

    def add(self) -> None:
        self.hosts.append(Host(len(self.hosts) + 1))
        for _ in range(3):
            node = Node(self._layout, self._variables(self.hosts[-1].address), self.hosts[-1])
            if node.has_joined():
                break
            node.kill()
            node.stop()
        self.nodes.append(node)

    def stop(self) -> None:
        for node in [*self.nodes, *([self._head] if self._head else [])]:
            node.stop()
        for host in self.hosts:
            host.remove()

    def said(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """What a command of Python says on the head's machine, as one who has the token, and these variables."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        environment |= {**for_cluster(self._layout.ray_token), **variables}
        return subprocess.run([sys.executable, *arguments], env=environment, check=False, capture_output=True, text=True)

    def tell(self, what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {what}\n")
