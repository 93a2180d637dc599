"""A member of one project before a real MLflow server that holds another project's study too.

Every listed route is tried with the other project's ids in every place.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from service.api import gateway_rules
from service.api.gateway_fields import CLOSED
from service.api.identity import sha256_of
from service.domain.access import AccessToken, Project, Role
from service.serve import free_ports
from service.tracking import server
from tests.api.conftest import TOKEN
from tests.builders import NOW, a_study
from tests.integration.serving import RealWorld, serving_api, serving_mlflow

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(300)]

MEMBER = "ty_" + "m" * 43
NOBODY = "ty_" + "n" * 43
_FAR = 7340032
"""The experiment id before the other project's: what follows it is not found in an answer by chance."""


@dataclass(frozen=True)
class Tracked:
    """What MLflow has of a study."""

    study: str
    experiment: str
    parent: str
    run: str
    accuracy: float

    def fill(self, value: Any) -> Any:
        """A value with these ids in their places."""
        if isinstance(value, str):
            return value.format(study=self.study, experiment=self.experiment, run=self.run, accuracy=self.accuracy)
        if isinstance(value, list):
            return [self.fill(one) for one in value]
        return {key: self.fill(one) for key, one in value.items()} if isinstance(value, dict) else value

    def traces(self, project: str) -> list[str]:
        """Bytes that tell of it."""
        return [self.study, self.experiment, self.parent, self.run, str(self.accuracy), f"{project} artifact", f'"{project}"']


@dataclass(frozen=True)
class Place:
    """The API with both projects behind it."""

    own: Tracked
    other: Tracked
    member: httpx.Client
    nobody: httpx.Client
    operator: httpx.Client
    url: str

    def leaks(self, answer: httpx.Response, *asked: str) -> list[str]:
        """What an answer tells of the other project, other than by repeating what was asked."""
        said = answer.text + str(answer.headers)
        for one in sorted(asked, key=len, reverse=True):
            said = said.replace(one, "")
        return [trace for trace in self.other.traces("speech") if trace in said]


def mirrored(world: RealWorld, url: str, project: str, study_id: str, accuracy: float) -> Tracked:
    """A study that has ended with a champion, in MLflow."""
    study = world.store.studies.add(replace(a_study(study_id), project=project))
    world.store.studies.save(study.running(NOW))
    world.store.leases.acquire(study.id, "driver", NOW, timedelta(days=1))
    world.starts(study)
    world.reports(study, 0, [accuracy / 2, accuracy])
    world.ends(study, 0)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    runs = {number: entry.run_id for number, entry in world.store.mirror.mirrored(study.id).items()}
    secret = f"an {project} artifact".encode()
    world.real.upload(runs[0], "model/secret.txt", BytesIO(secret), len(secret))
    experiment = world.store.mirror.experiment(study.id)
    assert experiment is not None
    tracked = Tracked(study.id, experiment, runs[-1], runs[0], accuracy)
    also_there(url, tracked, f"an {project} artifact")
    return tracked


