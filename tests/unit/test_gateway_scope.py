"""What becomes of a request to MLflow of who sees one project: a table of attempts, each with what is sent on or answered."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import pytest

from service.api.gateway_answers import is_looked_through, looked_through
from service.api.gateway_fields import CLOSED, fields_of, name_of
from service.api.gateway_graphql import narrowed_query
from service.api.gateway_rules import is_listed
from service.api.gateway_scope import Asked, within
from service.api.gateway_values import Refusal
from service.domain.errors import Forbidden

RUN, OTHER, NO_RUN = "a" * 32, "b" * 32, "0" * 32
CLAUSE = "tags.`tuneyard.project` = 'vision'"
V2, V3 = "/mlflow/ajax-api/2.0/mlflow/", "/mlflow/ajax-api/3.0/mlflow/"
FILES = "/mlflow/api/2.0/mlflow-artifacts/artifacts"


@dataclass
class FakeSees:
    """A project with experiment 7, one run and one study; `asked` is how many ids were looked up at a time."""

    project: str = "vision"
    asked: list[int] = field(default_factory=list)

    def experiments(self, ids: Collection[str]) -> frozenset[str]:
        return self._of(ids, "7")

    def runs(self, ids: Collection[str]) -> frozenset[str]:
        return self._of(ids, RUN)

    def studies(self, ids: Collection[str]) -> frozenset[str]:
        return self._of(ids, "seen-abc123")

    def _of(self, ids: Collection[str], own: str) -> frozenset[str]:
        self.asked.append(len(ids))
        return frozenset({own} & set(ids))


def read(route: str, query: str = "", sees: FakeSees | None = None) -> Mapping[str, list[str]]:
    """What is sent on of a GET's query."""
    path = route if route.startswith("/") else V2 + route
    sent = within(Asked("GET", path, query.encode()), sees or FakeSees())
    assert (sent.method, sent.path, sent.body) == ("GET", path, b"")
    return parse_qs(sent.query.decode(), keep_blank_values=True)


