"""Ray's own traffic by TLS: a head, a worker on another host and the service know each other by certificates and a token."""

import secrets
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from service.domain.study import StudyState
from service.settings import Layout, write_private
from tests.cluster.certificates import Authority
from tests.cluster.network import HEAD, can_have_hosts
from tests.cluster.nodes import PORT, Cluster, slots
from tests.cluster.test_two_nodes import a_study
from tests.running import RunningService, wait_until
from tests.s3 import ADDRESS

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not can_have_hosts(), reason="hosts of our own need root and iproute2"),
]

ASKS = ("-m", "ray.scripts.scripts", "health-check", "--address", f"{HEAD}:{PORT}")


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    (tmp_path / "certificates").mkdir()
    return Authority(tmp_path / "certificates")


@pytest.fixture
def here(authority: Authority, network: None) -> Mapping[str, str]:
    """The variables of this machine, which has several addresses."""
    every = {found.address for addresses in psutil.net_if_addrs().values() for found in addresses if "." in found.address}
    return authority.variables(HEAD, *sorted(every - {HEAD}))


@pytest.fixture
def cluster(tmp_path: Path, authority: Authority, here: Mapping[str, str], s3: Mapping[str, str]) -> Iterator[Cluster]:
    layout = Layout(tmp_path / "home")
    write_private(layout.ray_token, secrets.token_hex(32))
    found = Cluster(layout, lambda address: {**s3, **(here if address == HEAD else authority.variables(address, "127.0.0.1"))})
    try:
        found.start(workers=1)
        yield found
    finally:
        found.stop()


@pytest.fixture
def service(tmp_path: Path, cluster: Cluster, here: Mapping[str, str], s3: Mapping[str, str]) -> Iterator[RunningService]:
    running = RunningService(tmp_path, **s3, **here, TUNEYARD_RAY_ADDRESS=f"{HEAD}:{PORT}", TUNEYARD_STORAGE_URL=ADDRESS)
    running.start()
    yield running
    assert running.stop() == 0, running.log()


def test_a_study_runs_on_a_cluster_that_lets_nobody_in_without_a_certificate(
    tmp_path: Path, cluster: Cluster, service: RunningService, here: Mapping[str, str]
) -> None:
    with service.client() as client:
        wait_until(lambda: slots(Layout(service.home)) == 1, 180, "the cluster is not whole")
        cluster.tell("a head, a worker and the service, by TLS")
        small = {"budget": {"trials": 2}, "trainer": {**a_study()["trainer"], "epochs": 2}}
        study = client.apply({**a_study(), **small})
        wait_until(lambda: client.study(study.id).state.is_end, 180, "the study does not end")
        assert client.study(study.id).state is StudyState.COMPLETED
        cluster.tell("a study is completed")
    assert cluster.nodes[0].is_alive(), "the health check speaks TLS"
    (tmp_path / "strangers").mkdir()
    strange = Authority(tmp_path / "strangers").variables(HEAD)
    assert may_enter(cluster, here)
    assert not may_enter(cluster, {}), "a token is not enough"
    assert not may_enter(cluster, strange), "nor is a certificate of somebody else"
    cluster.tell("who has the token and no certificate of ours is refused")


def may_enter(cluster: Cluster, variables: Mapping[str, str]) -> bool:
    """Whether the head answers one with the token and these variables, within the half a minute for which Ray tries."""
    answer: subprocess.CompletedProcess[str] = cluster.said(*ASKS, **variables)
    return answer.returncode == 0
