import hashlib
import re
import stat
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from starlette.testclient import TestClient

from service.api.auth import load_or_make_token, new_login_path, new_token, token_of
from service.api.identity import SESSION_COOKIE, operator
from service.domain.errors import NotReady
from service.settings import Settings
from tests.api.conftest import TOKEN, World, client_of, with_parts

PAGE = "/mlflow/#/experiments/1/runs"


def log_in(world: World, browser: TestClient, next_path: str = "/docs") -> None:
    link = new_login_path(world.parts.store.access, world.clock, 300, TOKEN, next_path)
    assert browser.get(link, follow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer x {TOKEN}", "Bearer \xe9"],
)
def test_without_the_exact_token_nobody_gets_in(stranger: TestClient, header: str) -> None:
    response = stranger.get("/v1/studies", headers={b"Authorization": header.encode("latin-1")})
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/studies", "/v1/datasets", "/mlflow/", "/mlflow/graphql", "/docs", "/openapi.json", "/metrics"]
)
def test_a_stranger_gets_in_nowhere(stranger: TestClient, path: str) -> None:
    assert stranger.get(path).status_code == 401


def test_the_scheme_of_the_token_may_be_written_in_any_case(stranger: TestClient) -> None:
    assert stranger.get("/v1/studies", headers={"Authorization": f"bearer {TOKEN}"}).status_code == 200


