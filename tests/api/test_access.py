import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from service.api.auth import new_login_path
from service.api.identity import sha256_of
from service.domain.access import Caller, Project, Quotas, Role, Source
from service.domain.study import Study
from tests.api.conftest import TOKEN, World, client_of, with_parts
from tests.builders import NOW, a_study

TYPE = "urn:tuneyard:problem:"
DEFINITION: Mapping[str, Any] = {
    "name": "simulated",
    "trainer": {"kind": "simulated", "metrics": {"validation/loss": "rate / epoch"}, "epochs": 2},
    "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
    "objective": {"metric": "validation/loss", "direction": "minimize"},
    "strategy": {"kind": "random"},
    "budget": {"trials": 2},
}
READS = (
    "", "/best", "/trials", "/trials/0", "/trials/0/reports", "/trials/0/attempts", "/trials/0/checkpoint", "/events", "/final",
    "/spending", "/forecast", "/lineage", "/analysis", "/pareto", "/refine", "/best/checkpoint/archive",
    "/best/checkpoint/files/config.json",
)  # fmt: skip
WRITES = (":pause", ":resume", ":stop", ":cancel", ":extend", ":fork", "/trials", "/trials/0:stop")


@pytest.fixture
def vision(world: World) -> str:
    return world.parts.store.projects.add(Project("vision", NOW)).name


def a_token(client: TestClient, name: str = "ada", role: str = "editor", **changes: Any) -> str:
    """The secret of a new one, for every project unless one is named."""
    answer = client.post("/v1/tokens", json={"name": name, "role": role, "project": None, **changes})
    assert answer.status_code == 201, answer.text
    token: str = answer.json()["token"]
    return token


def client_with(world: World, token: str) -> TestClient:
    return client_of(world.parts, token)


@pytest.fixture
def ada(world: World, client: TestClient, vision: str) -> Iterator[TestClient]:
    """An editor of project `vision`."""
    with client_with(world, a_token(client, project=vision)) as found:
        yield found


@pytest.fixture
def foreign(world: World) -> Study:
    """A study of the project `default`."""
    study = world.has_study()
    world.has_trial(study, 0, [0.5])
    return study


def problem(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].removeprefix(TYPE)


def test_a_token_lets_its_owner_in_as_who_they_are(ada: TestClient) -> None:
    assert ada.get("/v1/me").json() == {"name": "ada", "role": "editor", "project": "vision", "source": "token"}


def test_the_services_own_token_sees_everything(client: TestClient) -> None:
    assert client.get("/v1/me").json() == {"name": "token", "role": "admin", "project": None, "source": "operator"}


def test_a_tokens_secret_is_shown_once_and_stored_as_its_hash(world: World, client: TestClient) -> None:
    secret = a_token(client)
    assert secret.startswith("ty_")
    assert len(secret) >= 46
    assert secret not in client.get("/v1/tokens").text
    assert world.parts.store.access.token_with(secret) is None
    assert world.parts.store.access.token_with(sha256_of(secret)) is not None


def test_a_token_works_until_it_runs_out(world: World, client: TestClient) -> None:
    with client_with(world, a_token(client, expires_in_days=1)) as ada:
        assert ada.get("/v1/me").status_code == 200
        world.clock.pass_seconds(86400)
        assert problem(ada.get("/v1/me")) == (401, "not-authenticated")


def test_a_revoked_token_lets_nobody_in_nor_does_a_session_of_it(world: World, client: TestClient, ada: TestClient) -> None:
    link = ada.post("/v1/login-links").json()["url"]
    with client_of(world.parts, None) as browser:
        assert browser.get(link, follow_redirects=False).status_code == 303
        assert browser.get("/v1/me").json()["name"] == "ada"
        (token,) = client.get("/v1/tokens").json()["items"]
        assert client.delete(f"/v1/tokens/{token['id']}").json()["revoked_at"] is not None
        assert problem(ada.get("/v1/me")) == (401, "not-authenticated")
        assert problem(browser.get("/v1/me")) == (401, "not-authenticated")


