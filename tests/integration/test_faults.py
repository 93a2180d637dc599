"""Nodes that break, disks that are full and a database that goes away, with the real service."""

import json
import os
import secrets
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from service.api.schemas import StudyView
from service.client import Client
from service.client.errors import ProblemError
from service.domain.study import StudyReason, StudyState
from service.domain.trial import AttemptOutcome, TrialState
from service.execution.environment import for_cluster, head_command, reachable
from service.serve import free_ports
from service.settings import Layout, write_private
from tests.running import RunningService, wait_until
from tests.servers import Postgresql

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "--uts", "--mount", "true"], check=False, capture_output=True).returncode != 0,
    reason="another node's name and a small disk need namespaces of their own: run it as root",
)
_MIB = 1024**2


def a_study(client: Client, trials: int = 6, epochs: int = 4, seconds: float = 0.5, **changes: Any) -> StudyView:
    """A study that trains nothing, on two workers."""
    document: dict[str, Any] = {
        "name": "faults",
        "trainer": {
            "kind": "simulated",
            "metrics": {"validation/loss": "rate / epoch"},
            "seconds_per_epoch": seconds,
            "epochs": epochs,
        },
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": trials},
        "resources": {"max_concurrent_trials": 2},
    }
    return client.apply({**document, **changes})


def ends(client: Client, study: StudyView, seconds: float = 180) -> StudyView:
    wait_until(lambda: client.study(study.id).state.is_end, seconds, "the study does not end")
    return client.study(study.id)


@contextmanager
def two_nodes(layout: Layout) -> Iterator[str]:
    """A cluster of two nodes with a CPU each. One has a name of its own, and cannot write into the folder of checkpoints."""
    layout.checkpoints.mkdir(parents=True)
    write_private(layout.ray_token, secrets.token_hex(32))
    [port] = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        good = head_command(port, Path(folder) / "good", 1, 0)
        there = [part for part in good if not part.startswith(("--head", "--include-dashboard", "--port", "--temp-dir"))]
        bad = [*there, f"--address=127.0.0.1:{port}", f"--temp-dir={folder}/bad"]
        script = f"hostname bad-node && mount -t tmpfs -o ro,size=1g none {layout.checkpoints} && exec {shlex.join(bad)}"
        nodes: list[subprocess.Popen[bytes]] = []
        try:
            for command in (good, ["unshare", "--uts", "--mount", "sh", "-c", script]):
                nodes.append(
                    subprocess.Popen(
                        command, env={**os.environ, **for_cluster(layout.ray_token)}, stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    )
                )  # fmt: skip
                wait_until(lambda: reachable(f"127.0.0.1:{port}"), 120, "the head of the cluster does not come up")
            yield f"127.0.0.1:{port}"
        finally:
            for node in reversed(nodes):
                node.terminate()
                node.wait(60)


def _is_whole(layout: Layout) -> bool:
    capacity = layout.run / "capacity.json"
    return capacity.exists() and json.loads(capacity.read_text())["cpus"] == 2


@needs_namespaces
def test_a_study_leaves_a_node_where_it_fails_and_ends_well_elsewhere(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    with two_nodes(layout) as address:
        service = RunningService(tmp_path, TUNEYARD_RAY_ADDRESS=address).start()
        try:
            with service.client() as client:
                wait_until(lambda: _is_whole(layout), 180, "the cluster is not whole")
                # Retries that last until the good node's worker is up: only then is it known that the fault is the other node's.
                study = ends(client, a_study(client, epochs=2, seconds=0.3, max_retries=5))
                attempts = [one for trial in client.trials(study.id) for one in client.attempts(study.id, trial.number)]
                told = [event.payload for event in client.events(study.id) if event.kind == "study.quarantine"]
        finally:
            assert service.stop() == 0
    assert (study.state, study.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: 6})
    assert [one["node"] for one in told] == ["bad-node"]
    assert "Read-only file system" in told[0]["detail"]
    there = [one for one in attempts if (one.worker or "").startswith("bad-node:")]
    assert {one.outcome for one in there} == {AttemptOutcome.FAILED}
    assert 3 <= len(there) <= 8  # more may have been tried before anything went well elsewhere
    assert all((one.worker or "").startswith(f"{socket.gethostname()}:") for one in attempts if one not in there)


