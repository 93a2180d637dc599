"""`tuneyard token`, `project`, `logout` and `audit`, against the API over fakes."""

import json
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest

from service.cli import run
from service.cli.exits import ExitCode
from service.cli.session import Session
from service.domain.access import Caller, Role, Source
from tests.api.conftest import TOKEN, World, client_of, world
from tests.builders import NOW

__all__ = ["world"]

Tuneyard = Callable[..., int]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("TUNEYARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TUNEYARD_USER", "grace")


@pytest.fixture
def tuneyard(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tuneyard]:
    with client_of(world.parts, None) as client:

        def answer(request: httpx.Request) -> httpx.Response:
            found = client.request(request.method, str(request.url), content=request.read(), headers=dict(request.headers))
            return httpx.Response(found.status_code, headers=dict(found.headers), content=found.content)

        def call(*arguments: str, token: str = TOKEN) -> int:
            monkeypatch.setenv("TUNEYARD_TOKEN", token)
            return run(
                ["--url", "http://127.0.0.1:8080", *arguments],
                Session(transport=httpx.MockTransport(answer), sleep=lambda _: None),
            )

        yield call


def test_a_token_is_made_printed_once_listed_and_revoked(tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard("project", "create", "vision", "--max-gpu-hours", "2.5") == 0
    capsys.readouterr()
    assert tuneyard("token", "create", "ada", "--project", "vision", "--role", "viewer") == 0
    printed = capsys.readouterr()
    secret = printed.out.strip()
    assert secret.startswith("ty_")
    assert "ada is viewer of vision" in printed.err
    assert tuneyard("study", "ls", token=secret) == 0
    capsys.readouterr()
    assert tuneyard("token", "ls") == 0
    listed = capsys.readouterr().out
    assert secret not in listed
    row = next(line for line in listed.splitlines() if " ada " in line)
    assert "viewer" in row
    assert tuneyard("token", "revoke", row.split()[0]) == 0
    assert "revoked" in capsys.readouterr().out
    assert tuneyard("study", "ls", token=secret) == ExitCode.NOT_AUTHENTICATED


def test_a_token_for_every_project_until_it_is_revoked(tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard("token", "create", "root", "--role", "admin", "--all-projects", "--days", "0", "-o", "json") == 0
    made: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (made["project"], made["expires_at"], made["role"]) == (None, None, "admin")
    assert tuneyard("token", "ls", token=made["token"]) == 0
    assert tuneyard("token", "create", "eve", "--all-projects", "--project", "vision") == ExitCode.USAGE


def test_projects_are_listed_with_their_quotas(tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]) -> None:
    tuneyard("project", "create", "vision")
    assert tuneyard("project", "quotas", "vision", "--max-running-studies", "3", "--max-stored-gb", "20") == 0
    capsys.readouterr()
    assert tuneyard("project", "ls") == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("vision"))
    assert " ".join(row.split()[1:]) == "at most 3 0.00 0 B of 20.0 GB"
    assert tuneyard("project", "quotas", "speech") == ExitCode.NOT_FOUND
    assert tuneyard("project", "create", "vision") == ExitCode.CONFLICT


def test_quotas_that_are_not_named_stay_as_they_are(tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]) -> None:
    def quotas(*arguments: str) -> tuple[Any, ...]:
        capsys.readouterr()
        assert tuneyard("project", "quotas", "vision", *arguments, "-o", "json") == 0
        found = json.loads(capsys.readouterr().out)
        return found["max_running_studies"], found["max_gpu_hours"], found["max_stored_gb"]

    tuneyard("project", "create", "vision", "--max-gpu-hours", "500")
    assert quotas() == (None, 500, None)
    assert quotas("--max-running-studies", "2") == (2, 500, None)
    assert quotas("--max-stored-gb", "0.5", "--max-running-studies", "none") == (None, 500, 0.5)
    assert quotas() == (None, 500, 0.5)


@pytest.mark.parametrize("quota", ["many", "nan", "", "inf", "1e400", "-1"])
def test_a_quota_that_is_no_number_is_wrong_usage(tuneyard: Tuneyard, quota: str) -> None:
    tuneyard("project", "create", "vision")
    assert tuneyard("project", "quotas", "vision", "--max-gpu-hours", quota) == ExitCode.USAGE


def test_the_audit_log_is_a_table_or_lines_of_json(tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]) -> None:
    tuneyard("project", "create", "vision")
    capsys.readouterr()
    assert tuneyard("audit") == 0
    assert "grace" in capsys.readouterr().out
    assert tuneyard("audit", "-o", "json") == 0
    assert [one["caller"] for one in json.loads(capsys.readouterr().out)] == ["grace"]
    assert tuneyard("audit", "--jsonl") == 0
    (entry,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (entry["caller"], entry["action"], entry["status"]) == ("grace", "createProject", 201)
    assert tuneyard("audit", "--jsonl", "--after", str(entry["id"])) == 0
    assert capsys.readouterr().out == ""


def test_who_sees_every_project_names_one(tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuneyard("--project", "vision", "study", "ls") == ExitCode.NOT_FOUND
    tuneyard("project", "create", "vision")
    assert tuneyard("--project", "vision", "study", "ls") == 0


def test_every_browser_is_logged_out_by_who_says_all(world: World, tuneyard: Tuneyard) -> None:
    access, caller = world.parts.store.access, Caller("ada", Role.VIEWER, Source.OIDC)
    access.add_session("s", NOW + timedelta(days=1), caller)
    assert tuneyard("logout") == ExitCode.USAGE
    assert access.caller_of("s", NOW) == caller
    assert tuneyard("logout", "--all") == 0
    assert access.caller_of("s", NOW) is None


def test_who_sees_every_project_is_told_to_say_which_a_token_is_to_see(
    tuneyard: Tuneyard, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tuneyard("token", "create", "ada") == ExitCode.USAGE
    assert "--all-projects" in capsys.readouterr().err
    tuneyard("project", "create", "vision")
    capsys.readouterr()
    tuneyard("token", "create", "root", "--role", "admin", "--project", "vision", "-o", "json")
    admin = json.loads(capsys.readouterr().out)["token"]
    assert tuneyard("token", "create", "eve", token=admin) == 0
    assert tuneyard("token", "create", "eve", "--role", "root", token=admin) == ExitCode.INVALID