def test_who_made_a_token_is_called_as_in_the_audit_log(client: TestClient) -> None:
    client.post("/v1/tokens", json={"name": "ada", "project": None}, headers={"Tuneyard-User": "grace"})
    (token,) = client.get("/v1/tokens").json()["items"]
    (line,) = client.get("/v1/audit").text.splitlines()
    assert token["created_by"] == json.loads(line)["caller"] == "grace"


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("POST", "/v1/studies", "an editor"),
        ("POST", "/v1/tokens", "an admin"),
        ("DELETE", "/v1/tokens/k3v9x2ab", "an admin"),
        ("DELETE", "/v1/sessions", "an admin of all projects"),
        ("POST", "/v1/projects", "an admin of all projects"),
        ("PUT", "/v1/projects/vision/quotas", "an admin of all projects"),
    ],
)
def test_who_may_not_do_something_is_told_whose_token_it_needs(
    world: World, client: TestClient, vision: str, method: str, path: str, needed: str
) -> None:
    roles = [role for role in ("viewer", "editor", "admin") if f"an {role}" not in needed or needed.endswith("projects")]
    for role in roles[: 1 if needed == "an editor" else 3]:
        with client_with(world, a_token(client, role=role, project=vision)) as somebody:
            answer = somebody.request(method, path, json={"name": "x"})
            assert problem(answer) == (403, "forbidden")
            assert needed in answer.json()["detail"].replace("Only an", "an")


def test_when_a_token_was_used_is_shown(world: World, client: TestClient, ada: TestClient) -> None:
    ada.get("/v1/me")
    (token,) = client.get("/v1/tokens").json()["items"]
    assert token["last_used_at"] is not None


@pytest.mark.parametrize("path", READS)
def test_another_projects_study_is_not_there(ada: TestClient, foreign: Study, path: str) -> None:
    assert problem(ada.get(f"/v1/studies/{foreign.id}{path}")) == (404, "study-not-found")


@pytest.mark.parametrize("path", WRITES)
def test_another_projects_study_cannot_be_changed(world: World, ada: TestClient, foreign: Study, path: str) -> None:
    before = world.parts.store.studies.get(foreign.id)
    assert problem(ada.post(f"/v1/studies/{foreign.id}{path}", json={})) == (404, "study-not-found")
    assert world.parts.store.studies.get(foreign.id) == before


def test_another_projects_study_cannot_be_deleted_or_patched(world: World, ada: TestClient, foreign: Study) -> None:
    world.ends(foreign)
    assert problem(ada.delete(f"/v1/studies/{foreign.id}")) == (404, "study-not-found")
    assert problem(ada.patch(f"/v1/studies/{foreign.id}", json={"priority": 3})) == (404, "study-not-found")
    assert world.parts.store.studies.get(foreign.id)


def test_lists_show_what_the_project_has(world: World, client: TestClient, ada: TestClient, foreign: Study) -> None:
    own = ada.post("/v1/studies", json=DEFINITION).json()
    assert (own["project"], own["created_by"]) == ("vision", "ada")
    assert [study["id"] for study in ada.get("/v1/studies").json()["items"]] == [own["id"]]
    assert {study["id"] for study in client.get("/v1/studies").json()["items"]} == {own["id"], foreign.id}
    chosen = client.get("/v1/studies", headers={"Tuneyard-Project": "vision"}).json()["items"]
    assert [study["id"] for study in chosen] == [own["id"]]
    assert "1.0" in next(
        line for line in ada.get("/metrics").text.splitlines() if line.startswith('tuneyard_studies{state="queued"')
    )


def test_who_sees_every_project_may_work_in_one(client: TestClient, vision: str) -> None:
    made = client.post("/v1/studies", json=DEFINITION, headers={"Tuneyard-Project": "vision"}).json()
    assert made["project"] == "vision"
    assert client.post("/v1/studies", json=DEFINITION).json()["project"] == "default"


@pytest.mark.parametrize("asked", ["default", "speech", "../default", "Vision", "a" * 90])
def test_another_project_is_not_there_for_who_has_one(ada: TestClient, asked: str) -> None:
    assert problem(ada.get("/v1/studies", headers={"Tuneyard-Project": asked})) == (404, "project-not-found")


