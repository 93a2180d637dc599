"""What a running study is told over HTTP: pause, go on, more, other limits, and that one trial should stop."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.domain.errors import InvalidDefinition, Violation
from service.domain.events import Event, EventKind
from service.domain.ports import Change
from service.domain.study import Study, StudyReason, StudyState
from service.domain.trial import TrialReason, TrialState
from tests.api.conftest import World
from tests.builders import NOW

ACTIVE = [StudyState.QUEUED, StudyState.RUNNING, StudyState.PAUSING, StudyState.PAUSED]


def in_state(world: World, state: StudyState) -> Study:
    """A study that came to this state the way studies do."""
    study = world.has_study()
    if state is StudyState.QUEUED:
        return study
    study, store = world.runs(study), world.parts.store.studies
    match state:
        case StudyState.RUNNING:
            return study
        case StudyState.PAUSING | StudyState.PAUSED:
            study = store.save(study.pausing(StudyReason.PAUSE_REQUESTED, world.clock.now()))
            return study if state is StudyState.PAUSING else store.save(study.paused(world.clock.now()))
        case StudyState.STOPPING:
            return store.save(study.stopping(StudyReason.STOP_REQUESTED))
    reason = next(one for one in StudyReason if one.end is state)
    return world.ends(study, reason)


def events(world: World, study: Study, kind: EventKind) -> Sequence[Event]:
    return [event for event in world.parts.store.events.after(study.id, 0) if event.kind is kind]


def patch(client: TestClient, study: Study, document: Mapping[str, Any], **headers: str) -> Any:
    sent = {"If-Match": f'"{study.version}"', **{name.replace("_", "-"): value for name, value in headers.items()}}
    return client.patch(f"/v1/studies/{study.id}", json=document, headers=sent)


@pytest.mark.parametrize(
    ("before", "after"),
    [("queued", "paused"), ("running", "pausing"), ("pausing", "pausing"), ("paused", "paused")],
)
def test_a_study_is_paused_and_asking_twice_does_no_harm(client: TestClient, world: World, before: str, after: str) -> None:
    study = in_state(world, StudyState(before))
    answers = [client.post(f"/v1/studies/{study.id}:pause") for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, after)] * 2
    assert answers[0].json()["version"] == answers[1].json()["version"]


def test_a_pause_at_once_makes_one_that_waits_urgent(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    client.post(f"/v1/studies/{study.id}:pause")
    assert not world.parts.store.studies.get(study.id).is_urgent
    client.post(f"/v1/studies/{study.id}:pause", json={"now": True})
    assert world.parts.store.studies.get(study.id).is_urgent


@pytest.mark.parametrize("verb", ["pause", "extend"])
@pytest.mark.parametrize("kind", ["application/json", "application/yaml"])
def test_null_is_no_request(client: TestClient, world: World, verb: str, kind: str) -> None:
    study = in_state(world, StudyState.RUNNING)
    answer = client.post(f"/v1/studies/{study.id}:{verb}", content=b"null\n", headers={"Content-Type": kind})
    assert (answer.status_code, [one["pointer"] for one in answer.json()["violations"]]) == (422, [""])
    assert world.parts.store.studies.get(study.id).version == study.version


def test_a_pause_with_another_key_is_refused_by_its_name(client: TestClient, world: World) -> None:
    answer = client.post(f"/v1/studies/{in_state(world, StudyState.RUNNING).id}:pause", json={"soon": True})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["violations"]] == ["/soon"]


@pytest.mark.parametrize(
    ("before", "after"), [("queued", "queued"), ("running", "running"), ("pausing", "running"), ("paused", "queued")]
)
def test_a_study_is_resumed_and_asking_twice_does_no_harm(client: TestClient, world: World, before: str, after: str) -> None:
    study = in_state(world, StudyState(before))
    answers = [client.post(f"/v1/studies/{study.id}:resume") for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"], answer.json()["reason"]) for answer in answers] == [
        (202, after, None)
    ] * 2


@pytest.mark.parametrize("verb", ["pause", "resume", "extend"])
@pytest.mark.parametrize("state", [StudyState.STOPPING, StudyState.CANCELLED, StudyState.FAILED])
def test_what_the_state_forbids_is_a_conflict_that_says_so(
    client: TestClient, world: World, verb: str, state: StudyState
) -> None:
    study = in_state(world, state)
    body = {"budget": {"trials": 1}} if verb == "extend" else None  # which would be refused as well
    answer = client.post(f"/v1/studies/{study.id}:{verb}", json=body)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:tuneyard:problem:illegal-move")
    assert state in answer.json()["detail"]


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel"])
def test_of_a_study_that_has_ended_there_is_nothing_to_hold(client: TestClient, world: World, verb: str) -> None:
    study = in_state(world, StudyState.COMPLETED)
    detail = client.post(f"/v1/studies/{study.id}:{verb}").json()["detail"]
    assert detail == f"Study {study.id!r} is completed: there is nothing to {verb}."


@pytest.mark.parametrize("state", ACTIVE)
def test_a_study_that_goes_on_is_extended_where_it_is(client: TestClient, world: World, state: StudyState) -> None:
    study = in_state(world, state)
    answer = client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}})
    assert (answer.status_code, answer.json()["state"]) == (202, state)
    assert answer.json()["definition"]["budget"]["trials"] == 9


def test_a_completed_study_is_queued_again_and_the_same_request_changes_nothing_more(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.COMPLETED)
    answers = [client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}}) for _ in range(2)]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "queued")] * 2
    assert answers[0].json()["version"] == answers[1].json()["version"]
    again = world.ends(world.runs(world.parts.store.studies.get(study.id)))
    assert client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}}).json()["version"] == again.version


def test_a_stopped_study_goes_on_with_what_is_left(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.STOPPED)
    assert client.post(f"/v1/studies/{study.id}:extend").json()["state"] == "queued"


@pytest.mark.parametrize(
    ("budget", "pointer"),
    [
        ({"trials": 3}, "/budget/trials"),
        ({"trials": 0}, "/budget/trials"),
        ({"epochs": 90}, "/budget/epochs"),
        ({"target": "good"}, "/budget/target"),
        ({"turns": 3}, "/budget/turns"),
    ],
)
def test_an_extension_only_adds(client: TestClient, world: World, budget: Mapping[str, Any], pointer: str) -> None:
    study = in_state(world, StudyState.COMPLETED)
    answer = client.post(f"/v1/studies/{study.id}:extend", json={"budget": budget})
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["violations"]] == [pointer]
    assert world.parts.store.studies.get(study.id).state is StudyState.COMPLETED


def test_what_ended_a_study_has_to_change_for_it_to_go_on(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(budget={"trials": 4, "target": 0.9}))
    world.has_trial(study, accuracies=[0.95])
    world.ends(study, StudyReason.TARGET_REACHED)
    for budget in ({"trials": 9}, {"trials": 9, "target": 0.94}):
        answer = client.post(f"/v1/studies/{study.id}:extend", json={"budget": budget})
        assert (answer.status_code, answer.json()["violations"][0]["pointer"]) == (422, "/budget/target")
    assert client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"target": None}}).json()["state"] == "queued"


@pytest.mark.parametrize(("state", "status"), [(StudyState.COMPLETED, 422), (StudyState.RUNNING, 202)])
def test_a_study_whose_rows_are_gone_is_not_extended_unless_it_has_them_prepared(
    client: TestClient, world: World, state: StudyState, status: int
) -> None:
    study = in_state(world, state)
    world.catalog.refusal = InvalidDefinition([Violation("/trainer/data/train", "there is no dataset://rows/train.csv")])
    answer = client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}})
    assert (answer.status_code, world.parts.store.studies.get(study.id).state) == (status, state)
    assert ("/trainer/data/train" in answer.text) == (status == 422)


def test_a_study_whose_time_is_up_needs_more_of_it(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study(budget={"trials": 4, "wall_clock": 60}))
    world.clock.pass_seconds(61)
    world.ends(study)
    answer = client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}})
    assert (answer.status_code, answer.json()["violations"][0]["pointer"]) == (422, "/budget/wall_clock")
    assert client.post(f"/v1/studies/{study.id}:extend", json={"budget": {"wall_clock": "2m"}}).status_code == 202


def test_a_patch_changes_what_may_change_at_once(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    answer = patch(client, study, {"budget": {"trials": 2}, "resources": {"max_concurrent_trials": 3}})
    definition = answer.json()["definition"]
    assert (answer.status_code, answer.headers["ETag"]) == (200, f'"{study.version + 1}"')
    assert (definition["budget"]["trials"], definition["resources"]["max_concurrent_trials"]) == (2, 3)
    (event,) = events(world, study, EventKind.STUDY_CHANGED)
    assert event.payload["changed"] == {
        "budget.trials": {"from": 4, "to": 2},
        "resources.max_concurrent_trials": {"from": 1, "to": 3},
    }


def test_a_patch_in_its_own_content_type_is_read_as_json(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    headers = {"If-Match": "*", "Content-Type": "application/merge-patch+json"}
    answer = client.patch(f"/v1/studies/{study.id}", content=b'{"budget": {"epochs": 40}}', headers=headers)
    assert (answer.status_code, answer.json()["definition"]["budget"]["epochs"]) == (200, 40)


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ({"seed": 1}, "/seed"),
        ({"space": {}}, "/space"),
        ({"resources": {"cpus_per_trial": 2}}, "/resources/cpus_per_trial"),
        ({"resources": None}, "/resources"),
        ({"resources": {"max_concurrent_trials": 0}}, "/resources/max_concurrent_trials"),
        ({"budget": {"trials": -1}}, "/budget/trials"),
        ({"budget": None}, "/budget"),
        ([], ""),
        (None, ""),
    ],
)
def test_a_patch_of_anything_else_is_refused_by_its_place(client: TestClient, world: World, document: Any, pointer: str) -> None:
    study = in_state(world, StudyState.RUNNING)
    answer = patch(client, study, document)
    assert answer.status_code == 422
    assert [one["pointer"] for one in answer.json()["violations"]] == [pointer]
    assert world.parts.store.studies.get(study.id).version == study.version


def test_a_patch_needs_to_say_what_it_was_made_for(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    answer = client.patch(f"/v1/studies/{study.id}", json={"budget": {"trials": 2}})
    assert (answer.status_code, answer.json()["type"]) == (428, "urn:tuneyard:problem:precondition-required")


@pytest.mark.parametrize("stale", ['"0"', 'W/"1"', "1", ""])
def test_a_patch_made_for_another_version_is_refused(client: TestClient, world: World, stale: str) -> None:
    study = in_state(world, StudyState.RUNNING)
    answer = patch(client, study, {"budget": {"trials": 2}}, If_Match=stale)
    assert (answer.status_code, answer.json()["type"]) == (412, "urn:tuneyard:problem:precondition-failed")
    assert world.parts.store.studies.get(study.id).definition.budget.trials == 4


def test_a_repeated_patch_finds_what_it_wanted_and_is_not_refused(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    answers = [patch(client, study, {"budget": {"trials": 2}}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]


@pytest.mark.parametrize("state", [StudyState.STOPPING, StudyState.COMPLETED, StudyState.STOPPED, StudyState.CANCELLED])
def test_a_study_that_ends_is_not_patched_any_more(client: TestClient, world: World, state: StudyState) -> None:
    answer = patch(client, in_state(world, state), {"budget": {"trials": 2}})
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:tuneyard:problem:illegal-move")


def test_the_version_of_a_study_is_its_tag_wherever_it_is_answered(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    for answer in (client.get(f"/v1/studies/{study.id}"), client.post(f"/v1/studies/{study.id}:pause")):
        assert answer.headers["ETag"] == f'"{answer.json()["version"]}"'


def test_a_trial_is_asked_to_stop_once_and_by_name(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 0, accuracies=[0.5])
    answers = [client.post(f"/v1/studies/{study.id}/trials/0:stop", headers={"Tuneyard-User": name}) for name in ("ada", "grace")]
    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "running")] * 2
    assert world.parts.store.trials.stops(study.id) == {0}
    (event,) = events(world, study, EventKind.TRIAL_STOP_REQUESTED)
    assert event.payload == {"trial": 0, "by": "ada"}


def test_a_trial_that_has_ended_stays_as_it_is(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    trial = world.has_trial(study, 0, accuracies=[0.5])
    world.parts.store.trials.record("driver", [Change(trial.ended(TrialReason.EPOCHS_DONE, NOW))])
    answer = client.post(f"/v1/studies/{study.id}/trials/0:stop")
    assert (answer.status_code, answer.json()["state"]) == (202, TrialState.COMPLETED)
    assert events(world, study, EventKind.TRIAL_STOP_REQUESTED) == []


def test_a_trial_that_is_not_there_cannot_be_stopped(client: TestClient, world: World) -> None:
    study = world.has_study()
    answer = client.post(f"/v1/studies/{study.id}/trials/7:stop")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:tuneyard:problem:trial-not-found")


@pytest.mark.parametrize("verb", ["pause", "stop", "cancel"])
@pytest.mark.parametrize(("headers", "by"), [({"Tuneyard-User": "ada"}, "ada"), ({}, "token")])
def test_the_events_say_who_asked(client: TestClient, world: World, verb: str, headers: Mapping[str, str], by: str) -> None:
    study = in_state(world, StudyState.RUNNING)
    client.post(f"/v1/studies/{study.id}:{verb}", headers=headers)
    assert events(world, study, EventKind.STUDY_STATE)[-1].payload["by"] == by


@pytest.mark.parametrize("name", ["", " ", "a" * 65, "tab\there"])
def test_a_name_that_cannot_be_one_is_refused(client: TestClient, world: World, name: str) -> None:
    study = in_state(world, StudyState.RUNNING)
    answer = client.post(f"/v1/studies/{study.id}:pause", headers={"Tuneyard-User": name})
    assert (answer.status_code, answer.json()["violations"][0]["pointer"]) == (422, "Tuneyard-User")


def test_every_request_that_takes_a_name_says_that_it_may_be_refused(client: TestClient) -> None:
    routes = [
        (path, method, route)
        for path, methods in client.get("/openapi.json").json()["paths"].items()
        for method, route in methods.items()
        if any(one["name"] == "Tuneyard-User" for one in route.get("parameters", ()))
    ]
    assert len(routes) > 9
    assert [(path, method) for path, method, route in routes if "422" not in route["responses"]] == []


def test_a_key_that_is_none_is_told_what_may_change(client: TestClient, world: World) -> None:
    answer = patch(client, in_state(world, StudyState.RUNNING), {"prioriy": 80})
    assert answer.json()["violations"] == [
        {"pointer": "/prioriy", "detail": "is no key of a study: budget, priority, resources may change"}
    ]


def test_whoever_posts_a_study_forks_it_or_asks_for_a_trial_is_remembered(client: TestClient, world: World) -> None:
    study = world.has_study()
    headers = {"Tuneyard-User": "ada"}
    fork = client.post(f"/v1/studies/{study.id}:fork", headers=headers).json()
    assert world.parts.store.studies.get(fork["id"]).created_by == "ada"
    client.post(f"/v1/studies/{study.id}/trials", json={"parameters": {"learning_rate": 1e-3}}, headers=headers)
    assert events(world, study, EventKind.TRIAL_REQUESTED)[0].payload["by"] == "ada"


def test_a_pause_that_ends_by_itself_becomes_the_users(client: TestClient, world: World) -> None:
    study = in_state(world, StudyState.RUNNING)
    full = world.parts.store.studies.save(study.pausing(StudyReason.NO_SPACE, NOW, "The disk is full."))
    world.parts.store.studies.save(replace(full.paused(NOW)))
    assert client.post(f"/v1/studies/{study.id}:pause").json()["reason"] == "pause_requested"
