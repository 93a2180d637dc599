import logging
import re

import pytest
from starlette.testclient import TestClient

from service.api.problems import KINDS, kind_of
from service.api.schemas import Problem
from service.domain import errors
from tests.api.conftest import World
from tests.builders import a_document

TYPE = "urn:tuneyard:problem:"


def subclasses(base: type[errors.TuneyardError]) -> set[type[errors.TuneyardError]]:
    found = {one for one in base.__subclasses__() if one.__module__ == "service.domain.errors"}
    return found.union(*(subclasses(one) for one in found))


@pytest.mark.parametrize("error", sorted(subclasses(errors.TuneyardError), key=str))
def test_every_error_of_the_tree_has_a_problem_of_its_own(error: type[errors.TuneyardError]) -> None:
    assert error in KINDS
    assert 400 <= KINDS[error].status < 600


def test_no_two_problems_have_the_same_type() -> None:
    types = [kind.type for kind in KINDS.values()]
    assert len(types) == len(set(types))


def test_an_error_without_a_problem_of_its_own_is_what_its_base_is() -> None:
    class PlanetNotFound(errors.NotFound):
        pass

    assert kind_of(PlanetNotFound("gone")) is KINDS[errors.NotFound]


PROTECTED = [
    ("GET", "/v1"), ("GET", "/v1/studies"), ("POST", "/v1/studies"), ("GET", "/v1/studies/a"), ("DELETE", "/v1/studies/a"),
    ("POST", "/v1/studies/a:stop"), ("POST", "/v1/studies/a:cancel"), ("GET", "/v1/studies/a/trials"),
    ("POST", "/v1/studies/a:pause"), ("POST", "/v1/studies/a:resume"), ("POST", "/v1/studies/a:extend"),
    ("PATCH", "/v1/studies/a"), ("POST", "/v1/studies/a/trials/0:stop"),
    ("GET", "/v1/studies/a/events"), ("GET", "/v1/studies/a/analysis"), ("GET", "/v1/studies/a/analysis/slices.png"),
    ("GET", "/v1/studies/a/pareto"), ("GET", "/v1/studies/a/lineage"), ("GET", "/v1/studies/a/forecast"),
    ("GET", "/v1/studies/a/spending"), ("GET", "/v1/deletions"),
    ("GET", "/v1/studies/a/best"), ("GET", "/v1/studies/a/best/checkpoint"), ("GET", "/v1/studies/a/best/checkpoint/archive"),
    ("GET", "/v1/studies/a/best/checkpoint/files/config.json"), ("GET", "/v1/studies/a/trials/0"),
    ("GET", "/v1/studies/a/trials/0/reports"), ("GET", "/v1/studies/a/trials/0/attempts"),
    ("GET", "/v1/studies/a/trials/0/analysis"), ("GET", "/v1/studies/a/trials/0/checkpoint"),
    ("HEAD", "/v1/studies/a/trials/0/checkpoint/archive"), ("GET", "/v1/datasets"),
    ("PUT", "/v1/datasets/a/files/b.csv"), ("DELETE", "/v1/datasets/a"), ("DELETE", "/v1/datasets/a/files/b.csv"),
    ("GET", "/v1/models"), ("GET", "/v1/models/a"),
    ("GET", "/v1/presets"), ("GET", "/v1/presets/a/b"),
    ("GET", "/v1/studies/a/final"), ("GET", "/v1/studies/a/refine"), ("POST", "/v1/studies/a:fork"),
    ("POST", "/v1/studies:preview"),
    ("GET", "/v1/me"), ("GET", "/v1/tokens"), ("POST", "/v1/tokens"), ("DELETE", "/v1/tokens/a"), ("GET", "/v1/projects"),
    ("DELETE", "/v1/sessions"),
    ("POST", "/v1/projects"), ("PUT", "/v1/projects/a/quotas"), ("GET", "/v1/audit"),
    ("GET", "/metrics"), ("GET", "/docs"), ("GET", "/openapi.json"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_a_stranger_gets_in_nowhere(stranger: TestClient, world: World, method: str, path: str) -> None:
    world.has_study("a")
    answer = stranger.request(method, path, content=b"x" if method in {"PUT", "POST"} else None)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    if method != "HEAD":
        assert answer.json()["type"] == TYPE + "not-authenticated"


def test_every_route_of_the_description_is_among_those_tried(client: TestClient) -> None:
    templates = {
        re.sub("{(study_id|name|task|token_id)}", "a", path)
        .replace("{number}", "0")
        .replace("{file}", "b.csv")
        .replace("{method}", "b")
        .replace("{figure}", "slices")
        for path in client.get("/openapi.json").json()["paths"]
        if path.startswith("/v1/") and "login" not in path and "logout" not in path
    }
    tried = {path.replace("config.json", "{path}") for _, path in PROTECTED}
    tried |= {path.replace("best", "trials/0") for path in tried} | {path.replace("trials/0", "best") for path in tried}
    assert templates <= tried


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    answer = client.get("/v2/studies")
    problem = Problem.model_validate_json(answer.content)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (problem.type, problem.status, problem.instance) == (TYPE + "no-such-path", 404, "/v2/studies")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/v1/studies", {"GET", "POST"}),
        ("PUT", "/v1/studies/a", {"GET", "DELETE", "PATCH"}),
        ("GET", "/v1/studies/a:stop", {"POST"}),
        ("POST", "/v1/studies/a/best/checkpoint/archive", {"GET", "HEAD"}),
        ("TRACE", "/healthz", {"GET"}),
    ],
)
def test_a_method_that_a_path_lacks_is_refused_with_all_that_it_has(
    client: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.json()["type"]) == (405, TYPE + "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_a_parameter_that_is_wrong_is_named(client: TestClient) -> None:
    problem = client.get("/v1/studies?limit=0&order=size").json()
    assert {violation["pointer"] for violation in problem["violations"]} == {"limit", "order"}


def test_a_mistake_of_ours_tells_the_client_an_id_and_the_log_the_rest(
    client: TestClient, world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.catalog.refusal = RuntimeError("the secret is 42")
    with caplog.at_level(logging.ERROR, "tuneyard.api"):
        answer = client.post("/v1/studies", json=a_document())
    assert (answer.status_code, answer.json()["type"]) == (500, TYPE + "internal-error")
    assert "secret" not in answer.text
    (record,) = caplog.records
    incident = record.getMessage().partition(":")[0]
    assert incident in answer.json()["detail"]
    assert record.exc_info is not None
    assert "the secret is 42" in str(record.exc_info[1])
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("path", ["/healthz", "/v1/studies", "/nowhere", "/docs"])
def test_every_answer_carries_the_headers_that_keep_browsers_from_harm(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_a_query_is_not_repeated_in_a_problem(client: TestClient) -> None:
    assert "hidden" not in client.get("/nowhere?code=hidden").text


def test_while_the_database_is_away_clients_are_asked_to_come_again_and_told_no_more(
    client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_: str) -> None:
        raise errors.StoreAway("connection to server at 10.0.0.5 failed")

    world.has_study("a")
    monkeypatch.setattr(world.parts.store.studies, "get", away)
    with caplog.at_level(logging.WARNING, "tuneyard.api"):
        answer = client.get("/v1/studies/a")
    assert (answer.status_code, answer.json()["type"], answer.headers["Retry-After"]) == (503, TYPE + "store-away", "2")
    assert "10.0.0.5" not in answer.text
    assert "10.0.0.5" in caplog.text