def test_a_study_cannot_start_from_another_projects(ada: TestClient, foreign: Study) -> None:
    answer = ada.post("/v1/studies", json={**DEFINITION, "warm_start": [foreign.id]})
    assert problem(answer) == (422, "invalid-definition")
    assert "there is no study" in answer.json()["violations"][0]["detail"]


def test_the_same_idempotency_key_in_two_projects_names_two_requests(client: TestClient, ada: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    mine = ada.post("/v1/studies", json=DEFINITION, headers=headers).json()["id"]
    theirs = client.post("/v1/studies", json={**DEFINITION, "name": "another"}, headers=headers)
    assert theirs.status_code == 201
    assert theirs.json()["id"] != mine
    assert ada.post("/v1/studies", json=DEFINITION, headers=headers).json()["id"] == mine


def test_data_sets_are_the_projects_own(world: World, client: TestClient, ada: TestClient) -> None:
    rows = b"text,label\na,b\n"
    assert ada.put("/v1/datasets/intents/files/train.csv", content=rows).status_code == 201
    assert client.get("/v1/datasets").json()["uploads"] == []
    assert [file["file"] for file in ada.get("/v1/datasets").json()["uploads"]] == ["train.csv"]
    ada.post("/v1/studies", json=DEFINITION)
    assert world.catalog.projects[-1] == "vision"


def test_a_fork_stays_in_its_studys_project(client: TestClient, ada: TestClient) -> None:
    own = ada.post("/v1/studies", json=DEFINITION).json()["id"]
    fork = client.post(f"/v1/studies/{own}:fork", json={"changes": {"name": "fork"}})
    assert (fork.status_code, fork.json()["project"]) == (201, "vision")


def test_a_viewer_looks_and_changes_nothing(world: World, client: TestClient, vision: str) -> None:
    study = world.parts.store.studies.add(replace(a_study(), project=vision))
    with client_with(world, a_token(client, role="viewer", project=vision)) as viewer:
        assert viewer.get(f"/v1/studies/{study.id}").status_code == 200
        assert viewer.post("/v1/studies:preview", json=DEFINITION).status_code == 200
        for answer in (
            viewer.post("/v1/studies", json=DEFINITION),
            viewer.post(f"/v1/studies/{study.id}:cancel"),
            viewer.delete(f"/v1/studies/{study.id}"),
            viewer.patch(f"/v1/studies/{study.id}", json={}),
            viewer.put("/v1/datasets/a/files/b.csv", content=b"text,label\n"),
        ):
            assert problem(answer) == (403, "forbidden")
    assert world.parts.store.studies.get(study.id) == study


def test_only_admins_see_and_make_tokens_and_read_the_log(ada: TestClient) -> None:
    for answer in (
        ada.get("/v1/tokens"),
        ada.post("/v1/tokens", json={"name": "eve"}),
        ada.get("/v1/audit"),
        ada.delete("/v1/tokens/a"),
    ):
        assert problem(answer) == (403, "forbidden")


def test_a_projects_admin_stays_in_the_project(world: World, client: TestClient, vision: str) -> None:
    world.parts.store.projects.add(Project("speech", NOW))
    a_token(client, "grace")
    with client_with(world, a_token(client, "root", role="admin", project=vision)) as admin:
        made = admin.post("/v1/tokens", json={"name": "eve", "role": "viewer"}).json()
        assert made["project"] == "vision"
        assert problem(admin.post("/v1/tokens", json={"name": "eve", "project": "speech"})) == (403, "forbidden")
        assert problem(admin.post("/v1/tokens", json={"name": "eve", "project": None})) == (403, "forbidden")
        assert {token["name"] for token in admin.get("/v1/tokens").json()["items"]} == {"root", "eve"}
        (other,) = [token for token in client.get("/v1/tokens").json()["items"] if token["name"] == "grace"]
        assert problem(admin.delete(f"/v1/tokens/{other['id']}")) == (404, "token-not-found")
        assert [project["name"] for project in admin.get("/v1/projects").json()["items"]] == ["vision"]
        assert problem(admin.post("/v1/projects", json={"name": "mine"})) == (403, "forbidden")
        assert problem(admin.put("/v1/projects/vision/quotas", json={})) == (403, "forbidden")


def test_a_browser_makes_no_tokens(world: World) -> None:
    with client_of(world.parts, None) as browser:
        browser.get(new_login_path(world.parts.store.access, world.clock, 300, TOKEN), follow_redirects=False)
        own = {"Origin": "http://127.0.0.1:8080"}
        assert problem(browser.post("/v1/tokens", json={"name": "eve"}, headers=own)) == (401, "not-authenticated")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": ""}, "/name"),
        ({"name": "ada\nroot"}, "/name"),
        ({"name": "ada", "role": "root"}, "/role"),
        ({"name": "ada", "project": "../x"}, "/project"),
        ({"name": "ada", "expires_in_days": 0}, "/expires_in_days"),
        ({"name": "ada", "admin": True}, "/admin"),
    ],
)
def test_a_token_that_makes_no_sense_is_refused(client: TestClient, body: Any, pointer: str) -> None:
    answer = client.post("/v1/tokens", json=body)
    assert problem(answer) == (422, "invalid-parameters")
    assert answer.json()["violations"][0]["pointer"] == pointer


