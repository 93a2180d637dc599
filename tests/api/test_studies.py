import json
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from service.api.schemas import StudyPage, StudyView
from service.domain.errors import InvalidDefinition, StaleWrite, Violation
from service.domain.ports import Change, StudyQuery, StudyStore
from service.domain.study import Study, StudyReason
from service.domain.trial import Attempt, AttemptOutcome
from tests.analysed import an_analysis
from tests.api.conftest import World, client_of, with_parts
from tests.builders import NOW, a_document, a_study, a_trial

TYPE = "urn:tuneyard:problem:"


def stored(world: World) -> list[Study]:
    return list(world.parts.store.studies.find(StudyQuery()).items)


def test_a_posted_study_is_queued_and_found_at_its_location(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=a_document())
    assert answer.status_code == 201
    assert answer.json()["state"] == "queued"
    assert client.get(answer.headers["Location"]).json() == answer.json()


@pytest.mark.parametrize("content_type", ["application/yaml", "application/x-yaml", "text/yaml", None])
def test_a_study_is_posted_as_yaml(client: TestClient, content_type: str | None) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post("/v1/studies", content=yaml.safe_dump(a_document()).encode(), headers=headers)
    assert answer.status_code == 201
    assert StudyView.model_validate_json(answer.content).definition.space.keys() == {"learning_rate"}


def test_what_the_service_answers_can_be_read_as_the_view(client: TestClient) -> None:
    answer = client.post("/v1/studies", json=a_document(budget={"wall_clock": "1h30m"}))
    view = StudyView.model_validate_json(answer.content)
    assert view.definition.budget.wall_clock == 5400
    assert view.created_at == NOW
    assert view.links.self == answer.headers["Location"]


def test_an_invalid_definition_is_refused_by_field_and_not_stored(client: TestClient, world: World) -> None:
    space = {"learning_rate": {"kind": "float", "low": 0.1, "high": 20.0}, "wings": {"kind": "int", "low": 1, "high": 2}}
    answer = client.post("/v1/studies", json=a_document(space=space))
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == TYPE + "invalid-definition"
    assert [violation["pointer"] for violation in problem["violations"]] == ["/space/learning_rate/high", "/space/wings"]
    assert all(violation["detail"] for violation in problem["violations"])
    assert stored(world) == []


def test_what_the_catalog_refuses_is_not_stored(client: TestClient, world: World) -> None:
    world.catalog.refusal = InvalidDefinition([Violation("/trainer/model", "there is no such model")])
    answer = client.post("/v1/studies", json=a_document())
    assert answer.json()["violations"] == [{"pointer": "/trainer/model", "detail": "there is no such model"}]
    assert stored(world) == []


@pytest.mark.parametrize(
    ("body", "headers", "status", "slug"),
    [
        (b"{", {"Content-Type": "application/json"}, 400, "malformed-document"),
        (b"{}", {"Content-Type": "text/html"}, 415, "unsupported-media-type"),
        (b"", {}, 422, "invalid-definition"),
        (b"[]", {"Content-Type": "application/json"}, 422, "invalid-definition"),
        (b"a" * (1024 * 1024 + 1), {}, 413, "body-too-large"),
        (b"{}", {"Content-Length": "99999999"}, 413, "body-too-large"),
        (b"{}", {"Idempotency-Key": "x" * 201}, 422, "invalid-parameters"),
        (b"{}", {"Idempotency-Key": ""}, 422, "invalid-parameters"),
    ],
)
def test_a_body_that_is_no_definition_is_refused(
    client: TestClient, body: bytes, headers: dict[str, str], status: int, slug: str
) -> None:
    answer = client.post("/v1/studies", content=body, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (status, TYPE + slug)


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(client: TestClient) -> None:
    answer = client.post("/v1/studies", content=(b" " * 65536 for _ in range(17)))
    assert answer.status_code == 413


def test_the_same_key_and_body_make_one_study(client: TestClient, world: World) -> None:
    answers = [client.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].headers["Location"] == answers[1].headers["Location"]
    assert len(stored(world)) == 1


def test_a_repeated_request_gets_its_study_though_the_catalog_would_refuse_it_by_now(client: TestClient, world: World) -> None:
    first = client.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "one"})
    world.catalog.refusal = InvalidDefinition([Violation("/trainer/model", "there is no such model")])
    again = client.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "one"})
    assert (again.status_code, again.headers["Location"], again.json()) == (201, first.headers["Location"], first.json())
    assert client.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "two"}).status_code == 422


