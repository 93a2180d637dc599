import asyncio
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from service.api.gateway_rules import canonical_path, is_listed, read_only_query
from service.domain.errors import Forbidden, MalformedDocument
from tests.api.conftest import TOKEN, World, client_of, with_parts

UPSTREAM = "http://127.0.0.1:5999/mlflow"
QUERY = "query Q($data: MlflowGetRunInput!) { mlflowGetRun(input: $data) { run { info { runName } } } }"
READS = [
    ("GET", "/mlflow/"),
    ("GET", "/mlflow/health"),
    ("GET", "/mlflow/static-files/static/js/main.c2f5f8d4.js"),
    ("GET", "/mlflow/static-files/static/media/a%20b.svg"),
    ("GET", "/mlflow/ajax-api/2.0/mlflow/experiments/search?max_results=5"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/runs/search"),
    ("GET", "/mlflow/api/2.0/mlflow/runs/get?run_id=1"),
    ("GET", "/mlflow/ajax-api/2.0/mlflow/metrics/get-history-bulk-interval"),
    ("GET", "/mlflow/get-artifact?path=model/config.json&run_uuid=1"),
    ("GET", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/0a/artifacts/model/config.json"),
    ("GET", "/mlflow/ajax-api/2.0/mlflow/registered-models/alias"),
    ("GET", "/mlflow/ajax-api/2.0/mlflow/logged-models/m-0a"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/traces/search"),
    ("GET", "/mlflow/ajax-api/3.0/mlflow/server-info"),
]
WRITES = [
    ("POST", "/mlflow/ajax-api/2.0/mlflow/runs/create"),
    ("POST", "/mlflow/api/2.0/mlflow/runs/log-batch"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/experiments/set-experiment-tag"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/upload-artifact"),
    ("PUT", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/x"),
    ("DELETE", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/x"),
    ("POST", "/mlflow/api/2.0/mlflow-artifacts/mpu/create/x"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/registered-models/alias"),
    ("DELETE", "/mlflow/ajax-api/2.0/mlflow/registered-models/delete"),
    ("PATCH", "/mlflow/ajax-api/2.0/mlflow/logged-models/m-0a"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/logged-models"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/gateway-proxy"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/assistant/message"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/ui-telemetry"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/traces"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/genai/evaluate/invoke"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/prompt-optimization/jobs"),
    ("POST", "/mlflow/ajax-api/3.0/mlflow/scorer/invoke"),
    ("POST", "/mlflow/ajax-api/3.0/jobs"),
    ("POST", "/mlflow/ajax-api/2.0/mlflow/webhooks"),
    ("POST", "/mlflow/gateway/mlflow/v1/chat/completions"),
    ("POST", "/mlflow/v1/traces"),
    ("POST", "/mlflow/"),
    ("OPTIONS", "/mlflow/ajax-api/2.0/mlflow/runs/search"),
]
HIDDEN = [
    "/mlflow/ajax-api/3.0/mlflow/assistant/config",
    "/mlflow/ajax-api/3.0/mlflow/assistant/sessions/1/stream",
    "/mlflow/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=x",
    "/mlflow/ajax-api/3.0/mlflow/gateway/secrets/list",
    "/mlflow/ajax-api/3.0/mlflow/jobs/1",
    "/mlflow/ajax-api/2.0/mlflow/webhooks",
    "/mlflow/ajax-api/3.0/mlflow/scorers/list",
    "/mlflow/ajax-api/2.0/mlflow-artifacts/presigned/x",
    "/mlflow/graphql",
    "/mlflow/build/index.html",
    "/mlflow/v1/traces",
]


class Upstream:
    """Stands for MLflow; remembers what reached it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, dict[str, str], bytes]] = []
        self.headers = {"Set-Cookie": "a=b", "Access-Control-Allow-Origin": "*", "X-Frame-Options": "SAMEORIGIN", "ETag": '"1"',
                        "Cache-Control": "max-age=60", "Content-Disposition": 'attachment; filename="x"'}  # fmt: skip
        self.status = 200
        self.content = b"<script></script>"
        self.app = Starlette(
            routes=[Route("/{path:path}", self._answer, methods=["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"])]
        )

    async def _answer(self, request: Request) -> Response:
        target = request.scope["raw_path"] + (b"?" + request.scope["query_string"] if request.scope["query_string"] else b"")
        self.asked.append((request.method, target, dict(request.headers), await request.body()))
        content: Any = iter([self.content[:8], self.content[8:]])
        return StreamingResponse(content, self.status, self.headers, media_type="text/html")

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app))


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def reader(world: World, upstream: Upstream) -> Iterator[TestClient]:
    with client_of(with_parts(world, mlflow_url=UPSTREAM)) as client:
        client.app.state.mlflow_client = upstream.client()  # type: ignore[attr-defined]  # FastAPI's application has a state
        yield client


@pytest.mark.parametrize(("method", "path"), READS)
def test_what_the_ui_and_a_reading_client_ask_for_passes_as_it_is(
    reader: TestClient, upstream: Upstream, method: str, path: str
) -> None:
    response = reader.request(method, path, content=b'{"a": 1}' if method == "POST" else None)
    assert (response.status_code, response.content) == (200, b"<script></script>")
    [(asked_method, target, _, body)] = upstream.asked
    assert (asked_method, target) == (method, path.encode())
    assert body == (b'{"a": 1}' if method == "POST" else b"")


@pytest.mark.parametrize(("method", "path"), WRITES)
def test_what_writes_or_runs_something_is_refused(reader: TestClient, upstream: Upstream, method: str, path: str) -> None:
    assert reader.request(method, path, json={}).status_code == 403
    assert upstream.asked == []


@pytest.mark.parametrize("path", HIDDEN)
def test_what_nobody_needs_to_read_is_not_there(reader: TestClient, upstream: Upstream, path: str) -> None:
    assert reader.get(path).status_code == 404
    assert upstream.asked == []


def test_a_header_cannot_change_the_method(reader: TestClient, upstream: Upstream) -> None:
    headers = {"X-HTTP-Method-Override": "DELETE", "X-Method-Override": "DELETE", "X-Original-URL": "/mlflow/v1/traces"}
    assert reader.get("/mlflow/ajax-api/2.0/mlflow/logged-models/m-1", headers=headers).status_code == 200
    assert not {name.lower() for name in headers} & set(upstream.asked[0][2])


@pytest.mark.parametrize(
    "raw",
    [
        "/mlflow/static-files/../ajax-api/2.0/mlflow/runs/get",
        "/mlflow/static-files/%2e%2e/v1/traces",
        "/mlflow/static-files/..%2fv1%2ftraces",
        "/mlflow/static-files/..%5cv1",
        "/mlflow/static-files/%252e%252e/v1",
        "/mlflow/static-files/x%00.js",
        "/mlflow/static-files/x;y",
        "/mlflow/static-files/x%3by",
        "/mlflow/static-files//x",
        "/mlflow//static-files/x",
        "/mlflow/static-files/./x",
        "/mlflow/static-files/x.",
        "/mlflow/static-files/x%20",
        "/mlflow/static-files/x\\y",
        "/mlflow/static-files/x%0d%0ay",
        "/mlflow/static-files/%c0%ae%c0%ae/x",
        "/mlflow/static-files/%ff",
        "/mlflow/static-files/x%23y",
        "/mlflow/static-files/x%3fy",
        "/mlflow/static-files/" + "x" * 5000,
        "http://evil.example/mlflow/",
        "//evil.example/mlflow/",
        "/mlflow",
        "/other/",
    ],
)  # fmt: skip
def test_a_path_that_can_be_read_in_two_ways_does_not_pass(raw: str) -> None:
    assert canonical_path(raw.encode()) is None


@pytest.mark.parametrize(
    "path",
    ["/mlflow/Ajax-Api/2.0/mlflow/runs/get", "/MLFLOW/", "/mlflow/ajax-api/2.0/mlflow/runs/get/",
     "/mlflow/ajax-api/2a0/mlflow/runs/get", "/mlflow/ajax-api/2.0/mlflow/logged-models/a/b", "/mlflow/get-artifact/x",
     "/mlflow/static-files/", "/mlflow/index.html"],
)  # fmt: skip
def test_paths_match_whole_and_in_their_letter_case(path: str) -> None:
    assert not is_listed("GET", path)


def test_encoded_letters_are_forwarded_in_their_one_canonical_form(world: World, upstream: Upstream) -> None:
    seen = ask_raw(world, upstream, "GET", b"/mlflow/ajax%2dapi/2.0/mlflow/%72uns/get")
    assert seen == 200
    assert upstream.asked[0][1] == b"/mlflow/ajax-api/2.0/mlflow/runs/get"


def test_a_path_that_climbs_out_reaches_nothing_on_the_wire(world: World, upstream: Upstream) -> None:
    for raw in (b"/mlflow/static-files/..%2f..%2fv1%2ftraces", b"/mlflow/static-files/%2e%2e/v1/traces", b"/mlflow//v1/traces"):
        assert ask_raw(world, upstream, "GET", raw) == 404
        assert ask_raw(world, upstream, "POST", raw) == 403
    assert upstream.asked == []


def ask_raw(world: World, upstream: Upstream, method: str, raw: bytes) -> int:
    """The status of a request whose path no client library has touched."""
    app = client_of(with_parts(world, mlflow_url=UPSTREAM)).app
    app.state.mlflow_client = upstream.client()  # type: ignore[attr-defined]  # FastAPI's application has a state
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.4"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": httpx.URL("http://x" + raw.decode()).path, "raw_path": raw, "query_string": b"",
        "root_path": "", "headers": [(b"host", b"127.0.0.1:8080"), (b"authorization", f"Bearer {TOKEN}".encode())],
        "server": ("127.0.0.1", 8080), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]  # an ASGI application
    return statuses[0]


def test_credentials_host_and_origin_stay_here_and_cookies_stay_there(reader: TestClient, upstream: Upstream) -> None:
    headers = {
        "Cookie": "tuneyard_session=x", "Origin": "http://127.0.0.1:8080", "Referer": "http://127.0.0.1:8080/mlflow/",
        "X-Forwarded-For": "1.2.3.4", "Connection": "keep-alive, X-Secret", "X-Secret": "1", "If-None-Match": '"1"',
    }  # fmt: skip
    response = reader.get("/mlflow/", headers=headers)
    sent = upstream.asked[0][2]
    assert not {"cookie", "authorization", "origin", "referer", "x-forwarded-for", "x-secret"} & set(sent)
    assert (sent["host"], sent["if-none-match"]) == ("127.0.0.1:5999", '"1"')
    assert not {"set-cookie", "access-control-allow-origin"} & set(response.headers)
    assert (response.headers["etag"], response.headers["cache-control"]) == ('"1"', "max-age=60")
    assert "frame-ancestors 'self'" in response.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        "/mlflow/get-artifact?path=x.html&run_uuid=1",
        "/mlflow/model-versions/get-artifact?path=x",
        "/mlflow/ajax-api/2.0/mlflow-artifacts/artifacts/1/a/artifacts/x.html",
        "/mlflow/ajax-api/2.0/mlflow/logged-models/m-1/artifacts/files?artifact_file_path=x",
        "/mlflow/ajax-api/3.0/mlflow/get-trace-artifact?request_id=1",
    ],
)
def test_artifacts_come_in_a_sandbox_and_as_what_they_say_they_are(reader: TestClient, path: str) -> None:
    headers = reader.get(path).headers
    assert (headers["content-security-policy"], headers["x-content-type-options"]) == ("sandbox", "nosniff")
    assert headers["content-disposition"] == 'attachment; filename="x"'


def test_a_redirect_stays_on_this_address(reader: TestClient, upstream: Upstream) -> None:
    upstream.status, upstream.headers = 302, {"Location": f"{UPSTREAM}/ajax-api?a=b"}
    response = reader.get("/mlflow/", follow_redirects=False)
    assert response.headers["location"] == "/mlflow/ajax-api?a=b"


def test_without_its_slash_the_ui_redirects_to_it(reader: TestClient, upstream: Upstream) -> None:
    response = reader.get("/mlflow", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (308, "/mlflow/")
    assert upstream.asked == []


def test_a_body_that_is_too_large_is_refused(reader: TestClient, upstream: Upstream) -> None:
    response = reader.post("/mlflow/ajax-api/2.0/mlflow/runs/search", content=b" " * (1024 * 1024 + 1))
    assert response.status_code == 413
    assert upstream.asked == []


def test_a_tracking_server_that_is_down_is_a_problem_document(world: World) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with client_of(with_parts(world, mlflow_url=UPSTREAM)) as client:
        client.app.state.mlflow_client = httpx.AsyncClient(transport=httpx.MockTransport(refuse))  # type: ignore[attr-defined]  # FastAPI
        response = client.get("/mlflow/")
    assert response.status_code == 503
    assert response.json()["type"] == "urn:tuneyard:problem:not-ready"
    assert response.headers["Retry-After"]


def test_without_a_tracking_server_the_gateway_says_so(client: TestClient) -> None:
    assert client.get("/mlflow/").status_code == 503


def test_strangers_reach_nothing_through_the_gateway(world: World, upstream: Upstream) -> None:
    with client_of(with_parts(world, mlflow_url=UPSTREAM), token=None) as client:
        client.app.state.mlflow_client = upstream.client()  # type: ignore[attr-defined]  # FastAPI's application has a state
        assert {client.request(method, path).status_code for method, path in READS} == {401}
    assert upstream.asked == []


def test_a_known_query_passes_written_anew(reader: TestClient, upstream: Upstream) -> None:
    body = {"query": QUERY, "variables": {"data": {"runId": "1"}}, "operationName": "Q", "extensions": {"x": 1}}
    assert reader.post("/mlflow/graphql", json=body).status_code == 200
    assert json.loads(upstream.asked[0][3]) == {key: body[key] for key in ("query", "variables", "operationName")}


@pytest.mark.parametrize(
    "query",
    [
        "mutation { mlflowSearchRuns(input: {}) { runs { info { runId } } } }",
        "mutation M { testMutation { output } } query Q { mlflowGetRun { __typename } }",
        "query Q { mlflowGetRun { __typename } } mutation M { testMutation { output } }",
        "#query\nmutation { a: testMutation { output } }",
        "subscription { mlflowGetRun { __typename } }",
        "{ mlflowDeleteRun { __typename } }",
        "{ mlflowGetRun: mlflowDeleteRun { __typename } }",
        "{ __schema { types { name } } }",
        "{ ...F } fragment F on Query { mlflowDeleteRun { __typename } }",
        "{ ... on Query { mlflowDeleteRun { __typename } } }",
        "fragment F on Query { mlflowGetRun { __typename } }",
    ],
)
def test_a_query_that_might_do_more_than_read_is_refused(query: str) -> None:
    with pytest.raises(Forbidden):
        read_only_query(json.dumps({"query": query}).encode())


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b"null", b'{"query": 1}', b'{"query": "{"}', b"\xff", b'{"query": "' + b"{a" * 5000 + b'"}',
     b"[" * 100_000, json.dumps([{"query": QUERY}]).encode(), json.dumps({"query": "{" + " a" * 3000 + "}"}).encode()],
)  # fmt: skip
def test_what_is_no_single_graphql_request_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedDocument):
        read_only_query(body)


def test_of_a_query_given_twice_only_the_one_that_was_checked_goes_on() -> None:
    doubled = f'{{"query": "mutation {{ testMutation {{ output }} }}", "query": {json.dumps(QUERY)}}}'
    assert json.loads(read_only_query(doubled.encode())) == {"query": QUERY}


def test_the_uis_page_leaves_its_assistant_closed(reader: TestClient, upstream: Upstream) -> None:
    upstream.content = b"<html><head><title>MLflow</title></head></html>"
    page = reader.get("/mlflow/", headers={"Accept-Encoding": "gzip"})
    assert "<head><script>localStorage.setItem('mlflow.assistant" in page.text
    assert int(page.headers["Content-Length"]) == len(page.content)
    assert upstream.asked[-1][2]["accept-encoding"] == "identity"