def also_there(url: str, tracked: Tracked, name: str) -> None:
    """What the mirror never writes, put there past it: a logged model, a trace, a data set, and one that the run was given."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": tracked.experiment}}
    trace = {
        "trace_id": f"tr-{tracked.run}", "trace_location": place, "request_time": "2025-10-01T00:00:00Z", "state": "OK",
        "execution_duration": "1s", "request_preview": name,
    }  # fmt: skip
    given = {"name": name, "digest": "d", "source_type": "local", "source": "x"}
    for route, body in (
        ("2.0/mlflow/logged-models", {"experiment_id": tracked.experiment, "name": name}),
        ("2.0/mlflow/runs/log-inputs", {"run_id": tracked.run, "datasets": [{"dataset": given, "tags": []}]}),
        ("3.0/mlflow/datasets/create", {"name": name, "experiment_ids": [tracked.experiment]}),
        ("3.0/mlflow/traces", {"trace": {"trace_info": trace}}),
    ):
        httpx.post(f"{url}/api/{route}", json=body, trust_env=False, timeout=60).raise_for_status()


def client_of(url: str, token: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"{url}/mlflow/", headers=headers, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder, [port] = tmp_path_factory.mktemp("mlflow"), free_ports(1)
    with serving_mlflow(folder, port):
        world = RealWorld(server.url(port))
        for project, secret in (("vision", MEMBER), ("empty", NOBODY)):
            world.store.projects.add(Project(project, NOW))
            world.store.access.add_token(AccessToken(project, "ada", Role.VIEWER, project, NOW, "root"), sha256_of(secret))
        world.store.projects.add(Project("speech", NOW))
        own = mirrored(world, server.url(port), "vision", "seen-abc123", 0.7654321)
        with sqlite3.connect(folder / "mlflow.db", timeout=30) as database:
            database.execute(
                "INSERT INTO experiments (experiment_id, name, lifecycle_stage, workspace) "
                "VALUES (?, 'far', 'deleted', 'default')",
                (_FAR,),
            )
        other = mirrored(world, server.url(port), "speech", "hidden-xyz789", 0.1234567)
        assert int(other.experiment) > _FAR
        with (
            serving_api(world.store, server.url(port), tmp_path_factory.mktemp("home")) as url,
            client_of(url, MEMBER) as member,
            client_of(url, NOBODY) as nobody,
            client_of(url, TOKEN) as operator,
        ):
            yield Place(own, other, member, nobody, operator, url)
        world.real.close()


@dataclass(frozen=True)
class Case:
    """A listed route and what it is asked with.

    `shows` is whether its answer tells of what was asked for, `breaks` whether MLflow answers it with 500.
    """

    method: str
    route: str
    values: Mapping[str, Any]
    shows: bool = True
    breaks: bool = False

    @property
    def is_missing(self) -> bool:
        """Whether MLflow has this route for its UI alone, and not under `api`."""
        return self.route.startswith("api/") and self.route.rpartition("/")[2].startswith(("get-history-bulk", "search-datasets"))

    def __str__(self) -> str:
        return f"{self.method} {self.route}"

    def ask(self, client: httpx.Client, of: Tracked, **more: Any) -> httpx.Response:
        route, values = of.fill(self.route), {**of.fill(dict(self.values)), **more}
        if self.method == "POST":
            return client.post(route, json=values)
        return client.get(route, params=values)


RUN = {"run_id": "{run}"}
METRIC = {"metric_key": "validation/accuracy"}
MODEL = {"name": "{study}"}
VERSION = {**MODEL, "version": "1"}
EXPERIMENTS = {"experiment_ids": ["{experiment}"]}
SECRET = "{experiment}/{run}/artifacts/model/secret.txt"
CASES = [
    Case("GET", "2.0/mlflow/experiments/search", {"filter": "name = '{study}'", "max_results": 5, "view_type": "ALL"}),
    Case("POST", "2.0/mlflow/experiments/search", {"filter": "name = '{study}'", "max_results": 5, "view_type": "ALL"}),
    Case("GET", "2.0/mlflow/experiments/get", {"experiment_id": "{experiment}"}),
    Case("GET", "2.0/mlflow/experiments/get-by-name", {"experiment_name": "{study}"}),
    Case("POST", "2.0/mlflow/experiments/search-datasets", EXPERIMENTS),
    Case("GET", "2.0/mlflow/runs/get", RUN),
    Case("POST", "2.0/mlflow/runs/search", EXPERIMENTS),
    Case("GET", "2.0/mlflow/metrics/get-history", {**RUN, **METRIC}),
    Case("GET", "2.0/mlflow/metrics/get-history-bulk", {**RUN, **METRIC}),
    Case("GET", "2.0/mlflow/metrics/get-history-bulk-interval", {"run_ids": ["{run}"], **METRIC}),
    Case("GET", "2.0/mlflow/artifacts/list", {**RUN, "path": "model"}),
    Case("GET", "2.0/mlflow/registered-models/get", MODEL),
    Case("GET", "2.0/mlflow/registered-models/search", {"filter": "name = '{study}'"}),
    Case("GET", "2.0/mlflow/registered-models/alias", {**MODEL, "alias": "champion"}),
    Case("GET", "2.0/mlflow/registered-models/get-latest-versions", MODEL),
    Case("POST", "2.0/mlflow/registered-models/get-latest-versions", MODEL),
    Case("GET", "2.0/mlflow/model-versions/get", VERSION),
    Case("GET", "2.0/mlflow/model-versions/search", {"filter": "run_id = '{run}'"}),
    Case("GET", "2.0/mlflow/model-versions/get-download-uri", VERSION),
    Case("POST", "2.0/mlflow/logged-models/search", EXPERIMENTS),
    Case("GET", "3.0/mlflow/server-info", {}, shows=False),
    Case("GET", "3.0/mlflow/ui-telemetry", {}, shows=False),
    Case("GET", "3.0/mlflow/datasets/search", EXPERIMENTS),
    Case("POST", "3.0/mlflow/datasets/search", EXPERIMENTS),
    Case(
        "POST",
        "3.0/mlflow/traces/search",
        {"locations": [{"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": "{experiment}"}}]},
    ),
    Case(
        "POST",
        "3.0/mlflow/traces/metrics",
        {
            **EXPERIMENTS,
            "view_type": "TRACES",
            "metric_name": "trace_count",
            "aggregations": [{"aggregation_type": "COUNT"}],
            "start_time_ms": "1700000000000",
            "end_time_ms": 1900000000000,
            "time_interval_seconds": 3600,
        },
        shows=False,
    ),
]
FILES = [
    Case("GET", "get-artifact", {**RUN, "path": "model/secret.txt"}),
    Case("GET", "get-artifact", {"run_uuid": "{run}", "path": "model/secret.txt"}),
    # This server cannot follow a version's `runs:/` to its files.
    Case("GET", "model-versions/get-artifact", {**VERSION, "path": "secret.txt"}, shows=False, breaks=True),
    Case("GET", "api/2.0/mlflow-artifacts/artifacts", {"path": "{experiment}"}),
    Case("GET", f"api/2.0/mlflow-artifacts/artifacts/{SECRET}", {}),
    Case("GET", f"ajax-api/2.0/mlflow-artifacts/artifacts/{SECRET}", {}),
]
PREFIXED = [replace(case, route=f"{api}{case.route}") for api in ("ajax-api/", "api/") for case in CASES] + FILES


@pytest.mark.parametrize("case", PREFIXED, ids=str)
def test_what_is_anothers_is_answered_as_what_never_was(place: Place, case: Case) -> None:
    other, never = place.other, Tracked("never-abc123", "9999999", "e" * 32, "f" * 32, 0.5)
    answer, expected = case.ask(place.member, other), case.ask(place.member, never)
    assert answer.status_code == expected.status_code
    said, awaited = answer.text, expected.text
    for one, two in ((other.run, never.run), (other.experiment, never.experiment), (other.study, never.study)):
        said = said.replace(one, two)
    assert said == awaited
    assert place.leaks(answer, other.study, other.experiment, other.run) == []


@pytest.mark.parametrize("case", [case for case in PREFIXED if case.shows and not case.is_missing], ids=str)
def test_the_other_projects_answer_would_tell_of_it_and_the_own_one_is_shown(place: Place, case: Case) -> None:
    """Or else the tests beside this one would prove nothing."""
    operator, own = case.ask(place.operator, place.other), case.ask(place.member, place.own)
    assert operator.status_code == own.status_code == 200
    assert place.leaks(operator)
    assert place.leaks(own) == []
    plain = case.ask(place.operator, place.own)
    assert own.text.replace("\n", "").replace(" ", "") == plain.text.replace("\n", "").replace(" ", "")


IDS: Mapping[str, Any] = {
    "experiment_id": "{experiment}", "experiment_ids": ["{experiment}"], "experimentIds": ["{experiment}"],
    "experimentId": "{experiment}", "experiment_name": "{study}", "experimentName": "{study}", "run_id": "{run}",
    "run_uuid": "{run}", "run_ids": ["{run}"], "runId": "{run}", "runUuid": "{run}", "runIds": ["{run}"], "name": "{study}",
    "path": SECRET, "request_id": "{run}", "trace_id": "{run}", "trace_ids": ["{run}"], "model_id": "{run}",
    "selected_model_ids": ["{run}"], "filter": "name LIKE '%'", "filter_string": "name LIKE '%'", "dataset_id": "{run}",
    "artifact_file_path": SECRET, "artifact_directory_path": SECRET,
    "locations": [{"mlflow_experiment": {"experiment_id": "{experiment}"}}], "order_by": ["name"],
}  # fmt: skip
HUGE = {"max_results": "99999999999999999999", "view_type": "NONE", "run_view_type": "NONE", "page_token": "eyJvZmZzZXQiOiAwfQ=="}


def attacks(case: Case, own: Tracked, other: Tracked) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests of this route that try to reach the other study: method and httpx's arguments."""
    route_own, route_other = own.fill(case.route), other.fill(case.route)
    mine, theirs, ids = own.fill(dict(case.values)), other.fill(dict(case.values)), other.fill(dict(IDS))
    as_json = {"content-type": "application/json"}
    for values in (theirs, {**mine, **ids}, {**ids, **theirs}, ids, {}, {**mine, **HUGE}, {**HUGE, **ids}):
        yield case.method, {"url": route_other, "params": values}
        for url in {route_own, route_other}:
            yield case.method, {"url": url, "params": values}
            yield case.method, {"url": url, "json": values}
            yield case.method, {"url": url, "params": mine, "json": values}
            yield case.method, {"url": url, "params": values, "json": mine}
            yield case.method, {"url": url, "json": {key: [value] for key, value in values.items()}}
            yield "HEAD", {"url": url, "params": values}
    twice = [*pairs(mine), *pairs(theirs)]
    for order in (twice, twice[::-1]):
        yield case.method, {"url": route_own, "params": order}
        doubled = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in order) + "}"
        yield case.method, {"url": route_own, "content": doubled, "headers": as_json}
    whole = json.dumps(theirs)
    for encoding in ("utf-16", "utf-32", "utf-8-sig", "utf-7"):
        headers = {"content-type": f"application/json; charset={encoding}"}
        yield case.method, {"url": route_own, "content": whole.encode(encoding), "headers": headers}
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/json;boundary=x", "multipart/form-data"):
        yield case.method, {"url": route_own, "content": whole, "headers": {"content-type": kind}}
    yield case.method, {"url": route_own, "content": json.dumps(whole), "headers": as_json}
    yield case.method, {"url": route_other, "params": theirs, "headers": {"Range": "bytes=0-9", "Tuneyard-Project": "vision"}}
    for changed in ("{}%00", "{}/", " {}", "0{}", "{}.0", "./{}", "{}/../{}", "%2e%2e/{}"):
        yield case.method, {"url": route_own, "params": {key: change(value, changed) for key, value in theirs.items()}}