def test_the_same_key_with_another_body_is_refused(client: TestClient, world: World) -> None:
    client.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "one"})
    answer = client.post("/v1/studies", json=a_document(name="other"), headers={"Idempotency-Key": "one"})
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "idempotency-conflict")
    assert len(stored(world)) == 1


def test_without_a_key_every_post_makes_a_study(client: TestClient, world: World) -> None:
    for _ in range(2):
        client.post("/v1/studies", json=a_document())
    assert len(stored(world)) == 2


def test_studies_come_in_pages_until_the_cursor_ends(client: TestClient, world: World) -> None:
    for number in range(5):
        world.parts.store.studies.add(a_study(f"intents-{number}", created_at=NOW + timedelta(seconds=number)))
    seen, cursor = [], None
    while True:
        query = {"limit": "2", "order": "created_at", **({"cursor": cursor} if cursor else {})}
        page = StudyPage.model_validate_json(client.get("/v1/studies", params=query).content)
        seen += [study.id for study in page.items]
        cursor = page.cursor
        if cursor is None:
            break
    assert seen == [f"intents-{number}" for number in range(5)]


def test_studies_are_filtered_by_states_and_name(client: TestClient, world: World) -> None:
    world.has_study("a", name="Alpha")
    world.runs(world.has_study("b", name="beta"))
    world.ends(world.runs(world.has_study("c", name="alphabet")))

    def found(**query: Any) -> set[str]:
        return {study["id"] for study in client.get("/v1/studies", params=query).json()["items"]}

    assert found(state=["queued", "running"]) == {"a", "b"}
    assert found(name="ALPHA") == {"a", "c"}
    assert found(name="alpha", state="completed") == {"c"}


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=201", "limit=x", "order=size", "state=flying", "cursor=", "cursor=nonsense", "name="]
)
def test_a_query_that_means_nothing_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/v1/studies?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["type"] in {TYPE + "invalid-parameters", TYPE + "invalid-query"}


def test_a_cursor_of_another_order_is_refused(client: TestClient, world: World) -> None:
    for name in ("a", "b"):
        world.has_study(name)
    cursor = client.get("/v1/studies?limit=1").json()["cursor"]
    answer = client.get("/v1/studies", params={"cursor": cursor, "order": "name"})
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-query")


def test_a_study_tells_its_best_trial_and_what_it_has_spent(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(budget={"trials": 4, "epochs": 12}))
    world.has_trial(study, 0, [0.5, 0.75, 0.7])
    world.has_trial(study, 1, [0.6])
    world.has_trial(study, 2)
    world.clock.pass_seconds(60)
    view = client.get(f"/v1/studies/{study.id}").json()
    assert view["best"] == {
        "trial": 0, "repeats": None, "value": 0.75, "report": 2, "epoch": 2.0, "parameters": {"learning_rate": 1e-3},
    }  # fmt: skip
    assert view["trials"] == {"queued": 1, "running": 2}
    assert view["progress"]["trials"] == {"spent": 3, "limit": 4}
    assert view["progress"]["epochs"] == {"spent": 4, "limit": 12}
    assert view["progress"]["wall_clock_seconds"] == {"spent": 60, "limit": None}
    assert view["progress"]["gpu_hours"]["spent"] == pytest.approx(4 / 3600)
    assert view["progress"]["fraction"] == 0.75


def test_every_study_of_a_list_tells_what_it_alone_has_spent(client: TestClient, world: World) -> None:
    for study_id, trials in (("a", [[0.5, 0.75], [0.6]]), ("b", [[0.5]]), ("c", [])):
        study = world.runs(world.has_study(study_id))
        for number, accuracies in enumerate(trials):
            world.has_trial(study, number, accuracies)
    listed = client.get("/v1/studies").json()["items"]
    spent = {view["id"]: [view["progress"][what]["spent"] for what in ("trials", "epochs")] for view in listed}
    assert spent == {"a": [2, 3], "b": [1, 1], "c": [0, 0]}
    assert listed == [client.get(f"/v1/studies/{view['id']}").json() for view in listed]


