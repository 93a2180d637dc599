"""One running service for all tests of this folder that do not need one of their own."""

from collections.abc import Iterator

import pytest

from service.client import Client
from tests.running import RunningService


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