def test_who_sees_every_project_says_what_a_token_is_to_see(client: TestClient) -> None:
    answer = client.post("/v1/tokens", json={"name": "ada"})
    assert problem(answer) == (422, "invalid-parameters")
    assert answer.json()["violations"][0]["pointer"] == "/project"
    assert client.get("/v1/tokens").json()["items"] == []
    assert client.post("/v1/tokens", json={"name": "ada", "project": None}).json()["project"] is None


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
@pytest.mark.parametrize("quota", ["max_gpu_hours", "max_stored_gb"])
def test_a_quota_is_a_number_that_can_be_used_up(client: TestClient, quota: str, number: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = client.put("/v1/projects/default/quotas", content=f'{{"{quota}": {number}}}', headers=headers)
    assert answer.status_code in {400, 422}


def test_a_token_for_a_project_that_is_not_there_is_refused(client: TestClient) -> None:
    assert problem(client.post("/v1/tokens", json={"name": "ada", "project": "speech"})) == (404, "project-not-found")


@pytest.mark.parametrize("name", ["%00", "%20", "Vision", "a" * 300])
def test_what_cannot_be_a_name_or_an_id_is_not_there(client: TestClient, name: str) -> None:
    for answer, kind in (
        (client.put(f"/v1/projects/{name}/quotas", json={}), "project-not-found"),
        (client.delete(f"/v1/tokens/{name}"), "token-not-found"),
    ):
        assert problem(answer) == (404, kind)
        assert len(answer.json()["detail"]) < 200


def test_a_project_has_quotas_and_says_what_is_used(world: World, client: TestClient) -> None:
    made = client.post("/v1/projects", json={"name": "vision", "max_gpu_hours": 2})
    assert (made.status_code, made.json()["max_gpu_hours"], made.json()["gpu_hours"]) == (201, 2, 0)
    assert problem(client.post("/v1/projects", json={"name": "vision"})) == (409, "project-exists")
    assert problem(client.post("/v1/projects", json={"name": "Vision"})) == (422, "invalid-parameters")
    changed = client.put("/v1/projects/vision/quotas", json={"max_running_studies": 3}).json()
    assert (changed["max_running_studies"], changed["max_gpu_hours"]) == (3, None)
    assert [project["name"] for project in client.get("/v1/projects").json()["items"]] == ["default", "vision"]
    assert problem(client.put("/v1/projects/speech/quotas", json={})) == (404, "project-not-found")


def test_a_project_that_has_used_its_gpu_hours_starts_nothing_more(world: World, client: TestClient) -> None:
    study = world.has_study()
    world.has_trial(study, 0, [0.5])  # half a GPU for two seconds
    world.parts.store.projects.set_quotas("default", Quotas(max_gpu_hours=1 / 3600))
    answer = client.post("/v1/studies", json=DEFINITION)
    assert problem(answer) == (409, "quota-spent")
    assert "max_gpu_hours" in answer.json()["detail"]
    world.parts.store.projects.set_quotas("default", Quotas(max_gpu_hours=1))
    assert client.post("/v1/studies", json=DEFINITION).status_code == 201


def audit_of(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.get("/v1/audit", params=query)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]


def test_who_did_what_is_written_down(client: TestClient, ada: TestClient) -> None:
    made = ada.post("/v1/studies", json=DEFINITION, headers={"Tuneyard-User": "somebody else"}).json()["id"]
    ada.post(f"/v1/studies/{made}:pause")
    client.post(f"/v1/studies/{made}:resume", headers={"Tuneyard-User": "grace"})
    entries = audit_of(client)
    assert [(one["caller"], one["action"], one["target"], one["status"]) for one in entries] == [
        ("token", "createToken", "/v1/tokens", 201),
        ("ada", "createStudy", "/v1/studies", 201),
        ("ada", "pauseStudy", f"/v1/studies/{made}:pause", 202),
        ("grace", "resumeStudy", f"/v1/studies/{made}:resume", 202),
    ]
    assert {one["project"] for one in entries[1:3]} == {"vision"}
    assert entries[1]["address"] == "testclient"
    assert [one["action"] for one in audit_of(client, after=entries[1]["id"])] == ["pauseStudy", "resumeStudy"]


def test_what_was_refused_is_written_down_too_and_what_strangers_send_is_not(
    client: TestClient, ada: TestClient, stranger: TestClient
) -> None:
    ada.post("/v1/tokens", json={"name": "eve"})
    stranger.post("/v1/studies", json=DEFINITION)
    client.get("/v1/studies")
    assert [(one["caller"], one["status"]) for one in audit_of(client)][1:] == [("ada", 403)]


def test_what_a_viewer_was_refused_is_written_down_and_what_they_read_is_not(
    world: World, client: TestClient, vision: str
) -> None:
    with client_with(world, a_token(client, "eve", role="viewer", project=vision)) as viewer:
        viewer.post("/v1/studies:preview", json=DEFINITION)
        viewer.post("/v1/studies", json=DEFINITION)
    assert [(one["caller"], one["action"], one["project"], one["status"]) for one in audit_of(client)][1:] == [
        ("eve", "createStudy", "vision", 403)
    ]


def test_what_was_done_is_in_the_log_of_whose_it_was_and_not_of_who_did_it(world: World, client: TestClient, vision: str) -> None:
    study = world.parts.store.studies.add(replace(a_study(), project=vision))
    client.post(f"/v1/studies/{study.id}:cancel")
    world.ends(world.parts.store.studies.get(study.id))
    client.delete(f"/v1/studies/{study.id}")
    client.put("/v1/projects/vision/quotas", json={})
    client.post("/v1/projects", json={"name": "speech"})
    made = client.post("/v1/tokens", json={"name": "ada", "project": vision}).json()["id"]
    client.delete(f"/v1/tokens/{made}")
    client.post("/v1/studies", json=DEFINITION, headers={"Tuneyard-Project": vision})
    assert [(one["action"], one["project"], one["status"]) for one in audit_of(client)] == [
        ("cancelStudy", vision, 202),
        ("deleteStudy", vision, 200),
        ("setQuotas", vision, 200),
        ("createProject", "speech", 201),
        ("createToken", vision, 201),
        ("revokeToken", vision, 200),
        ("createStudy", vision, 201),
    ]


def test_what_is_of_no_project_or_of_the_default_one_is_logged_as_that(client: TestClient, vision: str) -> None:
    client.post("/v1/studies", json=DEFINITION)
    client.put("/v1/datasets/a/files/b.csv", content=b"text,label\na,b\n")
    of_nobody = [
        client.post("/v1/studies/none-abc123:cancel"),
        client.post("/v1/login-links", headers={"Tuneyard-Project": vision}),
        client.post("/v1/tokens", json={"name": "ada", "project": None}, headers={"Tuneyard-Project": vision}),
        client.post("/v1/tokens", json={}),
        client.put("/v1/projects/%00/quotas", json={}),
        client.delete("/v1/tokens/a"),
        client.delete("/v1/sessions"),
    ]
    assert [one["project"] for one in audit_of(client)] == ["default"] * 2 + [None] * len(of_nobody)


def test_what_one_who_sees_every_project_was_refused_is_logged_there_too(world: World, client: TestClient, vision: str) -> None:
    study = world.parts.store.studies.add(replace(a_study(), project=vision))
    with client_with(world, a_token(client, "eve", role="viewer")) as viewer:
        viewer.post(f"/v1/studies/{study.id}:cancel")
        viewer.put("/v1/projects/vision/quotas", json={})
    assert [(one["caller"], one["project"], one["status"]) for one in audit_of(client)][1:] == [("eve", vision, 403)] * 2


def test_links_and_logins_are_logged_with_whose_they_are(world: World, client: TestClient, ada: TestClient) -> None:
    link = ada.post("/v1/login-links").json()["url"]
    with client_of(world.parts, None) as browser:
        browser.get("/login?code=wrong")
        browser.get(link, follow_redirects=False)
        browser.get(link, follow_redirects=False)
        browser.post("/logout", headers={"Origin": "http://127.0.0.1:8080"})
    told = [(one["caller"], one["action"], one["target"], one["project"], one["status"]) for one in audit_of(client)]
    assert told[1:] == [
        ("ada", "createLoginLink", "/v1/login-links", "vision", 201),
        ("ada", "logIn", "/login", "vision", 303),
        ("ada", "logOut", "/logout", "vision", 204),
    ]
    assert {one["address"] for one in audit_of(client)} == {"testclient"}


def test_login_links_are_limited_as_other_changes_are(world: World) -> None:
    parts = with_parts(world, settings=world.parts.settings.model_copy(update={"max_writes_per_minute": 2}))
    with client_of(parts) as busy:
        assert [busy.post("/v1/login-links").status_code for _ in range(3)] == [201, 201, 429]


@pytest.mark.parametrize("role", Role)
def test_whoever_logged_in_can_log_out(world: World, client: TestClient, vision: str, role: Role) -> None:
    with client_with(world, a_token(client, role=role, project=vision)) as somebody:
        link = somebody.post("/v1/login-links").json()["url"]
    with client_of(world.parts, None) as browser:
        browser.get(link, follow_redirects=False)
        cookie = {"Cookie": f"tuneyard_session={browser.cookies['tuneyard_session']}"}
        assert browser.get("/v1/me", headers=cookie).json()["role"] == role
        assert browser.post("/logout", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 204
        assert problem(browser.get("/v1/me", headers=cookie)) == (401, "not-authenticated")


def test_nobody_is_let_into_a_project_that_is_not_there(world: World, client: TestClient) -> None:
    with with_identities(world, replace(ADA, role=Role.EDITOR, project="ghost")) as somebody:
        for answer in (
            somebody.get("/v1/studies", headers=GIVEN),
            somebody.put("/v1/datasets/a/files/b.csv", content=b"text,label\na,b\n", headers=GIVEN),
            somebody.post("/v1/login-links", headers=GIVEN),
        ):
            assert problem(answer) == (404, "project-not-found")
        client.post("/v1/projects", json={"name": "ghost"})
        assert somebody.get("/v1/studies", headers=GIVEN).status_code == 200


def test_changes_beyond_the_limit_do_not_fill_the_log(world: World, client: TestClient) -> None:
    made = a_token(client, "eve", role="viewer")
    parts = with_parts(world, settings=world.parts.settings.model_copy(update={"max_writes_per_minute": 2}))
    with client_of(parts, made) as viewer:
        assert [viewer.post("/v1/studies", json=DEFINITION).status_code for _ in range(4)] == [403, 403, 429, 429]
    assert [one["status"] for one in audit_of(client)][1:] == [403, 403]


def test_a_projects_admin_reads_the_projects_log(world: World, client: TestClient, ada: TestClient, vision: str) -> None:
    client.post("/v1/studies", json=DEFINITION)
    ada.post("/v1/studies", json=DEFINITION)
    with client_with(world, a_token(client, "root", role="admin", project=vision)) as admin:
        told = [("token", "createToken"), ("ada", "createStudy"), ("token", "createToken")]
        assert [(one["caller"], one["action"]) for one in audit_of(admin)] == told


def test_wrong_tokens_are_slowed_down_and_right_ones_are_not(world: World, client: TestClient) -> None:
    parts = with_parts(world, settings=world.parts.settings.model_copy(update={"max_failed_logins_per_minute": 3}))
    with client_of(parts) as known:
        wrong = [known.get("/v1/me", headers={"Authorization": f"Bearer ty_{number}"}) for number in range(5)]
        assert [answer.status_code for answer in wrong] == [401, 401, 401, 429, 429]
        assert 1 <= int(wrong[-1].headers["Retry-After"]) <= 60
        assert problem(known.get("/login?code=wrong", headers={"Authorization": ""})) == (429, "too-often")
        assert known.get("/v1/me").status_code == 200


def test_changes_are_limited_by_the_minute_and_reads_are_not(world: World) -> None:
    parts = with_parts(world, settings=world.parts.settings.model_copy(update={"max_writes_per_minute": 2}))
    with client_of(parts) as busy:
        answers = [busy.post("/v1/studies", json=DEFINITION).status_code for _ in range(4)]
        assert answers == [201, 201, 429, 429]
        assert busy.get("/v1/studies").status_code == 200


ADA = Caller("ada@example.org", Role.VIEWER, Source.OIDC, "vision", ends_at=NOW + timedelta(hours=1))
GIVEN = {"Authorization": "Bearer a.b.c"}


@dataclass
class FakeIdentities:
    """Knows one token."""

    caller: Caller = ADA

    def caller_of(self, token: str) -> Caller | None:
        return self.caller if token == "a.b.c" else None


def with_identities(world: World, caller: Caller = ADA) -> TestClient:
    """Somebody at a service that knows this caller by the token `a.b.c`."""
    return client_of(with_parts(world, identities=FakeIdentities(caller)), None)


def test_an_identity_providers_token_counts_where_one_is_set(world: World, stranger: TestClient, vision: str) -> None:
    assert stranger.get("/v1/me", headers=GIVEN).status_code == 401
    with with_identities(world) as somebody:
        me = {"name": "ada@example.org", "role": "viewer", "project": "vision", "source": "oidc"}
        assert somebody.get("/v1/me", headers=GIVEN).json() == me
        assert somebody.get("/v1/me", headers={"Authorization": "Bearer a.b.d"}).status_code == 401
        link = somebody.post("/v1/login-links", headers=GIVEN).json()["url"]
        assert somebody.get(link, follow_redirects=False).status_code == 303
        assert somebody.get("/v1/me").json() == me


def test_neither_a_link_nor_a_session_outlives_the_providers_token_that_it_came_of(world: World, vision: str) -> None:
    soon = replace(ADA, ends_at=NOW + timedelta(minutes=2))
    with with_identities(world, soon) as somebody:
        made = somebody.post("/v1/login-links", headers=GIVEN).json()
        assert made["expires_at"] == "2030-01-02T03:06:05Z"
        opened = somebody.get(made["url"], follow_redirects=False)
        assert "Max-Age=120" in opened.headers["Set-Cookie"].split("; ")
        late = somebody.post("/v1/login-links", headers=GIVEN).json()["url"]
        world.clock.pass_seconds(119)
        assert somebody.get("/v1/me").status_code == 200
        world.clock.pass_seconds(1)
        assert problem(somebody.get("/v1/me")) == (401, "not-authenticated")
        assert problem(somebody.get(late)) == (403, "invalid-login-code")


def test_sessions_and_links_of_the_operator_end_when_the_services_own_token_is_replaced(world: World) -> None:
    access = world.parts.store.access
    links = [new_login_path(access, world.clock, 300, TOKEN) for _ in range(2)]
    with client_of(world.parts, None) as browser:
        browser.get(links[0], follow_redirects=False)
        assert browser.get("/v1/me").json()["source"] == "operator"
        cookies = dict(browser.cookies)
    with client_of(with_parts(world, token="another-token-for-tests"), None) as browser:
        browser.cookies.update(cookies)
        assert problem(browser.get("/v1/me")) == (401, "not-authenticated")
        assert problem(browser.get(links[1])) == (403, "invalid-login-code")


def test_an_admin_of_all_ends_every_session_and_nobody_else_does(world: World, client: TestClient, vision: str) -> None:
    admin = a_token(client, role="admin", project=vision)
    with client_of(world.parts, None) as browser, client_with(world, admin) as root:
        browser.get(new_login_path(world.parts.store.access, world.clock, 300, TOKEN), follow_redirects=False)
        assert problem(root.delete("/v1/sessions")) == (403, "forbidden")
        own = {"Origin": "http://127.0.0.1:8080"}
        assert problem(browser.delete("/v1/sessions", headers=own)) == (401, "not-authenticated")
        assert browser.get("/v1/me").status_code == 200
        assert client.delete("/v1/sessions").status_code == 204
        assert problem(browser.get("/v1/me")) == (401, "not-authenticated")


@pytest.mark.parametrize(
    "caller",
    [
        Caller("token", Role.ADMIN, Source.OPERATOR),
        Caller("ada@example.org", Role.ADMIN, Source.OIDC),
    ],
)
def test_who_has_a_session_that_does_not_say_what_it_came_of_logs_in_again(world: World, caller: Caller) -> None:
    world.parts.store.access.add_session(sha256_of("s"), NOW + timedelta(days=30), caller)
    with client_of(world.parts, None) as browser:
        browser.cookies.set("tuneyard_session", "s")
        assert problem(browser.get("/v1/me")) == (401, "not-authenticated")


def test_an_admin_of_all_by_a_provider_signs_with_their_own_name_alone(world: World, client: TestClient) -> None:
    root = replace(ADA, role=Role.ADMIN, project=None)
    with with_identities(world, root) as somebody:
        made = somebody.post("/v1/studies", json=DEFINITION, headers={**GIVEN, "Tuneyard-User": "grace"}).json()
        assert made["created_by"] == root.name
        somebody.get(somebody.post("/v1/login-links", headers=GIVEN).json()["url"], follow_redirects=False)
        own = {"Origin": "http://127.0.0.1:8080", "Tuneyard-User": "grace"}
        assert somebody.post("/v1/studies", json=DEFINITION, headers=own).json()["created_by"] == root.name
    assert {one["caller"] for one in audit_of(client)} == {root.name}


def test_a_name_at_a_provider_takes_nothing_from_the_limit_of_a_token_with_that_id(
    world: World, client: TestClient, vision: str
) -> None:
    parts = with_parts(world, settings=world.parts.settings.model_copy(update={"max_writes_per_minute": 1}))
    secret = a_token(client, project=vision)
    (token,) = client.get("/v1/tokens").json()["items"]
    namesake = FakeIdentities(replace(ADA, name=token["id"], role=Role.EDITOR))
    with client_of(replace(parts, identities=namesake), None) as somebody:
        assert somebody.post("/v1/studies", json=DEFINITION, headers=GIVEN).status_code == 201
        own = {"Authorization": f"Bearer {secret}"}
        assert somebody.post("/v1/studies", json=DEFINITION, headers=own).status_code == 201


@pytest.mark.parametrize(
    ("host", "allowed", "status"),
    [
        ("tuneyard.example.org", ("tuneyard.example.org",), 200),
        ("TUNEYARD.example.org:443", ("tuneyard.example.org",), 200),
        ("evil.example", ("tuneyard.example.org",), 403),
        ("tuneyard.example.org.evil.example", ("tuneyard.example.org",), 403),
        ("tuneyard.example.org@evil.example", ("tuneyard.example.org",), 403),
        ("127.0.0.1:8080", ("tuneyard.example.org",), 200),
    ],
)
def test_a_browser_uses_the_names_that_the_service_has(world: World, host: str, allowed: tuple[str, ...], status: int) -> None:
    settings = world.parts.settings.model_copy(update={"allowed_hosts": allowed})
    with client_of(with_parts(world, settings=settings), None) as browser:
        browser.get(new_login_path(world.parts.store.access, world.clock, 300, TOKEN), follow_redirects=False)
        assert browser.get("/v1/me", headers={"Host": host}).status_code == status


def test_a_session_lives_as_long_as_the_settings_say(world: World) -> None:
    with client_of(world.parts, None) as browser:
        browser.get(new_login_path(world.parts.store.access, world.clock, 300, TOKEN), follow_redirects=False)
        world.clock.pass_seconds(timedelta(days=31).total_seconds())
        assert problem(browser.get("/v1/me")) == (401, "not-authenticated")
