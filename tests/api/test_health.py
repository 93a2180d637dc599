import socket
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api import health
from service.domain.errors import StorageAway
from service.domain.leadership import controller_name
from tests.api.conftest import World, client_of, with_parts


class Broken:
    """A part that always fails."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("the disk is gone: /secret/place")


def test_the_process_tells_a_stranger_that_it_lives(stranger: TestClient) -> None:
    answer = stranger.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_a_service_whose_parts_are_up_is_ready(stranger: TestClient) -> None:
    answer = stranger.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        200,
        {"status": "ready", "parts": {"store": True}, "leader": "nobody"},
    )


def test_a_service_without_its_store_is_not_ready_and_does_not_say_why(world: World) -> None:
    store = world.parts.store
    broken: Any = Broken()
    store = replace(
        store, studies=broken, trials=broken, events=broken, leases=broken, leadership=broken, mirror=broken
    )  # fmt: skip
    client = client_of(with_parts(world, store=store), token=None)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (
        503,
        {"status": "not ready", "parts": {"store": False}, "leader": "unknown"},
    )
    assert answer.headers["Retry-After"] == "2"


def test_a_service_without_its_tracker_is_not_ready(world: World) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mlflow"
        answer = client_of(with_parts(world, mlflow_url=url), token=None).get("/readyz")
    assert (answer.status_code, answer.json()["parts"]) == (503, {"store": True, "mlflow": False})


@pytest.mark.parametrize("is_away", [False, True])
def test_a_service_whose_object_storage_is_away_is_not_ready(world: World, *, is_away: bool) -> None:
    def look() -> None:
        if is_away:
            raise StorageAway("s3://models/tuneyard", "no answer", "GET http://10.0.0.1/models")

    answer = client_of(with_parts(world, look_at_storage=look), token=None).get("/readyz")
    assert (answer.status_code, answer.json()["parts"]) == (503 if is_away else 200, {"store": True, "storage": not is_away})
    assert "10.0.0.1" not in answer.text


def test_strangers_cannot_make_the_service_look_more_than_once_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    seconds = [100.0]

    def looked(url: str) -> bool:
        looks.append(url)
        return True

    monkeypatch.setattr(health, "_mlflow_is_up", looked)
    monkeypatch.setattr(health, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    client = client_of(with_parts(world, mlflow_url="http://127.0.0.1:1/mlflow"), token=None)
    assert [client.get("/readyz").status_code for _ in range(5)] == [200] * 5
    assert looks == ["http://127.0.0.1:1/mlflow"]
    seconds[0] += 1.1
    assert [client.get("/readyz").status_code for _ in range(5)] == [200] * 5
    assert len(looks) == 2


@pytest.mark.parametrize(("home", "leader", "leads"), [("host-a1b2c3", "here", "1.0"), ("host-d4e5f6", "elsewhere", "0.0")])
def test_a_service_says_in_a_word_where_the_controller_is_that_leads(world: World, home: str, leader: str, leads: str) -> None:
    owner = controller_name("host-a1b2c3", 4711, 99)
    assert world.parts.store.leadership.acquire(owner, world.parts.clock.now(), timedelta(seconds=10))
    client = client_of(with_parts(world, name=home))
    assert client.get("/readyz").json()["leader"] == leader
    assert f"tuneyard_leads {leads}" in client.get("/metrics").text.splitlines()


def test_metrics_count_studies_and_trials_by_state(client: TestClient, world: World) -> None:
    world.has_study("waiting")
    study = world.runs(world.has_study("working"))
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1)
    lines = client.get("/metrics").text.splitlines()
    assert 'tuneyard_studies{state="queued"} 1.0' in lines
    assert 'tuneyard_studies{state="running"} 1.0' in lines
    assert 'tuneyard_studies{state="failed"} 0.0' in lines
    assert 'tuneyard_trials{state="running"} 1.0' in lines
    assert 'tuneyard_trials{state="queued"} 1.0' in lines


def test_metrics_count_answers_by_route_and_not_by_path(client: TestClient, world: World) -> None:
    for _ in range(2):
        client.get("/v1/studies/no-such-study")
    client.get("/some/made-up/path")
    client.request("BREW", "/v1/studies")
    text = client.get("/metrics").text
    assert 'tuneyard_http_requests_total{method="GET",route="/v1/studies/{study_id}",status="404"} 2.0' in text
    assert 'tuneyard_http_requests_total{method="GET",route="(none)",status="404"} 1.0' in text
    assert 'tuneyard_http_answer_seconds_count{method="GET",route="/v1/studies/{study_id}"} 2.0' in text
    assert "made-up" not in text
    assert "BREW" not in text


def test_each_application_counts_for_itself(client: TestClient, world: World) -> None:
    client.get("/healthz")
    assert 'route="/healthz"' not in client_of(world.parts).get("/metrics").text
