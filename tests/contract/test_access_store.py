"""The contract of `AccessStore`, `ProjectStore` and `AuditStore`."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from service.domain.access import AccessToken, AuditEntry, Caller, Project, Quotas, Role, Source, Usage
from service.domain.errors import ProjectExists, ProjectNotFound, StudyNotFound, TokenNotFound
from service.domain.ports import Change, Store, StudyQuery
from service.domain.stored import Footprint
from service.domain.study import StudyReason
from service.store import tables
from service.store.access import SqlAccess
from service.store.database import Database
from tests.builders import NOW, a_study, a_trial
from tests.contract.conftest import at_once
from tests.fakes import FakeClock

CODE, OTHER = "a" * 64, "b" * 64
MINUTE = timedelta(minutes=1)
ADA = Caller("ada", Role.EDITOR, Source.OIDC, "vision", ends_at=NOW + MINUTE)
ROOT = Caller("token", Role.ADMIN, Source.OPERATOR, fingerprint="c" * 64)
TOKEN = AccessToken("k3v9x2", "ada", Role.EDITOR, "vision", NOW, "grace", expires_at=NOW + MINUTE)


def test_a_login_code_works_once(store: Store) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE, ADA)
    assert [store.access.use_login_code(CODE, NOW) for _ in range(3)] == [ADA, None, None]


@pytest.mark.parametrize("caller", [ADA, ROOT, TOKEN.caller], ids=lambda one: one.source)
def test_what_let_somebody_in_is_kept_with_their_link_and_their_session(store: Store, caller: Caller) -> None:
    store.access.add_token(TOKEN, CODE)
    store.access.add_login_code(CODE, NOW + MINUTE, caller)
    store.access.add_session(CODE, NOW + MINUTE, caller)
    assert store.access.use_login_code(CODE, NOW) == caller == store.access.caller_of(CODE, NOW)


def test_a_login_code_that_never_was_does_not_work(store: Store) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE, ADA)
    assert not store.access.use_login_code(OTHER, NOW)
    assert not store.access.use_login_code("", NOW)
    assert store.access.use_login_code(CODE, NOW)


@pytest.mark.parametrize(("after", "works"), [(MINUTE - timedelta.resolution, True), (MINUTE, False), (2 * MINUTE, False)])
def test_a_login_code_works_until_it_runs_out(store: Store, after: timedelta, *, works: bool) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE, ADA)
    assert (store.access.use_login_code(CODE, NOW + after) == ADA) is works


def test_of_several_uses_of_a_login_code_at_the_same_time_one_works(store: Store) -> None:
    for turn in range(10):
        code = f"{turn:064}"
        store.access.add_login_code(code, NOW + MINUTE, ADA)
        uses = at_once(*[partial(store.access.use_login_code, code, NOW)] * 4)
        assert [use for use in uses if use is not None] == [ADA]


def test_codes_are_added_at_the_same_time(store: Store) -> None:
    for turn in range(5):
        store.access.add_login_code(f"old-{turn}", NOW, ADA)
        codes = [f"{turn}-{number}" for number in range(4)]
        added = at_once(*(partial(store.access.add_login_code, code, NOW + MINUTE, ADA) for code in codes))
        assert added == [None] * 4
        assert all(store.access.use_login_code(code, NOW) for code in codes)


@pytest.mark.parametrize(("after", "is_there"), [(MINUTE - timedelta.resolution, True), (MINUTE, False), (2 * MINUTE, False)])
def test_a_session_lives_until_it_runs_out(store: Store, after: timedelta, *, is_there: bool) -> None:
    store.access.add_session(CODE, NOW + MINUTE, ADA)
    assert (store.access.caller_of(CODE, NOW + after) == ADA) is is_there


def test_a_session_is_there_however_often_it_is_asked_for(store: Store) -> None:
    store.access.add_session(CODE, NOW + MINUTE, ADA)
    assert [store.access.caller_of(CODE, NOW) for _ in range(3)] == [ADA] * 3
    assert not store.access.caller_of(OTHER, NOW)


def test_a_deleted_session_is_gone_and_others_are_not(store: Store) -> None:
    for session in (CODE, OTHER):
        store.access.add_session(session, NOW + MINUTE, ADA)
    store.access.delete_session(CODE)
    assert (store.access.caller_of(CODE, NOW), store.access.caller_of(OTHER, NOW)) == (None, ADA)


def test_all_sessions_and_links_end_together_and_tokens_stay(store: Store) -> None:
    store.access.add_token(TOKEN, CODE)
    for secret in (CODE, OTHER):
        store.access.add_session(secret, NOW + MINUTE, ADA)
        store.access.add_login_code(secret, NOW + MINUTE, ADA)
    store.access.delete_sessions()
    assert [store.access.caller_of(session, NOW) for session in (CODE, OTHER)] == [None, None]
    assert store.access.use_login_code(CODE, NOW) is None
    assert store.access.token_with(CODE) == TOKEN


def test_to_delete_a_session_that_is_not_there_does_no_harm(store: Store) -> None:
    store.access.delete_session(CODE)
    assert not store.access.caller_of(CODE, NOW)


def test_a_code_is_no_session_and_a_session_no_code(store: Store) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE, ADA)
    store.access.add_session(OTHER, NOW + MINUTE, ADA)
    assert not store.access.caller_of(CODE, NOW)
    assert not store.access.use_login_code(OTHER, NOW)


def test_what_has_run_out_is_forgotten_and_what_has_not_is_kept(store: Store, clock: FakeClock) -> None:
    for add in (store.access.add_login_code, store.access.add_session):
        add("old", clock.now() + MINUTE, ADA)
        add("fresh", clock.now() + 3 * MINUTE, ADA)
    clock.pass_seconds(60)
    for add in (store.access.add_login_code, store.access.add_session):
        add("new", clock.now() + MINUTE, ADA)
        add("old", clock.now() + MINUTE, ADA)
    assert all(store.access.caller_of(session, clock.now()) for session in ("fresh", "new", "old"))
    assert all(store.access.use_login_code(code, clock.now()) for code in ("fresh", "new", "old"))


def test_a_token_is_found_by_its_secret_alone(store: Store) -> None:
    store.access.add_token(TOKEN, CODE)
    assert store.access.token_with(CODE) == TOKEN
    assert store.access.token_with(OTHER) is None
    assert store.access.token_with(TOKEN.id) is None


def test_tokens_are_listed_by_project_the_newest_first(store: Store) -> None:
    later = replace(TOKEN, id="later", created_at=NOW + MINUTE)
    everywhere = replace(TOKEN, id="everywhere", project=None, created_at=NOW + 2 * MINUTE)
    for number, token in enumerate((TOKEN, later, everywhere)):
        store.access.add_token(token, f"{number:064}")
    assert [token.id for token in store.access.tokens()] == ["everywhere", "later", "k3v9x2"]
    assert [token.id for token in store.access.tokens("vision")] == ["later", "k3v9x2"]
    assert store.access.tokens("speech") == []


def test_a_token_is_revoked_once_and_for_all(store: Store) -> None:
    store.access.add_token(TOKEN, CODE)
    assert store.access.revoke(TOKEN.id, NOW).revoked_at == NOW
    assert store.access.revoke(TOKEN.id, NOW + MINUTE).revoked_at == NOW
    found = store.access.token_with(CODE)
    assert found is not None
    assert not found.works(NOW)
    with pytest.raises(TokenNotFound):
        store.access.revoke("nobody", NOW)


def test_a_session_ends_with_the_token_that_it_came_of(store: Store) -> None:
    store.access.add_token(TOKEN, CODE)
    store.access.add_session("one", NOW + 3 * MINUTE, TOKEN.caller)
    assert store.access.caller_of("one", NOW) == TOKEN.caller
    assert store.access.caller_of("one", NOW + MINUTE) is None, "the token has run out"
    store.access.revoke(TOKEN.id, NOW)
    assert store.access.caller_of("one", NOW) is None


def test_when_a_token_was_used_is_noted(store: Store) -> None:
    store.access.add_token(TOKEN, CODE)
    store.access.note_use(TOKEN.id, NOW + MINUTE)
    assert [token.last_used_at for token in store.access.tokens()] == [NOW + MINUTE]


def test_the_default_project_is_always_there(store: Store) -> None:
    assert [project.name for project in store.projects.all()] == ["default"]
    assert store.projects.get("default").quotas == Quotas()
    with pytest.raises(ProjectExists):
        store.projects.add(Project("default", NOW))
    store.projects.set_quotas("default", Quotas(max_running_studies=2))
    store.projects.set_quotas("default", Quotas(max_running_studies=3))
    assert store.projects.get("default").quotas == Quotas(max_running_studies=3)
    assert [project.name for project in store.projects.all()] == ["default"]


def test_projects_are_made_once_and_listed_by_name(store: Store) -> None:
    vision = store.projects.add(Project("vision", NOW, Quotas(max_gpu_hours=2.5, max_stored_gb=10)))
    store.projects.add(Project("audio", NOW))
    with pytest.raises(ProjectExists):
        store.projects.add(Project("vision", NOW))
    assert store.projects.get("vision") == vision
    assert [project.name for project in store.projects.all()] == ["audio", "default", "vision"]
    for ask in (store.projects.get, lambda name: store.projects.set_quotas(name, Quotas())):
        with pytest.raises(ProjectNotFound):
            ask("speech")


def test_what_a_project_has_taken_is_added_up_over_its_studies(store: Store) -> None:
    for study_id, project in (("one-aaaaaa", "vision"), ("two-aaaaaa", "vision"), ("other-aaaaaa", "audio")):
        store.studies.add(replace(a_study(study_id), project=project))
        assert store.leases.acquire(study_id, "driver", NOW, MINUTE)
        trials = [replace(a_trial(number, study_id), gpu_seconds=1.5) for number in range(2)]
        store.trials.record("driver", [Change(trial) for trial in trials])
        store.footprints.set(study_id, Footprint(100, NOW))
    assert store.projects.usage(["vision", "default"]) == {"vision": Usage(6.0, 200), "default": Usage()}


def test_gpu_time_counts_whether_its_study_is_still_there_or_not(store: Store) -> None:
    for study_id in ("one-aaaaaa", "two-aaaaaa"):
        study = store.studies.add(replace(a_study(study_id), project="vision"))
        assert store.leases.acquire(study_id, "driver", NOW, MINUTE)
        store.trials.record("driver", [Change(replace(a_trial(0, study_id), gpu_seconds=1.5))])
        store.studies.save(store.studies.save(study.stopping(StudyReason.CANCEL_REQUESTED)).ended(NOW))
        store.studies.delete(study_id)
    assert store.projects.usage(["vision", "default"]) == {"vision": Usage(3.0), "default": Usage()}


def test_studies_are_found_by_project(store: Store) -> None:
    store.studies.add(replace(a_study("one-aaaaaa"), project="vision"))
    store.studies.add(a_study("two-aaaaaa"))
    assert [study.id for study in store.studies.find(StudyQuery(project="vision")).items] == ["one-aaaaaa"]
    assert [study.id for study in store.studies.find(StudyQuery(project="default")).items] == ["two-aaaaaa"]
    assert len(store.studies.find(StudyQuery()).items) == 2
    assert (store.studies.get("one-aaaaaa").project, store.studies.project_of("one-aaaaaa")) == ("vision", "vision")
    with pytest.raises(StudyNotFound):
        store.studies.project_of("none-aaaaaa")


def test_a_deletion_says_whose_study_it_was(store: Store) -> None:
    study = store.studies.add(replace(a_study(), project="vision"))
    study = store.studies.save(study.stopping(StudyReason.CANCEL_REQUESTED))
    store.studies.save(study.ended(NOW))
    assert store.studies.delete(study.id).project == "vision"
    assert [one.project for one in store.deletions.recent()] == ["vision"]


def test_the_audit_log_keeps_its_order(store: Store) -> None:
    entry = AuditEntry(NOW, "ada", Role.EDITOR, "vision", None, "pauseStudy", "/v1/studies/x:pause", 202, "127.0.0.1")
    for number in range(3):
        store.audit.add(replace(entry, status=200 + number))
    store.audit.add(replace(entry, project=None, caller="grace"))
    first = store.audit.after(0, limit=2)
    assert [one.status for one in first] == [200, 201]
    assert replace(first[0], id=0) == replace(entry, status=200)
    rest = store.audit.after(first[-1].id)
    assert [one.caller for one in rest] == ["ada", "grace"]
    assert [one.caller for one in store.audit.after(0, project="vision")] == ["ada"] * 3
    assert store.audit.after(2**63 - 1) == []


@pytest.mark.parametrize(
    ("written", "whose"),
    [
        (None, Caller("token", Role.ADMIN, Source.OPERATOR)),
        (("token", "admin", None, None), Caller("token", Role.ADMIN, Source.OPERATOR)),
        (("ada", "admin", None, None), Caller("ada", Role.ADMIN, Source.OIDC)),
        (("token", "editor", "vision", None), Caller("token", Role.EDITOR, Source.OIDC, "vision")),
        (("ada", "editor", "vision", TOKEN.id), Caller("ada", Role.EDITOR, Source.TOKEN, "vision", TOKEN.id)),
    ],
)
def test_of_a_session_of_an_earlier_version_it_is_known_what_it_came_of(written: tuple[Any, ...] | None, whose: Caller) -> None:
    database = Database("sqlite://")
    caller = None if written is None else dict(zip(("name", "role", "project", "token"), written, strict=True))
    with database.writing() as connection:
        tables.metadata.create_all(connection)
        connection.execute(tables.sessions.insert().values(sha256=CODE, expires_at=NOW + MINUTE, caller=caller))
    access = SqlAccess(database, FakeClock(NOW))
    access.add_token(TOKEN, CODE)
    assert access.caller_of(CODE, NOW) == whose
