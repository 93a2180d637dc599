"""The OpenAPI document against the live service: schemathesis makes requests up, and holds every answer to what is described."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.client import Client
from service.domain.study import StudyState
from tests.integration.test_four_strategies import a_study
from tests.running import RunningService

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(400)]

_CONFIG = Path(__file__).parents[1] / "api" / "schemathesis.toml"
_EXAMPLES = 3
"""Requests to each operation and phase; the seed is fixed, so that a failure comes again."""
_PHASES = ("coverage", "examples,fuzzing,stateful")
"""Two halves that run side by side: what takes the time is making requests up, in one thread, and not answering them."""


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[RunningService]:
    """A service of its own: what is made up here may delete everything."""
    running = RunningService(tmp_path)
    try:
        yield running.start()
    finally:
        assert running.stop() == 0, running.log()


def test_the_live_service_does_what_its_description_says(own_service: RunningService, tmp_path: Path) -> None:
    with own_service.client() as client:
        _has_something_to_find(own_service, client)
        # Made when first asked for: on a busy machine that takes longer than schemathesis waits.
        token = {"Authorization": f"Bearer {own_service.token}"}
        httpx.get(f"{own_service.url}/openapi.json", headers=token, timeout=60, trust_env=False).raise_for_status()
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda phases: _tested(own_service, phases, tmp_path), _PHASES))
        for answer in answers:
            assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
        assert client.datasets().builtins, "it still answers"


def _tested(service: RunningService, phases: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG),
        "run", f"{service.url}/openapi.json", "--header", f"Authorization: Bearer {service.token}", "--phases", phases,
        "--max-examples", str(_EXAMPLES), "--seed", "1", "--no-shrink", "--continue-on-failure", "--request-timeout", "20",
        "--warnings", "off", "--generation-database", "none",
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=360, check=False)


def _has_something_to_find(service: RunningService, client: Client) -> None:
    for path in sorted(service.rows.glob("*.csv")):
        client.upload("intents", path)
    document = a_study(service, name="found", strategy={"kind": "random"}, budget={"trials": 1})
    assert client.wait(client.apply(document).id, timeout=120).state is StudyState.COMPLETED