def test_a_study_goes_on_where_it_was_when_the_database_comes_back(tmp_path: Path, postgresql: Postgresql) -> None:
    service = RunningService(tmp_path, TUNEYARD_DATABASE_URL=postgresql.url).start()
    try:
        with service.client() as client:
            study = a_study(client, trials=4, epochs=12)
            wait_until(lambda: client.study(study.id).progress.epochs.spent >= 4, 120, "the study does not run")
            driver = service.driver_pid(study.id)
            postgresql.stop()
            with service.http() as http:
                answer = http.get(f"/v1/studies/{study.id}")
            assert (answer.status_code, answer.json()["type"]) == (503, "urn:tuneyard:problem:store-away")
            time.sleep(6)  # longer than the lease
            postgresql.start()
            wait_until(lambda: _answers(client, study), 90, "the service does not find the database again")
            ended = ends(client, study)
            trials = list(client.trials(study.id))
            attempts = [client.attempts(study.id, trial.number) for trial in trials]
            reports = [[one.number for one in client.reports(study.id, trial.number)] for trial in trials]
    finally:
        assert service.stop() == 0
    assert (ended.state, ended.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: 4})
    assert [len(tried) for tried in attempts] == [1] * 4  # the driver and its workers went on
    assert reports == [list(range(1, 13))] * 4
    assert driver > 0


def test_a_driver_that_the_database_does_not_reach_leaves_once_it_was_followed(tmp_path: Path, postgresql: Postgresql) -> None:
    service = RunningService(tmp_path, TUNEYARD_DATABASE_URL=postgresql.url).start()
    try:
        with service.client() as client:
            study = a_study(client, trials=4, epochs=12)
            wait_until(lambda: client.study(study.id).progress.epochs.spent >= 4, 120, "the study does not run")
            name = service.home / "checkpoints" / study.id / ".driver"
            log = service.home / "logs" / "drivers" / f"{study.id}.log"
            assert f"-{service.driver_pid(study.id)}-" in name.read_text()
            postgresql.stop()
            name.write_text("driver-elsewhere-1-1")  # as of one that a service wrote which reaches the database
            wait_until(lambda: "another driver is at work" in log.read_text(), 90, "the driver stays")
            postgresql.start()
            wait_until(lambda: _answers(client, study), 90, "the service does not find the database again")
            ended = ends(client, study)
    finally:
        assert service.stop() == 0
    assert (ended.state, ended.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: 4})


def _answers(client: Client, study: StudyView) -> bool:
    try:
        return client.study(study.id).id == study.id
    except ProblemError:
        return False


@contextmanager
def a_small_disk(folder: Path, mebibytes: int) -> Iterator[None]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@needs_namespaces
def test_a_service_stays_on_a_disk_that_is_full_to_the_last_byte_and_its_study_goes_on(tmp_path: Path) -> None:
    with a_small_disk(tmp_path / "home", 1000):
        service = RunningService(tmp_path).start()
        try:
            with service.client() as client:
                study = a_study(client, trials=2, epochs=30)
                wait_until(lambda: client.study(study.id).progress.epochs.spent >= 2, 100, "the study does not run")
                fill(service.home / "filler")
                time.sleep(20)  # the lead runs out, and the controller leaves
                assert _answers(client, study)
                (service.home / "filler").unlink()
                ended = ends(client, study, seconds=150)
        finally:
            assert service.stop() == 0, service.log()
    assert (ended.state, ended.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: 2})


def fill(file: Path) -> None:
    """Take all the room that its disk has."""
    with file.open("wb", buffering=0) as into, suppress(OSError):
        while True:
            into.write(bytes(64 * 1024))


@needs_namespaces
def test_a_study_waits_for_room_on_its_disk_and_goes_on_by_itself(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "home")
    with a_small_disk(layout.checkpoints, 600):
        service = RunningService(tmp_path).start()
        try:
            with service.client() as client:
                other = layout.checkpoints / "other"
                trainer = {
                    "kind": "simulated", "metrics": {"validation/loss": "rate / epoch"}, "seconds_per_epoch": 0.5, "epochs": 6,
                    "state_megabytes": 20,
                }  # fmt: skip
                study = a_study(client, trials=2, trainer=trainer)
                wait_until(lambda: client.study(study.id).progress.epochs.spent >= 2, 120, "the study does not run")
                other.write_bytes(bytes(300 * _MIB))
                wait_until(lambda: client.study(study.id).state is StudyState.PAUSED, 90, "a full disk does not pause it")
                paused = client.study(study.id)
                assert paused.reason is StudyReason.NO_SPACE
                assert str(layout.checkpoints) in (paused.detail or "")
                assert not list(layout.checkpoints.glob("*/*/.resume-*"))
                other.unlink()
                ended = ends(client, study)
                resumed = [event.payload for event in client.events(study.id) if event.payload.get("by") == "controller"]
                attempts = [one for trial in client.trials(study.id) for one in client.attempts(study.id, trial.number)]
        finally:
            assert service.stop() == 0
    assert (ended.state, ended.trials) == (StudyState.COMPLETED, {TrialState.COMPLETED: 2})
    assert len(resumed) == 1
    assert {one.outcome for one in attempts} == {AttemptOutcome.DONE, AttemptOutcome.PAUSED}
