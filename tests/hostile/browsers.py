"""What a browser can be made to send by somebody else's page, name or cookie."""

from collections.abc import Iterator

from tests.hostile.attack import Act, Attack, attack, posting
from tests.hostile.target import Answer, Target

_FORGED: dict[str, dict[str, str]] = {
    "no origin": {}, "the origin null": {"Origin": "null"}, "another site": {"Origin": "http://evil.example"},
    "another port": {"Origin": "http://127.0.0.1:1"}, "a name that begins alike": {"Origin": "http://{host}.evil.example"},
    "a user before the host": {"Origin": "http://{host}@evil.example"}, "a sub-domain": {"Origin": "http://evil.{host}"},
    "the same site": {"Origin": "http://{host}", "Sec-Fetch-Site": "same-site"}, "cross-site": {"Origin": "http://{host}",
    "Sec-Fetch-Site": "cross-site"},
    "an empty origin": {"Origin": ""}, "a path as origin": {"Origin": "/{host}"},
    "half an IPv6 address": {"Origin": "http://["}, "a port that is no number": {"Origin": "http://127.0.0.1:x"},
}  # fmt: skip
_HOSTS = (
    "evil.example",
    "{host}.evil.example",
    "127.0.0.1.nip.io",
    "127.0.0.2",
    "localhost.evil.example",
    "[::2]",
    "evil@127.0.0.1",
    "127.0.0.1:1:2",
    "[",
    "127.0.0.1:x",
    "",
)
_SIMPLE = ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x")
_NEXT = (
    "//evil.example", "https://evil.example", "/\\evil.example", "\\\\evil.example",
    "javascript:alert(1)", "/\t/evil.example",
    "/mlflow/\r\nSet-Cookie: x=y", "%2f%2fevil.example", "data:text/html,x", "/ /evil.example", "///evil.example", "",
)  # fmt: skip


def attacks() -> Iterator[Attack]:
    for name, headers in _FORGED.items():
        yield attack(f"a change from {name}", _changing(headers), 403)
        yield attack(f"a log-out from {name}", _changing(headers, "/logout"), 403)
    for media_type in _SIMPLE:
        headers = {"Origin": "http://evil.example", "Content-Type": media_type}
        yield attack(f"a change as {media_type}", _changing(headers, "/v1/studies"), 403)
    for host in _HOSTS:
        yield attack(f"the host {host!r}", _as_host(host), 400, 403)
    for method in ("GET", "HEAD"):
        for verb in (":pause", ":cancel", ":stop"):
            yield attack(f"{method} with an effect: {verb}", _reading(method, verb), 404, 405)
    yield attack("a browser that makes tokens", _own_page("POST", "/v1/tokens"), 401)
    yield attack("a browser that makes login links", _own_page("POST", "/v1/login-links"), 401)
    yield attack("a cookie of one's own choice", _fixed_session, 401)
    yield attack("two cookies, the first of them another's", _tossed, 401)
    yield attack("a login link used twice", _used_twice, 403)
    for wanted in _NEXT:
        yield attack(f"a login that leads to {wanted!r}", _leading_to(wanted), 400, 403, 422)
        yield attack(f"a login link that leads to {wanted!r}", _link_to(wanted), 400, 422)
    for path in ("/v1/studies/%3Cscript%3Ealert(1)%3C/script%3E", "/%3Cscript%3E", "/v1/datasets/%22onload=x/files/x"):
        yield attack(f"a script in {path}", _reflected(path), 404, 405)


def _changing(headers: dict[str, str], path: str = "/v1/studies/{own}:cancel") -> Act:
    def act(target: Target) -> Answer:
        sent = {name: value.replace("{host}", target.host) for name, value in headers.items()}
        return target.ask(
            "POST", path.replace("{own}", target.studies["own"]), None, b"{}", {**sent, "Cookie": target.logged_in()}
        )

    return act


def _as_host(host: str) -> Act:
    return lambda target: target.ask(
        "GET", "/v1/studies", None, headers={"Host": host.replace("{host}", target.host), "Cookie": target.logged_in()}
    )


def _reading(method: str, verb: str) -> Act:
    return lambda target: target.ask(method, f"/v1/studies/{target.studies['own']}{verb}", "operator")


def _own_page(method: str, path: str) -> Act:
    def act(target: Target) -> Answer:
        headers = {"Cookie": target.logged_in(), "Origin": f"http://{target.host}", "Content-Type": "application/json"}
        return target.ask(method, path, None, b'{"name": "x", "role": "admin"}', headers)

    return act


def _fixed_session(target: Target) -> Answer:
    return target.ask("GET", "/v1/studies", None, headers={"Cookie": "tuneyard_session=" + "a" * 43})


def _tossed(target: Target) -> Answer:
    return target.ask("GET", "/v1/studies", None, headers={"Cookie": f"{target.logged_in()}; tuneyard_session=" + "a" * 43})


def _used_twice(target: Target) -> Answer:
    link = target.login_link()
    target.ask("GET", link, None)
    return target.ask("GET", link, None)


def _leading_to(wanted: str) -> Act:
    def act(target: Target) -> Answer:
        link = target.login_link().partition("&next=")[0]
        sent = "".join(f"%{byte:02x}" for byte in wanted.encode())
        answer = target.ask("GET", f"{link}&next={sent}", None)
        assert "evil.example" not in answer.head
        return answer

    return act


def _link_to(wanted: str) -> Act:
    return posting({"next": wanted}, "/v1/login-links", "operator")


def _reflected(path: str) -> Act:
    def act(target: Target) -> Answer:
        answer = target.ask("GET", path, "operator", headers={"Accept": "text/html"})
        assert "text/html" not in answer.head.lower()
        assert "x-content-type-options: nosniff" in answer.head.lower()
        return answer

    return act
