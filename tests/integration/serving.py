"""A real MLflow server, the mirror into it, and the API in front of it."""

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import uvicorn

from service.api.app import create_api
from service.api.dependencies import ApiParts
from service.api.summaries import Summaries
from service.domain.ports import Store
from service.serve import free_ports
from service.settings import Settings
from service.tracking import server
from service.tracking.mirror import Mirror
from service.tracking.mlflow import MlflowTracker
from tests.api.conftest import (
    TOKEN,
    FakeAnalyst,
    FakeCatalog,
    FakeCheckpoints,
    FakeDatasets,
    FakeForecaster,
    FakeModels,
    FakePreviewer,
)
from tests.fakes import FakeClock
from tests.running import wait_until
from tests.unit.test_mirror import ENVIRONMENT, World

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


@contextmanager
def serving_mlflow(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server over what is in this folder."""
    arguments, environment = server.command(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"), port)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(arguments, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        up = f"{server.url(port)}/health"
        wait_until(lambda: process.poll() is not None or _answers(up), _START_SECONDS, "MLflow did not come up", 0.1)
        assert process.poll() is None, (folder / "log").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(_STOP_SECONDS)


@contextmanager
def serving_api(store: Store, mlflow_url: str, home: Path) -> Iterator[str]:
    """The address of an API over this store, in front of a real server."""
    parts = ApiParts(
        store=store, summaries=Summaries(store.trials), datasets=FakeDatasets(),
        checkpoints=FakeCheckpoints(), catalog=FakeCatalog(), models=FakeModels(),
        analyst=FakeAnalyst(), previewer=FakePreviewer(), forecaster=FakeForecaster(), clock=FakeClock(),
        settings=Settings(home=home), token=TOKEN, mlflow_url=mlflow_url,
    )  # fmt: skip
    [port] = free_ports(1)
    api = uvicorn.Server(uvicorn.Config(create_api(parts), port=port, log_level="warning", access_log=False, ws="none"))
    thread = threading.Thread(target=api.run)
    thread.start()
    try:
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"), _START_SECONDS, "the API did not come up")
        yield f"http://127.0.0.1:{port}"
    finally:
        api.should_exit = True
        thread.join(_STOP_SECONDS)


class RealWorld(World):
    """The unit tests' world, mirrored into a real server."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.real = MlflowTracker(url)
        self.mirror = Mirror(self.store, self.real, self.exports, ENVIRONMENT, self.clock)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