def test_a_study_that_has_ended_spends_no_more_time(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.clock.pass_seconds(60)
    world.ends(study)
    world.clock.pass_seconds(1000)
    assert client.get(f"/v1/studies/{study.id}").json()["progress"]["wall_clock_seconds"]["spent"] == 60


def test_a_study_without_reports_has_no_best_trial(client: TestClient, world: World) -> None:
    study = world.has_study()
    assert client.get(f"/v1/studies/{study.id}").json()["best"] is None
    answer = client.get(f"/v1/studies/{study.id}/best")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "no-best-trial")


def test_the_best_trial_is_answered_whole(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    world.has_trial(study, 1, [0.9, 0.2])
    best = client.get(f"/v1/studies/{study.id}/best").json()
    assert (best["number"], best["best_value"], best["best_report"], best["value"]) == (1, 0.9, 1, 0.2)


def test_the_mlflow_page_is_linked_once_there_is_one(client: TestClient, world: World) -> None:
    study = world.has_study()
    assert client.get(f"/v1/studies/{study.id}").json()["links"]["mlflow"] is None
    world.parts.store.mirror.set_experiment(study.id, "7")
    assert client.get(f"/v1/studies/{study.id}").json()["links"]["mlflow"] == "/mlflow/#/experiments/7/runs"


ALWAYS = {"self", "trials", "events", "spending", "forecast", "analysis", "refine"}
TWO_OBJECTIVES = [
    {"metric": "validation/accuracy", "direction": "maximize"},
    {"metric": "validation/loss", "direction": "minimize"},
]


@pytest.mark.parametrize(
    ("changes", "links"),
    [
        ({}, {"best"}),
        ({"final": {"top": 2, "seeds": 2}}, {"best", "final"}),
        ({"strategy": {"kind": "pbt", "population": 4}, "budget": {}}, {"best", "lineage"}),
        ({"objectives": TWO_OBJECTIVES}, {"pareto"}),
    ],
)
def test_a_study_links_to_what_it_has_and_every_link_leads_somewhere(
    client: TestClient, world: World, changes: dict[str, Any], links: set[str]
) -> None:
    study = world.runs(world.has_study(**changes))
    world.has_trial(study, 0, [0.5])
    world.analyst.analyses[study.id] = an_analysis()
    found = {name: link for name, link in client.get(f"/v1/studies/{study.id}").json()["links"].items() if link is not None}
    assert found.keys() == ALWAYS | links
    stands_for_itself = {"events", "refine"}  # one does not end, and the other wants ten trials
    assert {client.get(found[name]).status_code for name in found.keys() - stands_for_itself} == {200}
    assert client.get(found["refine"]).json()["type"] == TYPE + "too-few-trials"


@pytest.mark.parametrize("path", ["no-such-study", "NO", "a" * 61, "%00", "a%0Ab", "ä"])
@pytest.mark.parametrize("below", ["", "/trials", "/trials/0", "/best", "/events", "/best/checkpoint"])
def test_an_unknown_study_is_not_found_anywhere(client: TestClient, path: str, below: str) -> None:
    answer = client.get(f"/v1/studies/{path}{below}")
    assert (answer.status_code, answer.json()["type"]) == (404, TYPE + "study-not-found")


@pytest.mark.parametrize(("verb", "reason"), [("stop", "stop_requested"), ("cancel", "cancel_requested")])
def test_a_study_is_ended_on_request_and_asking_again_does_no_harm(
    client: TestClient, world: World, verb: str, reason: str
) -> None:
    study = world.runs(world.has_study())
    answers = [client.post(f"/v1/studies/{study.id}:{verb}") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert (answers[0].json()["state"], answers[0].json()["reason"]) == ("stopping", reason)
    assert answers[0].json()["version"] == answers[1].json()["version"]


def test_a_cancel_goes_before_a_stop_and_not_the_other_way_round(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    client.post(f"/v1/studies/{study.id}:stop")
    assert client.post(f"/v1/studies/{study.id}:cancel").json()["reason"] == "cancel_requested"
    assert client.post(f"/v1/studies/{study.id}:stop").json()["reason"] == "cancel_requested"


def test_a_study_that_has_ended_cannot_be_stopped(client: TestClient, world: World) -> None:
    study = world.ends(world.runs(world.has_study()))
    for verb in ("stop", "cancel"):
        answer = client.post(f"/v1/studies/{study.id}:{verb}")
        assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "illegal-move")


@dataclass
class Overtaken:
    """Studies whose first writes another process overtakes."""

    studies: StudyStore
    times: int

    def save(self, study: Study, by: str | None = None) -> Study:
        if self.times > 0:
            self.times -= 1
            raise StaleWrite("changed meanwhile: read it again")
        return self.studies.save(study, by)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.studies, name)


def overtaken(world: World, times: int) -> TestClient:
    store = world.parts.store
    studies: Any = Overtaken(store.studies, times)
    racing = replace(store, studies=studies)
    return client_of(with_parts(world, store=racing))


def test_a_stop_that_is_overtaken_is_decided_anew(world: World) -> None:
    study = world.runs(world.has_study())
    assert overtaken(world, 3).post(f"/v1/studies/{study.id}:stop").json()["reason"] == StudyReason.STOP_REQUESTED


def test_a_stop_that_is_always_overtaken_is_given_up(world: World) -> None:
    study = world.runs(world.has_study())
    answer = overtaken(world, 1000).post(f"/v1/studies/{study.id}:stop")
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "stale-write")