def pairs(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return [(key, one) for key, value in values.items() for one in (value if isinstance(value, list) else [value])]


def change(value: Any, pattern: str) -> Any:
    return pattern.replace("{}", value) if isinstance(value, str) else value


@pytest.mark.parametrize("case", PREFIXED, ids=str)
def test_nothing_of_another_projects_comes_out_wherever_its_ids_stand(place: Place, case: Case) -> None:
    other = place.other
    asked = [other.study, other.experiment, other.run]
    for method, arguments in attacks(case, place.own, other):
        answer = place.member.request(method, **arguments)
        assert place.leaks(answer, *asked) == [], (method, arguments)
        assert answer.status_code < 500 or case.breaks, (method, arguments, answer.text)
        assert_lengths_say_nothing(place, answer)


def assert_lengths_say_nothing(place: Place, answer: httpx.Response) -> None:
    """A HEAD has no body to look at, and says with its length what the body would have said."""
    if answer.request.method == "HEAD" and answer.is_success:
        same = place.member.request("GET", answer.request.url)
        assert place.leaks(same) == []
        assert answer.headers.get("content-length", same.headers["content-length"]) == same.headers["content-length"]


CLOSED_PATHS = [
    "2.0/mlflow/logged-models/{model}", "2.0/mlflow/logged-models/{model}/artifacts/directories",
    "2.0/mlflow/logged-models/{model}/artifacts/files?artifact_file_path=x", "2.0/mlflow/traces?experiment_ids={experiment}",
    "2.0/mlflow/traces/{trace}/info", "2.0/mlflow/get-trace-artifact?request_id={trace}",
    "3.0/mlflow/traces/get?trace_id={trace}", "3.0/mlflow/traces/batchGet?trace_ids={trace}", "3.0/mlflow/traces/{trace}",
    "3.0/mlflow/get-trace-artifact?request_id={trace}", "3.0/mlflow/datasets/{dataset}",
    "3.0/mlflow/datasets/{dataset}/experiment-ids", "3.0/mlflow/datasets/{dataset}/records",
]  # fmt: skip


@pytest.mark.parametrize("path", CLOSED_PATHS)
def test_what_cannot_be_told_apart_is_not_there(place: Place, path: str) -> None:
    body = {"experiment_ids": [place.other.experiment]}
    [model] = place.operator.post("ajax-api/2.0/mlflow/logged-models/search", json=body).json()["models"]
    [dataset] = place.operator.post("ajax-api/3.0/mlflow/datasets/search", json=body).json()["datasets"]
    ids = {"model": model["info"]["model_id"], "dataset": dataset["dataset_id"], "trace": f"tr-{place.other.run}"}
    answer = place.member.get("ajax-api/" + path.format(experiment=place.other.experiment, **ids))
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert place.leaks(answer) == []


def test_traces_are_not_there_by_their_ids_when_many_are_asked_for(place: Place) -> None:
    answer = place.member.post("ajax-api/3.0/mlflow/traces/batchGetInfos", json={"trace_ids": [f"tr-{place.other.run}"]})
    assert (answer.status_code, place.leaks(answer)) == (404, [])


def test_every_listed_route_is_tried_or_closed() -> None:
    listed = {
        *(("GET", f"2.0/mlflow/{rest}") for rest in gateway_rules._GET_2),
        *(("POST", f"2.0/mlflow/{rest}") for rest in gateway_rules._POST_2),
        *(("GET", f"3.0/mlflow/{rest}") for rest in gateway_rules._GET_3),
        *(("POST", f"3.0/mlflow/{rest}") for rest in gateway_rules._POST_3),
    }
    left = listed - {(case.method, case.route) for case in CASES}
    assert left == {one for one in listed if is_closed(one) and one not in {(case.method, case.route) for case in CASES}}
    assert len(left) == 14


def is_closed(route: tuple[str, str]) -> bool:
    return route[1].replace(".0/mlflow", "").startswith(tuple(CLOSED))


GRAPHQL: Mapping[str, tuple[str, Any]] = {
    "variables": (
        """query Q($data: MlflowGetRunInput!) @component(name: "x") { mlflowGetRun(input: $data) {
            apiError { message } run {
                modelVersions { name version } info { runId runName experimentId } experiment { name experimentId }
                data { metrics { key value } params { key value } tags { key value } }
            }
        } }""",
        {"data": {"runId": "{run}"}},
    ),
    "a literal": ('{ mlflowGetRun(input: {runId: "{run}"}) { run { info { runId experimentId } experiment { name } } } }', {}),
    "another spelling": (
        "query($r: String) { mlflowGetRun(input: {runUuid: $r}) { run { info { runId } data { metrics { value } } } } }",
        {"r": "{run}"},
    ),
    "a default": (
        """query($r: MlflowGetRunInput = {runId: "{run}"}) { mlflowGetRun(input: $r) { run { ...R } } }
        fragment R on MlflowRunExtension { info { runId } experiment { name } modelVersions { name } }""",
        {},
    ),
    "aliases": (
        """query($e: String) {
            a: mlflowGetExperiment(input: {experimentId: $e}) { experiment { name tags { key value } } }
            b: mlflowGetExperiment(input: {experimentId: "{experiment}"}) { experiment { name artifactLocation } }
        }""",
        {"e": "{experiment}"},
    ),
    "lists": (
        """query S($data: MlflowSearchRunsInput!) {
            mlflowSearchRuns(input: $data) { runs { info { runId } experiment { name } } }
        }""",
        {"data": {"experimentIds": ["{experiment}"], "maxResults": 10}},
    ),
    "nested variables": (
        """query($e: String, $l: [String] = ["0"]) {
            a: mlflowSearchRuns(input: {experimentIds: ["0", $e]}) { runs { info { runId } } }
            b: mlflowSearchRuns(input: {experimentIds: $l}) { runs { info { runId } } }
        }""",
        {"e": "{experiment}", "l": "{experiment}"},
    ),
    "curves": (
        """query B($data: MlflowGetMetricHistoryBulkIntervalInput!) {
            mlflowGetMetricHistoryBulkInterval(input: $data) { metrics { runId value } }
        }""",
        {"data": {"runIds": ["{run}"], "metricKey": "validation/accuracy", "maxResults": 100}},
    ),
    "files": ('{ mlflowListArtifacts(input: {runId: "{run}", path: "model"}) { rootUri files { path } } }', {}),
}


def graphql(client: httpx.Client, of: Tracked, query: str, variables: Any) -> httpx.Response:
    for name in ("run", "experiment"):
        query = query.replace("{" + name + "}", getattr(of, name))
    return client.post("graphql", json={"query": query, "variables": of.fill(variables)})


@pytest.mark.parametrize("name", GRAPHQL)
def test_queries_show_what_is_the_projects_and_nothing_of_others(place: Place, name: str) -> None:
    query, variables = GRAPHQL[name]
    operator = graphql(place.operator, place.other, query, variables)
    assert operator.json()["errors"] is None
    assert place.leaks(operator)
    own = graphql(place.member, place.own, query, variables)
    assert own.json() == graphql(place.operator, place.own, query, variables).json()
    answer = graphql(place.member, place.other, query, variables)
    assert answer.status_code == 200
    assert place.leaks(answer) == []
    never = replace(place.other, run="f" * 32, experiment="9999999")
    assert graphql(place.member, never, query, variables).text == answer.text


def test_a_query_for_model_versions_is_closed(place: Place) -> None:
    query = "{ mlflowSearchModelVersions(input: {filter: \"name LIKE '%'\"}) { modelVersions { name } } }"
    answer = place.member.post("graphql", json={"query": query})
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    assert place.leaks(answer) == []


SEARCHES = [case for case in CASES if "filter" in case.values]


@pytest.mark.parametrize("case", SEARCHES, ids=str)
def test_a_search_without_words_finds_what_is_the_projects_and_leaves_no_trace_of_more(place: Place, case: Case) -> None:
    everything = replace(case, route=f"ajax-api/{case.route}", values={"max_results": 1})
    assert "next_page_token" in everything.ask(place.operator, place.own).json()
    found = everything.ask(place.member, place.own)
    [items] = found.json().values()
    assert [one["name"] for one in items] == [place.own.study]
    assert place.leaks(found) == []
    assert everything.ask(place.nobody, place.own).json() == {}
    for token in ("eyJvZmZzZXQiOiAxfQ==", "eyJvZmZzZXQiOiA1MDB9"):
        assert everything.ask(place.member, place.own, page_token=token).json() == {}


FILTERS = [
    "name = '{study}'", "name LIKE '%'", "name LIKE '%' -- ", "name = 'x' OR name LIKE '%'", "; name LIKE '%'", "/* */",
    "tags.`tuneyard.project` = 'speech'", "tag.`tuneyard.project` = 'speech'", "tags.\"tuneyard.project\" = 'speech'",
    "tags.tuneyard.project LIKE '%'", "tags.`tuneyard.project` != 'vision'", "1 = 1) OR (1 = 1", "' OR ''='", "AND name LIKE '%'",
]  # fmt: skip


@pytest.mark.parametrize("case", SEARCHES, ids=str)
@pytest.mark.parametrize("clauses", FILTERS)
def test_no_filter_reaches_over_the_projects_edge(place: Place, case: Case, clauses: str) -> None:
    asked = place.other.fill(clauses)
    answer = replace(case, route=f"ajax-api/{case.route}", values={"filter": asked}).ask(place.member, place.own)
    assert place.leaks(answer, asked, "speech") == []
    assert answer.status_code in {200, 400}


def test_mlflows_own_client_reads_a_project_as_if_there_were_no_other(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", MEMBER)
    client = MlflowClient(tracking_uri=f"{place.url}/mlflow", registry_uri=f"{place.url}/mlflow")
    assert [one.name for one in client.search_experiments()] == [place.own.study]
    experiment = client.get_experiment_by_name(place.own.study)
    assert experiment is not None
    runs = client.search_runs([place.own.experiment, place.other.experiment])
    assert {run.info.run_id for run in runs} == {place.own.run, place.own.parent}
    assert [point.value for point in client.get_metric_history(place.own.run, "validation/accuracy")][-1] == place.own.accuracy
    assert [model.name for model in client.search_registered_models()] == [place.own.study]
    assert [version.run_id for version in client.search_model_versions()] == [place.own.run]
    assert client.get_model_version_by_alias(place.own.study, "champion").run_id == place.own.run
    folder = Path(client.download_artifacts(place.own.run, "model", str(tmp_path)))
    assert (folder / "secret.txt").read_text() == "an vision artifact"
    assert client.get_experiment_by_name(place.other.study) is None
    with pytest.raises(MlflowException, match=f"Run with id={place.other.run} not found"):
        client.get_run(place.other.run)
    with pytest.raises(MlflowException, match="not found"):
        client.get_registered_model(place.other.study)


def test_who_sees_every_project_may_look_at_one(place: Place) -> None:
    narrowed = {"Tuneyard-Project": "vision"}
    found = place.operator.get("api/2.0/mlflow/experiments/search?max_results=9", headers=narrowed)
    assert [one["name"] for one in found.json()["experiments"]] == [place.own.study]
    query = f"api/2.0/mlflow/runs/get?run_id={place.other.run}"
    assert place.operator.get(query).status_code == 200
    assert place.operator.get(query, headers=narrowed).status_code == 404


def test_mlflow_itself_lets_nobody_climb_out_of_a_runs_artifacts(place: Place) -> None:
    """The gateway refuses such paths before; this is the wall behind it."""
    climbing = [f"../../../{place.other.fill(SECRET)}", f"model/%2e%2e/%2e%2e/%2e%2e/{place.other.experiment}"]
    for path in (*climbing, f"/{place.other.fill(SECRET)}", f"file:///{place.other.fill(SECRET)}"):
        for route in ("get-artifact", "api/2.0/mlflow/artifacts/list"):
            for client in (place.operator, place.member):
                answer = client.get(route, params={"run_id": place.own.run, "path": path})
                assert answer.status_code in {400, 404}, (route, path)
                assert not re.search("an speech artifact", answer.text)
