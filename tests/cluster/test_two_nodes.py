"""A service, PostgreSQL and S3 on one host, workers on others: a link is cut, a node killed, a node added; nothing is lost."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from service.api.schemas import AttemptView
from service.client import Client
from service.domain.study import StudyState
from service.domain.trial import AttemptOutcome, TrialState
from service.execution.environment import for_cluster, reachable
from service.lifeline import end_with_parent
from service.settings import Layout, write_private
from tests.cluster.network import HEAD, Host, a_network, can_have_hosts
from tests.integration.agreement import check_mlflow, check_store, finished
from tests.running import RunningService, wait_until
from tests.s3 import ADDRESS, running_s3
from tests.servers import a_postgresql

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_have_hosts(), reason="hosts of our own need root and iproute2"),
]

PORT = 6390
TRIALS, EPOCHS, SECONDS = 14, 8, 1.0
FORBIDDEN = ("DATABASE_URL", "MLFLOW", "TUNEYARD_TOKEN")


class Node:
    """A Ray node on a host: the head, on this machine, or a worker with one CPU."""

    def __init__(self, layout: Layout, s3: Mapping[str, str], host: Host | None = None) -> None:
        self.host = host
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
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("TUNEYARD_", "AWS_"))}
        environment |= {**for_cluster(token), **s3, "TUNEYARD_WORKER_CACHE": str(self._folder / "cache")}
        self.log = self._folder / "log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                start if host is None else host.command(start, layout.root),
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(signal.SIGTERM),  # noqa: PLW1509 - no other thread is at work meanwhile
            )

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
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"ray::" in command:
                pairs = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
                found.append(dict(pair.partition("=")[::2] for pair in pairs if pair))
        return found


@pytest.fixture
def s3() -> Iterator[Mapping[str, str]]:
    with running_s3(HEAD) as environment:
        yield environment


@pytest.fixture
def network() -> Iterator[None]:
    with a_network():
        yield


def a_study() -> dict[str, Any]:
    return {
        "name": "two-nodes",
        "trainer": {
            "kind": "simulated", "metrics": {"validation/loss": "rate / epoch"}, "seconds_per_epoch": SECONDS, "epochs": EPOCHS,
        },
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": TRIALS},
        "resources": {"max_concurrent_trials": 4},
    }  # fmt: skip


def attempts_of(client: Client, study_id: str) -> list[AttemptView]:
    return [one for trial in client.trials(study_id) for one in client.attempts(study_id, trial.number)]


def nodes_of(client: Client, study_id: str) -> Counter[str]:
    """Reports by the host that gave them."""
    return Counter(
        report.worker.partition(":")[0] for trial in client.trials(study_id) for report in client.reports(study_id, trial.number)
    )


def slots(layout: Layout) -> float:
    capacity = layout.run / "capacity.json"
    return float(json.loads(capacity.read_text())["cpus"]) if capacity.exists() else 0.0


class Cluster:
    """A head and workers on hosts of their own; says on stderr what happens, and when."""

    def __init__(self, layout: Layout, s3: Mapping[str, str]) -> None:
        self._layout, self._s3 = layout, s3
        self._began = time.monotonic()
        self.hosts: list[Host] = []
        self.nodes: list[Node] = []
        self._head: Node | None = None

    def start(self) -> None:
        self._head = Node(self._layout, self._s3)
        wait_until(lambda: reachable(f"{HEAD}:{PORT}"), 90, "the head does not come up")
        for _ in range(2):
            self.add()

    def add(self) -> None:
        self.hosts.append(Host(len(self.hosts) + 1))
        self.nodes.append(Node(self._layout, self._s3, self.hosts[-1]))

    def stop(self) -> None:
        for node in [*self.nodes, *([self._head] if self._head else [])]:
            node.stop()
        for host in self.hosts:
            host.remove()

    def tell(self, what: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {what}\n")


@pytest.fixture
def cluster(tmp_path: Path, network: None, s3: Mapping[str, str]) -> Iterator[Cluster]:
    layout = Layout(tmp_path / "home")
    write_private(layout.ray_token, secrets.token_hex(32))
    found = Cluster(layout, s3)
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture
def service(tmp_path: Path, cluster: Cluster, s3: Mapping[str, str]) -> Iterator[RunningService]:
    with a_postgresql() as postgresql:
        running = RunningService(
            tmp_path, **s3, TUNEYARD_RAY_ADDRESS=f"{HEAD}:{PORT}", TUNEYARD_STORAGE_URL=ADDRESS,
            TUNEYARD_DATABASE_URL=postgresql.database("tuneyard"), TUNEYARD_MLFLOW_DATABASE_URL=postgresql.database("mlflow"),
        )  # fmt: skip
        running.start()
        yield running
        assert running.stop() == 0, running.log()


def test_a_study_outlives_a_cut_link_and_a_dead_node_and_uses_a_new_one(
    tmp_path: Path, cluster: Cluster, service: RunningService, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(service.home)
    with service.client() as client:
        wait_until(lambda: slots(layout) == 2, 180, "the cluster is not whole")
        cluster.tell("two nodes, a CPU each")
        study = client.apply(a_study())
        both = [host.name for host in cluster.hosts]
        wait_until(lambda: min(nodes_of(client, study.id)[name] for name in both) >= 2, 120, "one node is idle")
        cluster.tell("trials report from both")
        workers = [found for node in cluster.nodes for found in node.environments()]
        assert workers
        for found in workers:
            assert not [name for name in found if any(word in name for word in FORBIDDEN)], "workers know no secrets"
        cluster.hosts[1].unplug()
        cluster.tell("node-2 is unplugged")
        wait_until(lambda: bool(lost_of(client, study.id)), 150, "nobody notices that a node is cut off")
        cluster.tell("its trial is known to be lost")
        cluster.hosts[1].plug_in()
        cluster.nodes[1].kill()
        cluster.tell("node-2 is plugged in again, and loses its power")
        cluster.add()
        wait_until(lambda: nodes_of(client, study.id)["node-3"] >= 2, 180, "a new node is not used")
        cluster.tell("node-3 was added and reports")
        wait_until(lambda: client.study(study.id).state.is_end, 300, "the study does not end")
        cluster.tell("the study has ended")
        _check(client, service, study.id, monkeypatch)
        assert (client.pull(study.id, tmp_path / "best") / "README.md").exists()
        lost, attempts = lost_of(client, study.id), attempts_of(client, study.id)
        cluster.tell(f"reports by node: {dict(nodes_of(client, study.id))}; lost: {len(lost)} of {len(attempts)} attempts")


def lost_of(client: Client, study_id: str) -> list[AttemptView]:
    return [one for one in attempts_of(client, study_id) if one.outcome is AttemptOutcome.LOST]


def _check(client: Client, service: RunningService, study_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What must hold of a study that ran on hosts that came and went."""
    found = finished(client, client.study(study_id))
    assert (found.study.state, found.study.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: TRIALS})
    check_store(found)
    parameters = [json.dumps(dict(trial.parameters), sort_keys=True) for trial in found.trials]
    assert len(set(parameters)) == len(parameters), "no configuration twice"
    attempts = attempts_of(client, study_id)
    assert {one.outcome for one in attempts} == {AttemptOutcome.DONE, AttemptOutcome.LOST}
    assert len(lost_of(client, study_id)) <= 3, "only what ran on the node that was lost"
    assert set(nodes_of(client, study_id)) == {"node-1", "node-2", "node-3"}
    check_mlflow(service, found, monkeypatch)
