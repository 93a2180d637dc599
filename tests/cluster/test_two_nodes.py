"""A service, PostgreSQL and S3 on one host, workers on others: a link is cut, a node killed, a node added; nothing is lost."""

import json
import os
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from ray._private.ray_constants import AUTOSCALER_RESOURCE_REQUEST_CHANNEL

from service.api.schemas import AttemptView
from service.client import Client
from service.domain.study import StudyState
from service.domain.trial import AttemptOutcome, TrialState
from service.domain.waiting import WaitingCause
from service.settings import Layout, write_private
from service.store.sql import open_store
from tests.chaos.invariants import Evidence, trained_twice
from tests.chaos.journal import WATCHING, read_journal, trained
from tests.cluster.network import HEAD, can_have_hosts
from tests.cluster.nodes import PORT, Cluster, slots
from tests.integration.agreement import check_mlflow, check_store, finished
from tests.running import RunningService, wait_until
from tests.s3 import ADDRESS
from tests.servers import a_postgresql

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_have_hosts(), reason="hosts of our own need root and iproute2"),
]

TRIALS, EPOCHS, SECONDS = 14, 8, 1.0
ASKED: bytes = AUTOSCALER_RESOURCE_REQUEST_CHANNEL
FORBIDDEN = ("DATABASE_URL", "MLFLOW", "TUNEYARD_TOKEN")


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


@pytest.fixture
def cluster(tmp_path: Path, network: None, s3: Mapping[str, str]) -> Iterator[Cluster]:
    layout = Layout(tmp_path / "home")
    write_private(layout.ray_token, secrets.token_hex(32))
    watching = {
        "CHAOS_JOURNAL": str(tmp_path / "journal.jsonl"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(WATCHING), os.environ.get("PYTHONPATH")])),
    }
    found = Cluster(layout, lambda _: {**s3, **watching})
    try:
        found.start(workers=2)
        yield found
    finally:
        found.stop()


@pytest.fixture
def databases() -> Iterator[Mapping[str, str]]:
    with a_postgresql() as postgresql:
        yield {
            "TUNEYARD_DATABASE_URL": postgresql.database("tuneyard"),
            "TUNEYARD_MLFLOW_DATABASE_URL": postgresql.database("mlflow"),
        }


@pytest.fixture
def service(tmp_path: Path, cluster: Cluster, s3: Mapping[str, str], databases: Mapping[str, str]) -> Iterator[RunningService]:
    running = RunningService(tmp_path, **s3, **databases, TUNEYARD_RAY_ADDRESS=f"{HEAD}:{PORT}", TUNEYARD_STORAGE_URL=ADDRESS)
    running.start()
    yield running
    assert running.stop() == 0, running.log()
    assert asked_for(cluster) == [], "a service that has left needs no room"


def asked_for(cluster: Cluster) -> Any:
    """What the cluster's autoscaler would make room for, if there was one."""
    ask = "from ray._raylet import GcsClient; import sys; "
    ask += f"print((GcsClient(sys.argv[1]).internal_kv_get({ASKED!r}, None) or b'').decode())"
    answer = cluster.said("-c", ask, f"{HEAD}:{PORT}")
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


def test_a_study_outlives_a_cut_link_and_a_dead_node_and_uses_a_new_one(
    tmp_path: Path, cluster: Cluster, service: RunningService, databases: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(service.home)
    with service.client() as client:
        wait_until(lambda: slots(layout) == 2, 180, "the cluster is not whole")
        cluster.tell("two nodes, a CPU each")
        study = client.apply(a_study())
        both = [host.name for host in cluster.hosts]
        wait_until(lambda: min(nodes_of(client, study.id)[name] for name in both) >= 2, 120, "one node is idle")
        cluster.tell("trials report from both")
        assert cluster.nodes[0].is_alive()
        with cluster.nodes[0].hanging():
            assert not cluster.nodes[0].is_alive(), "its health check asks its own raylet"
        cluster.tell("a raylet stood still for a few seconds")
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
        lines = read_journal(tmp_path / "journal.jsonl")
        epochs = [found for each in trained(lines, study.id).values() for found in each.values()]
        assert len(epochs) == TRIALS * EPOCHS, "workers write down what they train"
        evidence = Evidence(service, client, open_store(databases["TUNEYARD_DATABASE_URL"]), lines)
        assert list(trained_twice(evidence, study.id)) == [], "of a lost attempt one epoch at most is trained again"
        cluster.tell(f"epochs trained again: {sum(map(len, epochs)) - len(epochs)}")
        assert (client.pull(study.id, tmp_path / "best") / "README.md").exists()
        lost, attempts = lost_of(client, study.id), attempts_of(client, study.id)
        cluster.tell(f"reports by node: {dict(nodes_of(client, study.id))}; lost: {len(lost)} of {len(attempts)} attempts")
        waiting = client.apply({**a_study(), "name": "too-large", "resources": {"gpus_per_trial": 1}})
        wait_until(lambda: {"CPU": 1.0, "GPU": 1.0} in asked_for(cluster), 120, "the cluster is not asked for a GPU")
        cause = client.study(waiting.id).waiting
        assert cause is not None
        assert cause.cause is WaitingCause.SIZE
        cluster.tell("a study waits for a GPU, which the cluster is asked for")


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