def test_a_wrong_token_is_refused_even_beside_a_good_session(world: World, stranger: TestClient) -> None:
    log_in(world, stranger)
    assert stranger.get("/v1/studies", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_a_login_link_opens_its_page_with_its_fragment_and_a_session(world: World, client: TestClient) -> None:
    made = client.post("/v1/login-links", json={"next": PAGE})
    assert made.status_code == 201
    assert made.json()["expires_at"] == "2030-01-02T03:09:05Z"
    with client_of(world.parts, token=None) as browser:
        opened = browser.get(made.json()["url"], follow_redirects=False)
        assert (opened.status_code, opened.headers["Location"]) == (303, PAGE)
        cookie = opened.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
        assert "Secure" not in cookie
        assert (opened.headers["Referrer-Policy"], opened.headers["Cache-Control"]) == ("no-referrer", "no-store")
        assert browser.get("/v1/studies").status_code == 200


def test_a_login_link_needs_no_body(client: TestClient) -> None:
    url = client.post("/v1/login-links").json()["url"]
    assert parse_qs(urlsplit(url).query)["next"] == ["/mlflow/"]


def test_over_https_the_cookie_stays_on_https(world: World) -> None:
    with client_of(world.parts, token=None) as browser:
        link = new_login_path(world.parts.store.access, world.clock, 300, TOKEN)
        opened = browser.get(f"https://127.0.0.1:8080{link}", follow_redirects=False)
    assert "Secure" in opened.headers["Set-Cookie"].split("; ")


def test_a_used_login_code_is_refused(world: World, stranger: TestClient) -> None:
    link = new_login_path(world.parts.store.access, world.clock, 300, TOKEN)
    assert stranger.get(link, follow_redirects=False).status_code == 303
    again = stranger.get(link, follow_redirects=False)
    assert again.status_code == 403
    assert again.json()["type"] == "urn:tuneyard:problem:invalid-login-code"
    assert "tuneyard login" in again.json()["detail"]


def test_a_login_code_runs_out(world: World, client: TestClient, stranger: TestClient) -> None:
    link = client.post("/v1/login-links").json()["url"]
    world.clock.pass_seconds(300)
    assert stranger.get(link, follow_redirects=False).status_code == 403


def test_a_person_with_a_spent_link_gets_a_page_that_says_what_to_do(stranger: TestClient) -> None:
    page = stranger.get("/login?code=<b>&next=/docs", headers={"Accept": "text/html,*/*"})
    assert (page.status_code, page.headers["Content-Type"]) == (403, "text/html; charset=utf-8")
    assert "<code>tuneyard login</code>" in page.text


BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("path", ["/docs", "/mlflow/", "/v1/studies"])
def test_a_person_who_is_not_logged_in_gets_a_page_that_says_how_to(stranger: TestClient, path: str) -> None:
    page = stranger.get(path, headers={"Accept": BROWSER})
    assert (page.status_code, page.headers["Content-Type"]) == (401, "text/html; charset=utf-8")
    assert (page.headers["WWW-Authenticate"], page.headers["Cache-Control"]) == ('Bearer realm="tuneyard"', "no-store")
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert "<code>tuneyard login</code>" in page.text
    assert "`" not in page.text


@pytest.mark.parametrize(
    "accept",
    [
        "",
        "*/*",
        "application/json",
        "application/json, text/html;q=0.9",
        "text/html;q=0",
        "text/html;q=soon",
        "text/htmlx",
        ";,;=",
    ],
)
def test_a_program_that_is_not_let_in_gets_a_problem(stranger: TestClient, accept: str) -> None:
    answer = stranger.get("/docs", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")


def test_a_person_to_whom_logging_in_is_of_no_use_is_told_what_is(world: World, stranger: TestClient) -> None:
    log_in(world, stranger)
    page = stranger.get("/v1/tokens", headers={"Accept": BROWSER})
    assert (page.status_code, "not logged in" in page.text) == (401, False)
    assert "A token is needed here" in page.text
    wrong = stranger.get("/v1/studies", headers={"Accept": BROWSER, "Authorization": "Bearer wrong-token-wrong-token"})
    assert (wrong.status_code, "not logged in" in wrong.text) == (401, False)


def test_what_would_change_something_is_never_refused_with_a_page(stranger: TestClient) -> None:
    answer = stranger.post("/v1/studies", headers={"Accept": BROWSER})
    assert (answer.status_code, answer.headers["Content-Type"]) == (401, "application/problem+json")


def test_a_wrong_token_is_not_taken_for_a_missing_one(world: World, stranger: TestClient) -> None:
    missing = stranger.get("/v1/studies")
    wrong = stranger.get("/v1/studies", headers={"Authorization": "Bearer wrong"})
    assert "not valid" in wrong.json()["detail"]
    assert 'error="invalid_token"' in wrong.headers["WWW-Authenticate"]
    assert "not valid" not in missing.json()["detail"]
    assert "error" not in missing.headers["WWW-Authenticate"]
    log_in(world, stranger)
    world.clock.pass_seconds(10**8)
    ended = stranger.get("/v1/studies")
    assert "session is not valid" in ended.json()["detail"]
    assert "error" not in ended.headers["WWW-Authenticate"]


@pytest.mark.parametrize("header", ["Bearer", "Bearer ", f"Basic {TOKEN}"])
def test_a_header_without_a_token_is_not_taken_for_a_wrong_one(stranger: TestClient, header: str) -> None:
    answer = stranger.get("/v1/studies", headers={"Authorization": header})
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="tuneyard"'


def test_link_previews_and_prefetches_leave_the_code_intact(world: World, stranger: TestClient) -> None:
    link = new_login_path(world.parts.store.access, world.clock, 300, TOKEN)
    assert stranger.head(link).status_code == 405
    assert stranger.get(link, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 503
    assert stranger.get(link, follow_redirects=False).status_code == 303


@pytest.mark.parametrize(
    "elsewhere",
    ["//evil.example", "https://evil.example", "/\\evil.example", "\\/evil.example", "javascript:alert(1)", "", "docs",
     "/\t/evil", "/a\r\nb", "/mlflow\\..", "/ü", "/ "],
)  # fmt: skip
def test_a_login_link_never_leads_elsewhere_and_keeps_its_code(world: World, client: TestClient, elsewhere: str) -> None:
    assert client.post("/v1/login-links", json={"next": elsewhere}).status_code == 422
    with client_of(world.parts, token=None) as browser:
        code = parse_qs(urlsplit(new_login_path(world.parts.store.access, world.clock, 300, TOKEN)).query)["code"][0]
        answer = browser.get(f"/login?code={code}&next={quote(elsewhere)}", follow_redirects=False)
        assert answer.status_code == 403
        assert "Set-Cookie" not in answer.headers
        assert browser.get(f"/login?code={code}", follow_redirects=False).status_code == 303


@pytest.mark.parametrize("body", [[], {"next": 1}, {"to": "/"}, {"next": None}])
def test_a_login_link_for_something_odd_is_refused_by_its_field(client: TestClient, body: object) -> None:
    response = client.post("/v1/login-links", json=body)
    assert response.status_code == 422
    assert response.json()["violations"]


def test_a_session_cannot_make_login_links(world: World, stranger: TestClient) -> None:
    log_in(world, stranger)
    response = stranger.post("/v1/login-links", headers={"Origin": "http://127.0.0.1:8080"})
    assert response.status_code == 401


def test_neither_codes_nor_sessions_are_stored_as_they_are(world: World, stranger: TestClient) -> None:
    access = world.parts.store.access
    link = new_login_path(access, world.clock, 300, TOKEN)
    code = parse_qs(urlsplit(link).query)["code"][0]
    assert len(code) >= 43
    assert not access.use_login_code(code, world.clock.now())
    assert stranger.get(link, follow_redirects=False).status_code == 303
    session = stranger.cookies[SESSION_COOKIE]
    assert access.caller_of(session, world.clock.now()) is None
    assert access.caller_of(hashlib.sha256(session.encode()).hexdigest(), world.clock.now()) == operator(TOKEN)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://127.0.0.1:x"}, 403),
        ({"Origin": "http://127.0.0.1:99999"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://evil.example", "Sec-Fetch-Site": "same-origin"}, 403),
        ({"Origin": "http://127.0.0.1:8080"}, 404),
        ({"Sec-Fetch-Site": "same-origin"}, 404),
    ],
)
def test_with_a_cookie_only_our_own_pages_can_change_something(
    world: World, stranger: TestClient, headers: dict[str, str], status: int
) -> None:
    log_in(world, stranger)
    assert stranger.delete("/v1/studies/none-abc123", headers=headers).status_code == status


def test_with_a_cookie_the_service_answers_only_under_the_names_it_is_bound_to(world: World, stranger: TestClient) -> None:
    log_in(world, stranger)
    cookie = {"Cookie": f"{SESSION_COOKIE}={stranger.cookies[SESSION_COOKIE]}"}
    assert stranger.get("/v1/studies", headers={"Host": "evil.example:8080"}).status_code == 403
    assert stranger.get("/v1/studies", headers={"Host": "localhost.evil.example"}).status_code == 403
    for host in ("localhost:1", "127.0.0.1", "[::1]:8080", "LOCALHOST"):
        assert stranger.get("/v1/studies", headers={"Host": host}).status_code == 200
    everywhere = with_parts(world, settings=Settings(home=world.parts.settings.home, host="0.0.0.0"))  # noqa: S104 - that is the point
    with client_of(everywhere, token=None) as browser:
        assert browser.get("/v1/studies", headers={**cookie, "Host": "tuneyard.example"}).status_code == 200


def test_a_session_ends_by_itself(world: World, stranger: TestClient) -> None:
    log_in(world, stranger)
    world.clock.pass_seconds(world.parts.settings.session_seconds - 1)
    assert stranger.get("/v1/studies").status_code == 200
    world.clock.pass_seconds(1)
    assert stranger.get("/v1/studies").status_code == 401


def test_logging_out_ends_the_session_and_not_only_the_cookie(world: World, stranger: TestClient) -> None:
    log_in(world, stranger)
    cookie = stranger.cookies[SESSION_COOKIE]
    assert stranger.post("/logout", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 204
    assert SESSION_COOKIE not in stranger.cookies
    assert stranger.get("/v1/studies", headers={"Cookie": f"{SESSION_COOKIE}={cookie}"}).status_code == 401


def test_the_token_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "home" / "token"
    token = load_or_make_token(path)
    assert re.fullmatch(r"[\w-]{43}", token)
    assert load_or_make_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in path.parent.iterdir()] == ["token"]
    assert new_token() != new_token()


def test_a_token_file_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = load_or_make_token(path)
    path.chmod(0o644)
    assert load_or_make_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "\n", "short", "with spaces in the middle of it"])
def test_a_file_that_holds_no_token_is_refused_with_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "token"
    path.write_text(content)
    with pytest.raises(NotReady, match="delete it"):
        load_or_make_token(path)


def test_a_token_file_that_is_a_link_or_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_text(new_token())
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(NotReady, match="delete it"):
            load_or_make_token(tmp_path / name)


def test_services_that_share_a_token_read_it_from_the_file_that_they_are_given_and_leave_it_alone(tmp_path: Path) -> None:
    mounted = tmp_path / "..data"
    mounted.write_text("a-token-that-is-shared\n")
    mounted.chmod(0o440)
    (tmp_path / "token").symlink_to(mounted)  # as a secret is mounted into a container
    for home in ("one", "two"):
        settings = Settings(home=tmp_path / home, token_file=tmp_path / "token")
        assert token_of(settings) == "a-token-that-is-shared"
        assert not settings.layout.token.exists()
    assert stat.S_IMODE(mounted.stat().st_mode) == 0o440


def test_a_service_without_such_a_file_has_a_token_of_its_own(tmp_path: Path) -> None:
    one, two = (Settings(home=tmp_path / home) for home in ("one", "two"))
    assert token_of(one) == one.layout.token.read_text() != token_of(two)


@pytest.mark.parametrize(
    ("content", "mode", "advice"),
    [(None, 0, "openssl rand"), ("short", 0o600, "openssl rand"), ("a-token-that-is-shared", 0o644, "chmod o=")],
)
def test_a_shared_token_file_that_is_missing_empty_or_open_to_all_is_refused(
    tmp_path: Path, content: str | None, mode: int, advice: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(NotReady, match=advice):
        token_of(Settings(home=tmp_path / "home", token_file=path))


def test_a_login_path_outside_the_service_cannot_be_made(world: World) -> None:
    with pytest.raises(ValueError, match="one slash"):
        new_login_path(world.parts.store.access, world.clock, timedelta(minutes=5).total_seconds(), TOKEN, "//evil.example")


def test_over_tls_the_cookie_is_of_this_very_host(world: World) -> None:
    with client_of(world.parts, token=None) as browser:
        browser.base_url = "https://127.0.0.1:8080"
        link = new_login_path(world.parts.store.access, world.clock, 300, TOKEN)
        set_cookie = browser.get(link, follow_redirects=False).headers["Set-Cookie"]
        assert set_cookie.startswith(f"__Host-{SESSION_COOKIE}=")
        assert "Secure" in set_cookie
        assert "Path=/;" in set_cookie
        assert "Domain" not in set_cookie
        session = set_cookie.partition(";")[0].partition("=")[2]
        browser.cookies.clear()
        tossed = {"Cookie": f"{SESSION_COOKIE}={session}"}
        assert browser.get("/v1/studies", headers=tossed).status_code == 401, "a neighbour's name could have set it"
        assert browser.get("/v1/studies", headers={"Cookie": f"__Host-{SESSION_COOKIE}={session}"}).status_code == 200


def test_of_two_tokens_none_counts(world: World, stranger: TestClient) -> None:
    both = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
    assert stranger.get("/v1/studies", headers=both).status_code == 401
    assert stranger.get("/v1/studies", headers=both[:1]).status_code == 200