def test_a_study_that_has_ended_is_deleted_with_its_checkpoints(client: TestClient, world: World) -> None:
    study = world.ends(world.runs(world.has_study()))
    answer = client.delete(f"/v1/studies/{study.id}")
    assert answer.status_code == 200
    assert client.get(f"/v1/studies/{study.id}").status_code == 404
    assert world.checkpoints.deleted == [study.id]


def test_an_active_study_is_not_deleted(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    answer = client.delete(f"/v1/studies/{study.id}")
    assert (answer.status_code, answer.json()["type"]) == (409, TYPE + "study-still-active")
    assert world.checkpoints.deleted == []
    assert client.get(f"/v1/studies/{study.id}").status_code == 200


def test_the_example_of_the_description_is_a_definition(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    content = document["paths"]["/v1/studies"]["post"]["requestBody"]["content"]
    for media_type, media in content.items():
        example = media["examples"]["hyperband"]["value"]
        answer = client.post("/v1/studies", content=json.dumps(example).encode(), headers={"Content-Type": media_type})
        assert answer.status_code == 201


@pytest.mark.parametrize("high", [2**31 - 1, 10**30])
def test_a_grid_over_a_huge_range_is_refused_without_writing_it_out(client: TestClient, high: int) -> None:
    space = {"seed": {"kind": "int", "low": 0, "high": high}}
    answer = client.post("/v1/studies", json=a_document(strategy={"kind": "grid"}, space=space))
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-definition")


def test_a_study_names_the_nodes_that_it_is_kept_from(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    assert client.get(f"/v1/studies/{study.id}").json()["quarantined"] == []
    store = world.parts.store
    assert store.leases.acquire(study.id, "driver-1", NOW, timedelta(days=1))
    for number, node in enumerate(["bad", "bad", "bad", "good"]):
        outcome = AttemptOutcome.FAILED if node == "bad" else AttemptOutcome.DONE
        attempt = Attempt(1, 0, 3, NOW, NOW + timedelta(seconds=number), outcome, f"{node}:1", "RuntimeError: CUDA error")
        store.trials.record("driver-1", [Change(a_trial(number, study.id, attempts=1), attempt=attempt)])
    (said,) = client.get(f"/v1/studies/{study.id}").json()["quarantined"]
    assert said.startswith("Nothing more of this study runs on node bad: trials 0, 1 and 2 failed there")


def test_a_study_says_how_many_of_its_trials_share_a_gpu_where_that_is_measured(client: TestClient, world: World) -> None:
    measured = world.has_study("measured-abc123", resources={"gpus_per_trial": "auto"})
    world.parts.store.studies.save(replace(measured, trials_per_gpu=3))
    fixed = world.has_study("fixed-abc123", resources={"gpus_per_trial": 0.5})
    found = [client.get(f"/v1/studies/{study.id}").json()["trials_per_gpu"] for study in (measured, fixed)]
    assert found == [3, None]