def posted(route: str, body: Any, query: bytes = b"") -> Any:
    """What is sent on of a POST's body."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = within(Asked("POST", route if route.startswith("/") else V2 + route, query, content), FakeSees())
    assert (sent.method, sent.query) == ("POST", b"")
    return json.loads(sent.body)


READ = [
    ("runs/get", f"run_id={RUN}", {"run_id": [RUN]}),
    ("runs/get", f"run_uuid={RUN}", {"run_id": [RUN]}),
    ("runs/get", f"run_id=&run_uuid={RUN}", {"run_id": [RUN]}),
    ("runs/get", f"run_id={RUN}&run_uuid={OTHER}", {"run_id": [RUN]}),
    ("runs/get", f"run_id={RUN}&run_id={OTHER}", {"run_id": [RUN]}),
    ("runs/get", f"run_id={RUN}&run%5Fid={OTHER}&RUN_ID={OTHER}&run_id[]={OTHER}&runId={OTHER}", {"run_id": [RUN]}),
    ("runs/get", f"run_id={RUN};run_id={OTHER}", None),
    ("experiments/get", "experiment_id=7&experiment_id=8", {"experiment_id": ["7"]}),
    ("experiments/get", "experiment_id=7&callback=x&method=POST", {"experiment_id": ["7"]}),
    ("metrics/get-history-bulk", f"run_id={RUN}&run_id={OTHER}&metric_key=a", {"run_id": [RUN, NO_RUN], "metric_key": ["a"]}),
    ("metrics/get-history-bulk", f"run_id={OTHER}", {"run_id": [NO_RUN]}),
    ("metrics/get-history-bulk", "metric_key=a", {"run_id": [NO_RUN], "metric_key": ["a"]}),
    ("metrics/get-history-bulk-interval", f"run_ids={OTHER}&run_ids={RUN}", {"run_ids": [NO_RUN, RUN]}),
    ("artifacts/list", f"run_id={RUN}&path=", {"run_id": [RUN]}),
    ("artifacts/list", f"run_id={RUN}&path=model/a b.json", {"run_id": [RUN], "path": ["model/a b.json"]}),
    ("experiments/search", "", {"filter": [CLAUSE]}),
    ("experiments/search", "filter=&max_results=5", {"filter": [CLAUSE], "max_results": ["5"]}),
    ("experiments/search", "filter=name+%3D+'a'", {"filter": [f"{CLAUSE} AND name = 'a'"]}),
    ("experiments/search", "filter=name+%3D+'a'&filter=x", {"filter": [f"{CLAUSE} AND name = 'a'"]}),
    ("experiments/search", "order_by=a&order_by=b", {"filter": [CLAUSE], "order_by": ["a", "b"]}),
    ("registered-models/search", "filter=name+%3D+'hidden'", {"filter": [f"{CLAUSE} AND name = 'hidden'"]}),
    ("model-versions/search", "filter=--", {"filter": [f"{CLAUSE} AND --"]}),
    ("registered-models/get", "name=seen-abc123&name=hidden", {"name": ["seen-abc123"]}),
    ("model-versions/get", "name=seen-abc123&version=1", {"name": ["seen-abc123"], "version": ["1"]}),
    (V3 + "datasets/search", "", {"experiment_ids": ["-1"]}),
    (V3 + "datasets/search", "experiment_ids=7&experiment_ids=8", {"experiment_ids": ["7", "-1"]}),
    (V3 + "server-info", "x=1", {}),
    ("/mlflow/", "workspace=x", {}),
    ("/mlflow/static-files/static/js/main.js", "v=1", {}),
    ("/mlflow/get-artifact", f"path=model/a.json&run_uuid={RUN}&run_id=", {"path": ["model/a.json"], "run_id": [RUN]}),
    (FILES, "path=7/a/artifacts&path=8", {"path": ["7/a/artifacts"]}),
    (f"{FILES}/7/a/artifacts/b%20c", "path=8", {}),
]  # fmt: skip


@pytest.mark.parametrize(("route", "query", "sent"), READ)
def test_only_what_was_understood_and_is_the_projects_is_sent_on(route: str, query: str, sent: Any) -> None:
    if sent is None:
        with pytest.raises(Refusal, match="not found"):
            read(route, query)
    else:
        assert read(route, query) == sent


MISSING = [
    ("runs/get", f"run_id={OTHER}", f"Run with id={OTHER} not found"),
    ("runs/get", f"run_id={OTHER}&run_id={RUN}", f"Run with id={OTHER} not found"),
    ("runs/get", f"run_id={OTHER}&run_uuid={RUN}", f"Run with id={OTHER} not found"),
    ("runs/get", f"run_id={RUN.upper()}", f"Run with id={RUN.upper()} not found"),
    ("runs/get", f"run_id=%20{RUN}", f"Run with id= {RUN} not found"),
    ("runs/get", "run_id=" + "a" * 100_000, "Run with id=" + "a" * 100_000 + " not found"),
    ("runs/get", "run_id=%25", "Run with id=% not found"),
    ("experiments/get", "experiment_id=8", "No Experiment with id=8 exists"),
    ("experiments/get", "experiment_id=07", "No Experiment with id=07 exists"),
    ("experiments/get", "experiment_id=%EF%BC%97", "No Experiment with id=\uff17 exists"),
    ("experiments/get", "experiment_id=0", "No Experiment with id=0 exists"),
    ("experiments/get-by-name", "experiment_name=hidden", "Could not find experiment with name 'hidden'"),
    ("experiments/get-by-name", "experiment_name=Default", "Could not find experiment with name 'Default'"),
    ("registered-models/get", "name=hidden", "Registered Model with name=hidden not found"),
    ("registered-models/alias", "name=hidden&alias=champion", "Registered Model with name=hidden not found"),
    ("model-versions/get-download-uri", "name=hidden&version=1", "Registered Model with name=hidden not found"),
    ("/mlflow/model-versions/get-artifact", "name=hidden&version=1&path=a", "Registered Model with name=hidden not found"),
    ("/mlflow/get-artifact", f"path=a&run_id={OTHER}", f"Run with id={OTHER} not found"),
    (FILES, "", "No such artifact"),
    (FILES, "path=8", "No such artifact"),
    (FILES, "path=77/a", "No such artifact"),
    (FILES, "path=8&path=7", "No such artifact"),
    (f"{FILES}/8/a/artifacts/b", "path=7", "No such artifact"),
    (f"{FILES}/%20/7", "", "No such artifact"),
    ("logged-models/m-1", "", "There is nothing here for who sees one project."),
    (V3 + "traces/tr-1", "", "There is nothing here for who sees one project."),
    (V3 + "traces/batchGet", "trace_ids=tr-1&experiment_ids=7", "There is nothing here for who sees one project."),
    (V3 + "datasets/d-1", "", "There is nothing here for who sees one project."),
]  # fmt: skip


@pytest.mark.parametrize(("route", "query", "message"), MISSING)
def test_what_is_anothers_is_answered_as_mlflow_answers_what_never_was(route: str, query: str, message: str) -> None:
    with pytest.raises(Refusal) as raised:
        read(route, query)
    assert raised.value.status == 404
    assert raised.value.document == {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": message}


INVALID = [
    ("runs/get", ""),
    ("runs/get", "run_id=a%00b"),
    ("runs/get", "run_id=%ff"),
    ("runs/get", "run_id=%ed%a0%80"),
    ("experiments/get", "experimentId=7"),
    ("experiments/search", "max_results=99999999999999999999"),
    ("experiments/search", "max_results=2147483648"),
    ("experiments/search", "max_results=\u0665".encode().decode("latin-1")),
    ("experiments/search", "max_results=5.0"),
    ("experiments/search", "max_results="),
    ("experiments/search", "view_type=all%20"),
    ("experiments/search", "filter=name%00"),
    ("experiments/search", "&".join(f"a{number}=1" for number in range(6000))),
    ("metrics/get-history-bulk", "&".join(["run_id=a"] * 2001)),
    ("artifacts/list", f"run_id={RUN}&path=../{OTHER}"),
    ("artifacts/list", f"run_id={RUN}&path=model/%2e%2e/%2e%2e/x"),
    ("artifacts/list", f"run_id={RUN}&path=%252e%252e/x"),
    ("artifacts/list", f"run_id={RUN}&path=/etc/passwd"),
    ("artifacts/list", f"run_id={RUN}&path=file:///etc/passwd"),
    ("artifacts/list", f"run_id={RUN}&path=..%5cx"),
    ("artifacts/list", f"run_id={RUN}&path=a//b"),
    ("artifacts/list", f"run_id={RUN}&path=./a"),
    ("artifacts/list", f"run_id={RUN}&path=a%00"),
    ("/mlflow/get-artifact", f"run_id={RUN}&path=a%0ab"),
    (FILES, "path=7/../8"),
    (FILES, "path=./8"),
]


@pytest.mark.parametrize(("route", "query"), INVALID)
def test_what_can_be_read_in_two_ways_or_in_none_is_refused(route: str, query: str) -> None:
    with pytest.raises(Refusal) as raised:
        read(route, query)
    assert (raised.value.status, raised.value.document["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def place_of(experiment: Any) -> dict[str, Any]:
    return {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}


POSTED: list[tuple[str, Any, Any]] = [
    ("runs/search", {"experiment_ids": ["8", "7"], "filter": "a"}, {"experiment_ids": ["-1", "7"], "filter": "a"}),
    ("runs/search", {"experiment_ids": []}, {"experiment_ids": ["-1"]}),
    ("runs/search", {}, {"experiment_ids": ["-1"]}),
    ("runs/search", b"", {"experiment_ids": ["-1"]}),
    ("runs/search", {"experiment_ids": "7", "page_token": None}, {"experiment_ids": ["7"]}),
    ("runs/search", {"experimentIds": ["8"], "experiment_ids": ["7"]}, {"experiment_ids": ["7"]}),
    ("runs/search", b'{"experiment_ids": ["8"], "experiment_ids": ["7"]}', {"experiment_ids": ["7"]}),
    ("runs/search", b'{"experiment_ids": ["7"], "experiment_ids": ["8"]}', {"experiment_ids": ["-1"]}),
    ("runs/search", json.dumps({"experiment_ids": ["7"]}).encode("utf-16"), {"experiment_ids": ["7"]}),
    ("runs/search", {"run_view_type": "ALL", "experiment_ids": ["7"]}, {"experiment_ids": ["7"], "run_view_type": "ALL"}),
    ("experiments/search", {"filter": "a", "view_type": 3}, {"filter": f"{CLAUSE} AND a", "view_type": "3"}),
    ("registered-models/get-latest-versions", {"name": "seen-abc123", "stages": ["x"]}, {"name": "seen-abc123", "stages": ["x"]}),
    (
        "logged-models/search",
        {"experiment_ids": ["7"], "order_by": [{"field_name": "a", "ascending": True, "dataset_name": None}], "datasets": None},
        {"experiment_ids": ["7"], "order_by": [{"field_name": "a", "ascending": True}]},
    ),
    (V3 + "traces/search", {"locations": [place_of("7"), place_of("8")]}, {"locations": [place_of("7"), place_of("-1")]}),
    (V3 + "traces/search", {"max_results": 1}, {"locations": [place_of("-1")], "max_results": 1}),
]


@pytest.mark.parametrize(("route", "body", "sent"), POSTED)
def test_a_body_is_written_anew_from_what_was_understood(route: str, body: Any, sent: Any) -> None:
    assert posted(route, body, query=b"experiment_ids=8") == sent


def test_what_keeps_a_request_within_the_project_comes_first() -> None:
    body = {"max_results": 1, "order_by": ["a"], "filter": "b", "experiment_ids": ["7"]}
    assert next(iter(posted("runs/search", body))) == "experiment_ids"


@pytest.mark.parametrize(
    "body",
    [
        b"[]", b"null", b'"{}"', b"{", b"\xff", b"[" * 100_000, b"1" * 5000,
        {"experiment_ids": [7]}, {"experiment_ids": {"0": "7"}}, {"experiment_ids": [["7"]]}, {"experiment_ids": [None]},
        {"experiment_ids": ["7\x00"]}, b'{"experiment_ids": ["\\ud800"]}', {"experiment_ids": ["7"], "max_results": True},
        {"experiment_ids": ["7"], "max_results": 1.5}, {"experiment_ids": ["7"], "max_results": 2**31},
        {"experiment_ids": ["7"], "run_view_type": ["ALL"]}, {"experiment_ids": ["7"], "filter": {"a": 1}},
        {"experiment_ids": ["7"] * 2001},
    ],
)  # fmt: skip
def test_a_body_of_the_wrong_types_is_refused(body: Any) -> None:
    with pytest.raises(Refusal) as raised:
        posted("runs/search", body)
    assert raised.value.status == 400


@pytest.mark.parametrize("locations", ["7", [1], [{}], [{"mlflow_experiment": None}], [{"inference_table": {"x": "7"}}], 7])
def test_places_of_traces_are_experiments(locations: Any) -> None:
    with pytest.raises(Refusal):
        posted(V3 + "traces/search", {"locations": locations})


def test_ids_are_looked_up_at_once_and_very_long_ones_not_at_all() -> None:
    sees = FakeSees()
    read("metrics/get-history-bulk", "&".join([f"run_id={RUN}", f"run_id={OTHER}", "run_id=" + "a" * 300]), sees)
    assert sees.asked == [2]


def test_routes_that_cannot_be_checked_say_why() -> None:
    assert all(reason for reason in CLOSED.values())
    for begin in CLOSED:
        version, _, rest = begin.partition("/")
        path = f"/mlflow/ajax-api/{version}.0/mlflow/{rest}" + ("x" if begin.endswith("/") else "")
        assert fields_of("GET", path) is None
        assert is_listed("GET", path) or is_listed("GET", path + "/get")
        assert name_of(path).startswith(begin)


def search_of(query: str, variables: Any = None) -> tuple[str, Any]:
    sent = json.loads(narrowed_query(json.dumps({"query": query, "variables": variables}).encode(), FakeSees()))
    assert set(sent) == {"query", "variables"}
    return sent["query"], sent["variables"]


GRAPHQL = [
    (f'{{ mlflowGetRun(input: {{runId: "{RUN}"}}) {{ run {{ __typename }} }} }}', None, {"runId": RUN}),
    (f'{{ mlflowGetRun(input: {{runId: "{OTHER}"}}) {{ run {{ __typename }} }} }}', None, {"runId": NO_RUN}),
    (f'{{ mlflowGetRun(input: {{runId: "", runUuid: "{OTHER}"}}) {{ run {{ __typename }} }} }}', None, {"runId": NO_RUN}),
    ("query($a: X) { mlflowGetRun(input: $a) { run { __typename } } }", {"a": {"runId": OTHER}}, {"runId": NO_RUN}),
    ("query($a: X) { mlflowGetRun(input: {runId: $a}) { run { __typename } } }", {"a": RUN, "b": OTHER}, {"runId": RUN}),
    (f'query($a: X = "{OTHER}") {{ mlflowGetRun(input: {{runId: $a}}) {{ run {{ __typename }} }} }}', {}, {"runId": NO_RUN}),
    (
        'query($a: X, $l: Y) { mlflowSearchRuns(input: {experimentIds: ["7", $a], maxResults: 3, filter: null}) { x } }',
        {"a": "8"},
        {"experimentIds": ["7", "-1"], "maxResults": 3},
    ),
    (
        '{ mlflowSearchRuns(input: {experimentIds: "8", runViewType: ALL}) { x } }',
        None,
        {"experimentIds": ["-1"], "runViewType": "ALL"},
    ),
    ("{ mlflowSearchRuns(input: {}) { x } }", None, {"experimentIds": ["-1"]}),
    ('{ mlflowGetExperiment(input: {experimentId: "8"}) { x } }', None, {"experimentId": "-1"}),
    (
        f'{{ mlflowListArtifacts(input: {{runId: "{RUN}", path: "model"}}) {{ x }} }}',
        None,
        {"runId": RUN, "path": "model"},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("query", "variables", "value"), GRAPHQL)
def test_a_querys_input_is_one_variable_of_checked_values(query: str, variables: Any, value: Any) -> None:
    sent, values = search_of(query, variables)
    assert values == {"input0": value}
    assert "(input: $input0)" in sent
    assert OTHER not in sent
    assert '"8"' not in sent


def test_aliases_and_fragments_stay_and_each_input_is_checked() -> None:
    sent, values = search_of(
        f'query Q @component(name: "x") {{ a: mlflowGetRun(input: {{runId: "{RUN}"}}) {{ ...F }} '
        f'b: mlflowGetRun(input: {{runId: "{OTHER}"}}) {{ run {{ info {{ runId }} }} }} __typename }} '
        "fragment F on MlflowGetRunResponse { run { info { runName } } }"
    )
    assert values == {"input0": {"runId": RUN}, "input1": {"runId": NO_RUN}}
    assert sent.startswith("query Q($input0: MlflowGetRunInput, $input1: MlflowGetRunInput) {\n  a: mlflowGetRun(input: $input0)")
    assert "fragment F on MlflowGetRunResponse" in sent
    assert "@component" not in sent


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("{ mlflowGetRun { __typename } }", None),
        ("{ mlflowGetRun(input: $missing) { __typename } }", None),
        ('{ mlflowGetRun(input: "x") { __typename } }', None),
        ("{ mlflowGetRun(input: {}) { __typename } }", None),
        (f'{{ mlflowGetRun(input: {{runId: "{RUN}"}}, other: 1) {{ __typename }} }}', None),
        (f'{{ mlflowGetRun(input: {{runId: "{RUN}"}}, input: {{runId: "{OTHER}"}}) {{ __typename }} }}', None),
        (f'{{ mlflowGetRun(input: {{runId: "{RUN}"}}) @include(if: true) {{ __typename }} }}', None),
        (f'{{ mlflowGetRun(input: {{runId: "{RUN}"}}) {{ run @skip(if: false) {{ info {{ runId }} }} }} }}', None),
        ("query($a: X) { mlflowGetRun(input: $a) { __typename } }", ["x"]),
        ("query($a: X) { mlflowGetRun(input: $a) { __typename } }", {"a": {"runId": 7}}),
        ('{ mlflowListArtifacts(input: {runId: "' + RUN + '", path: "../x"}) { __typename } }', None),
        ('{ mlflowSearchModelVersions(input: {filter: ""}) { __typename } }', None),
    ],
)
def test_a_query_that_is_not_understood_is_refused(query: str, variables: Any) -> None:
    with pytest.raises(Refusal):
        search_of(query, variables)


def test_fragments_at_the_root_are_refused_as_for_everybody() -> None:
    with pytest.raises(Forbidden):
        search_of("{ ...F } fragment F on Query { mlflowGetRun { __typename } }")


def tagged(name: str, project: str = "vision", **more: Any) -> dict[str, Any]:
    return {"name": name, "tags": [{"key": "other"}, {"key": "tuneyard.project", "value": project}], **more}


def shown(route: str, answer: Any) -> Any:
    assert is_looked_through(V2 + route)
    return json.loads(looked_through(V2 + route, json.dumps(answer).encode(), FakeSees()))


@pytest.mark.parametrize(
    ("route", "key"), [("registered-models/search", "registered_models"), ("model-versions/search", "model_versions")]
)
def test_of_an_answer_only_the_projects_names_are_left(route: str, key: str) -> None:
    own, gone = tagged("seen-abc123"), tagged("hidden")
    assert shown(route, {key: [own, gone], "next_page_token": "t", "total": 3}) == {key: [own], "next_page_token": "t"}
    assert shown(route, {key: [gone]}) == shown(route, {}) == {}


def test_of_experiments_only_the_projects_are_left() -> None:
    own, gone = tagged("a", experiment_id="7"), tagged("b", experiment_id="8")
    assert shown("experiments/search", {"experiments": [gone, own]}) == {"experiments": [own]}


def test_where_the_clause_did_not_hold_no_page_follows() -> None:
    own, other = tagged("seen-abc123"), tagged("hidden", "speech")
    found = shown("registered-models/search", {"registered_models": [own, other], "next_page_token": "t"})
    assert found == {"registered_models": [own]}


def test_an_experiment_found_by_name_that_is_not_the_projects_was_not_found() -> None:
    assert shown("experiments/get-by-name", {"experiment": tagged("a", experiment_id="7")})
    with pytest.raises(Refusal, match="Could not find experiment with name 'a'"):
        shown("experiments/get-by-name", {"experiment": tagged("a", experiment_id="8")})
