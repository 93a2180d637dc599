"""The OpenAPI document against the live service: schemathesis makes requests up, and holds every answer to what is described."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

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
    # It is asked with wrong tokens too, more often than anybody else may.
    running = RunningService(tmp_path, TUNEYARD_MAX_FAILED_LOGINS_PER_MINUTE="100000")
    try:
        yield running.start()
    finally:
        assert running.stop() == 0, running.log()


def test_the_live_service_does_what_its_description_says(own_service: RunningService, tmp_path: Path) -> None:
    with own_service.client() as client:
        _has_something_to_find(own_service, client)
        _described(own_service, tmp_path)  # by one of the two threads alone
        with ThreadPoolExecutor() as pool:
            answers = list(pool.map(lambda phases: _tested(own_service, phases, tmp_path, own_service.token), _PHASES))
        for answer in answers:
            assert answer.returncode == 0, answer.stdout[-8000:] + answer.stderr[-2000:]
        assert client.datasets().builtins, "it still answers"


def test_a_stranger_gets_nothing_but_401_and_a_viewer_changes_nothing(own_service: RunningService, tmp_path: Path) -> None:
    with own_service.client() as client:
        _has_something_to_find(own_service, client)
        before = _seen(own_service)
        viewer = _viewer(own_service)
        answers = {}
        for who, token in (("viewer", viewer), ("stranger", None)):
            har = tmp_path / f"{who}.har"
            done = _tested(own_service, "fuzzing", tmp_path, token, ["--report", "har", "--report-har-path", str(har)])
            assert done.returncode == 0 or who == "stranger", done.stdout[-8000:] + done.stderr[-2000:]
            answers[who] = _answers(har)
        # A trial whose number is none is at no path of ours, whoever asks.
        nowhere = re.compile(r"/trials/(?!\d{1,9}(?:[:/]|$))")
        opened = {
            path for path, _, status in answers["stranger"] if status != 401 and not (status == 404 and nowhere.search(path))
        }
        assert opened <= {"/healthz", "/readyz", "/login"}, opened
        assert len({path for path, _, _ in answers["stranger"]}) > 20
        changed = [one for one in answers["viewer"] if one[1] not in {"GET", "HEAD"} and one[2] < 400]
        # A viewer may let their own browser in, as the viewer that they are.
        assert [one for one in changed if not one[0].endswith((":preview", "/login-links"))] == []
        assert _seen(own_service) == before


def _viewer(service: RunningService) -> str:
    wanted = {"name": "looker", "role": "viewer", "project": "default"}
    with service.http() as operator:
        return str(operator.post("/v1/tokens", json=wanted).raise_for_status().json()["token"])


def _seen(service: RunningService) -> tuple[str, ...]:
    """What there is that could be changed."""
    with service.http() as operator:
        rows, projects = (operator.get(path).raise_for_status() for path in ("/v1/datasets", "/v1/projects"))
        return rows.text, *(project["name"] for project in projects.json()["items"])


def _answers(har: Path) -> list[tuple[str, str, int]]:
    """Path, method and status of each request in a HAR file."""
    entries = json.loads(har.read_text())["log"]["entries"]
    return [
        (urlsplit(one["request"]["url"]).path, one["request"]["method"], one["response"]["status"])
        for one in entries
        if one["response"]["status"]
    ]


def _described(service: RunningService, folder: Path) -> Path:
    """The OpenAPI document, as a file: a stranger does not get it."""
    described = folder / "openapi.json"
    if not described.exists():
        known = {"Authorization": f"Bearer {service.token}"}
        described.write_text(httpx.get(f"{service.url}/openapi.json", headers=known, timeout=60, trust_env=False).text)
    return described


def _tested(
    service: RunningService, phases: str, folder: Path, token: str | None, more: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    described = _described(service, folder)
    header = ["--header", f"Authorization: Bearer {token}"] if token else []
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(_CONFIG),
        "run", str(described), "--url", service.url, *header, *more, "--phases", phases,
        "--max-examples", str(_EXAMPLES), "--seed", "1", "--no-shrink", "--continue-on-failure", "--request-timeout", "20",
        "--warnings", "off", "--generation-database", "none",
    ]  # fmt: skip
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=360, check=False)


def _has_something_to_find(service: RunningService, client: Client) -> None:
    for path in sorted(service.rows.glob("*.csv")):
        client.upload("intents", path)
    document = a_study(service, name="found", strategy={"kind": "random"}, budget={"trials": 1})
    assert client.wait(client.apply(document).id, timeout=120).state is StudyState.COMPLETED
