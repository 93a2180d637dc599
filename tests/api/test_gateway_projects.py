"""The gateway for who sees one project, before a stand-in for MLflow."""

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from service.api.identity import sha256_of
from service.domain.access import AccessToken, Caller, Project, Role, Source
from service.domain.ports import MirroredTrial
from tests.api.conftest import TOKEN, World, client_of, with_parts
from tests.api.test_gateway import UPSTREAM, WRITES, Upstream
from tests.builders import NOW, a_study

OWN, OTHER = "a" * 32, "b" * 32
MEMBER = "ty_" + "m" * 43
API = "/mlflow/ajax-api/2.0/mlflow"


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def tracked(world: World) -> World:
    """Projects `vision` and `speech`, each with a study, an experiment and a run, and a viewer of `vision`."""
    store = world.parts.store
    for project, experiment, run in (("vision", "7", OWN), ("speech", "8", OTHER)):
        store.projects.add(Project(project, NOW))
        store.studies.add(replace(a_study(f"{project}-abc123"), project=project))
        store.mirror.set_experiment(f"{project}-abc123", experiment)
        store.mirror.set_mirrored([MirroredTrial(f"{project}-abc123", -1, run)])
    store.access.add_token(AccessToken("1", "ada", Role.VIEWER, "vision", NOW, "root"), sha256_of(MEMBER))
    return world


def before(world: World, upstream: Upstream, token: str | None) -> TestClient:
    client = client_of(with_parts(world, mlflow_url=UPSTREAM), token)
    client.app.state.mlflow_client = upstream.client()  # type: ignore[attr-defined]  # FastAPI's application has a state
    return client


@pytest.fixture
def member(tracked: World, upstream: Upstream) -> Iterator[TestClient]:
    with before(tracked, upstream, MEMBER) as client:
        yield client


def test_what_is_the_projects_is_passed_on_and_streamed(member: TestClient, upstream: Upstream) -> None:
    answer = member.get(f"{API}/runs/get?run_id={OWN}&run_uuid={OTHER}&x=1", headers={"Range": "bytes=0-1"})
    assert (answer.status_code, answer.content) == (200, b"<script></script>")
    [(method, target, headers, body)] = upstream.asked
    assert (method, target, body) == ("GET", f"{API}/runs/get?run_id={OWN}".encode(), b"")
    assert "range" not in headers


def test_what_is_anothers_is_no_ones_and_mlflow_is_not_asked(member: TestClient, upstream: Upstream) -> None:
    answer = member.get(f"{API}/runs/get?run_id={OTHER}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Run with id={OTHER} not found"}
    assert upstream.asked == []


def test_a_body_goes_on_as_the_json_that_was_understood(member: TestClient, upstream: Upstream) -> None:
    body = json.dumps({"experiment_ids": ["7", "8"], "x": 1}).encode("utf-16")
    kind = {"Content-Type": "application/json; charset=utf-16"}
    assert member.post(f"{API}/runs/search?experiment_ids=8", content=body, headers=kind).status_code == 200
    [(method, target, headers, sent)] = upstream.asked
    assert (method, target, headers["content-type"]) == ("POST", f"{API}/runs/search".encode(), "application/json")
    assert sent == b'{"experiment_ids": ["7", "-1"]}'


def test_the_body_of_a_get_stays_here(member: TestClient, upstream: Upstream) -> None:
    upstream.content, kind = b"{}       ", {"Content-Type": "application/json"}
    answer = member.request("GET", f"{API}/experiments/search", content=b'{"max_results": 5}', headers=kind)
    assert answer.json() == {}
    assert upstream.asked[0][3] == b""
    assert upstream.asked[0][1].startswith(f"{API}/experiments/search?filter=tags.%60tuneyard.project%60+%3D+%27vision".encode())


@pytest.mark.parametrize("path", [f"{API}/runs/get?run_id={OWN}", "/mlflow/api/2.0/mlflow-artifacts/artifacts?path=7"])
def test_a_head_is_asked_as_a_get_whose_content_stays_here(member: TestClient, upstream: Upstream, path: str) -> None:
    answer = member.head(path)
    assert (answer.status_code, answer.content) == (200, b"")
    assert upstream.asked[0][0] == "GET"


def test_of_a_searchs_answer_the_projects_part_is_shown_at_its_own_length(member: TestClient, upstream: Upstream) -> None:
    own = {"experiment_id": "7", "name": "own", "tags": []}
    other = {**own, "experiment_id": "8"}
    upstream.content = json.dumps({"experiments": [own, other], "next_page_token": "t"}).encode()
    answer = member.get(f"{API}/experiments/search", headers={"Accept-Encoding": "gzip"})
    assert answer.json() == {"experiments": [own]}
    assert answer.headers["content-length"] == str(len(answer.content))
    assert upstream.asked[0][2]["accept-encoding"] == "identity"


def test_an_error_of_mlflows_to_a_search_is_passed_on(member: TestClient, upstream: Upstream) -> None:
    upstream.status = 400
    answer = member.get(f"{API}/experiments/search?filter=x")
    assert (answer.status_code, answer.content) == (400, b"<script></script>")


def test_a_query_is_sent_on_with_what_was_checked(member: TestClient, upstream: Upstream) -> None:
    query = "query Q($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { info { runName } } } }"
    body = {"query": query, "variables": {"data": {"runId": OTHER}}, "operationName": "Q"}
    assert member.post("/mlflow/graphql?start_step=1", json=body).status_code == 200
    [(_, target, _, sent)] = upstream.asked
    assert target == b"/mlflow/graphql"
    assert json.loads(sent)["variables"] == {"input0": {"runId": "0" * 32}}


@pytest.mark.parametrize(
    "path", ["/mlflow/", "/mlflow/static-files/static/js/main.js", f"{API}/server-info".replace("2.0", "3.0")]
)
def test_the_ui_itself_is_everybodys(member: TestClient, upstream: Upstream, path: str) -> None:
    assert member.get(path).status_code == 200
    assert len(upstream.asked) == 1


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_what_writes_is_refused_to_members_too(member: TestClient, upstream: Upstream, method: str, path: str) -> None:
    assert member.request(method, path, json={}).status_code == 403
    assert upstream.asked == []


def test_a_header_narrows_what_is_seen_by_who_sees_everything(tracked: World, upstream: Upstream) -> None:
    with before(tracked, upstream, TOKEN) as operator:
        path = f"{API}/runs/get?run_id={OTHER}"
        assert operator.get(path).status_code == 200
        assert operator.get(path, headers={"Tuneyard-Project": "vision"}).status_code == 404
        assert operator.get(path, headers={"Tuneyard-Project": "speech"}).status_code == 200
        assert operator.get(path, headers={"Tuneyard-Project": "unknown"}).json()["type"].endswith("project-not-found")
    assert len(upstream.asked) == 2


def test_a_members_browser_sees_the_project(tracked: World, upstream: Upstream) -> None:
    with before(tracked, upstream, None) as browser:
        access, member = tracked.parts.store.access, Caller("ada", Role.VIEWER, Source.TOKEN, "vision", "1")
        access.add_session(sha256_of("s"), tracked.clock.now().replace(year=2100), member)
        browser.cookies.set("tuneyard_session", "s")
        assert browser.get(f"{API}/runs/get?run_id={OWN}").status_code == 200
        assert browser.get(f"{API}/runs/get?run_id={OTHER}").status_code == 404
