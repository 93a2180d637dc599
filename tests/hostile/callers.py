"""Who is let in, and how far: tokens that are not right, and right ones that reach for what is not theirs."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.hostile.attack import Act, Attack, asking, attack, posting
from tests.hostile.target import EXPORT, Answer, Target, simulated, trained

_LONG = "x" * 60_000
_CHANGES = (
    ("POST", "/v1/studies"), ("POST", "/v1/studies/{own}:pause"), ("POST", "/v1/studies/{own}:cancel"),
    ("DELETE", "/v1/studies/{own}"), ("PATCH", "/v1/studies/{own}"), ("PUT", "/v1/datasets/a/files/a.csv"),
    ("DELETE", "/v1/datasets/intents"), ("DELETE", "/v1/datasets/intents/files/train.csv"),
    ("POST", "/v1/tokens"), ("POST", "/v1/projects"), ("POST", "/v1/studies/{own}/trials"),
)  # fmt: skip
_FOREIGN = (
    ("GET", ""), ("GET", "/trials"), ("GET", "/trials/0"), ("GET", "/events"), ("GET", "/best"), ("GET", "/best/checkpoint"),
    ("GET", "/best/checkpoint/archive"), ("GET", "/trials/0/checkpoint/files/config.json"), ("GET", "/analysis"),
    ("GET", "/spending"), ("GET", "/lineage"), ("POST", ":pause"), ("POST", ":cancel"), ("POST", ":fork"), ("DELETE", ""),
    ("POST", "/trials"), ("PATCH", ""),
)  # fmt: skip
_MLFLOW = (
    "/mlflow/ajax-api/2.0/mlflow/runs/get?run_id={run}",
    "/mlflow/ajax-api/2.0/mlflow/experiments/get?experiment_id={experiment}",
    "/mlflow/ajax-api/2.0/mlflow/metrics/get-history?run_id={run}&metric_key=validation/loss",
    "/mlflow/ajax-api/2.0/mlflow/artifacts/list?run_id={run}",
    EXPORT,
)
"""What the neighbour sees of their study there; tests/integration/test_gateway_projects.py tries all the rest."""


def attacks() -> Iterator[Attack]:
    for who in ("wrong", "expired", "revoked"):
        yield attack(f"a token that is {who}", asking("GET", "/v1/studies", who), 401)
    for name, headers in _odd_headers():
        yield attack(name, _with_headers(headers), 400, 401)
    yield attack("a token in the query", lambda target: target.ask("GET", f"/v1/studies?token={target.service.token}", None), 401)
    yield attack("two tokens", _two_tokens, 401)
    for method, path in _CHANGES:
        yield attack(f"a viewer's {method} {path}", _on_own(method, path, "viewer"), 403)
    yield attack("an editor who makes tokens", posting({"name": "x", "role": "admin"}, "/v1/tokens"), 403)
    yield attack(
        "an admin who makes a token for all", posting({"name": "x", "role": "admin", "project": None}, "/v1/tokens", "admin"), 403
    )
    yield attack("an admin who makes projects", posting({"name": "x"}, "/v1/projects", "admin"), 403)
    yield attack(
        "somebody else's project by header",
        lambda target: target.ask("GET", "/v1/studies", headers={"Tuneyard-Project": "speech"}), 404,
    )  # fmt: skip
    for method, rest in _FOREIGN:
        yield attack(f"another project's study: {method} {rest or '/'}", _on_neighbours(method, rest), 404)
    yield attack("another project's rows", posting(trained("tiny", trainer={**_trainer(), "data": _foreign_rows()})), 422)
    for rest in ("", "/files/rows.csv"):
        yield attack(f"another project's rows: DELETE {rest or '/'}", asking("DELETE", f"/v1/datasets/secret{rest}"), 404)
        yield attack(f"another project's rows by header: DELETE {rest or '/'}", _into_speech(rest), 404)
    yield attack("a warm start from another project", _warm_start, 422, 404)
    yield attack("a list of another project's studies", _listed, 200)
    for path in _MLFLOW:
        yield attack(f"a member at {path}", _in_mlflow(path), 404)


def _with_headers(headers: Mapping[str, str]) -> Act:
    def act(target: Target) -> Answer:
        sent = {name: value.replace("{}", target.service.token) for name, value in headers.items()}
        return target.ask("GET", "/v1/studies", None, headers=sent)

    return act


def _odd_headers() -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, value in (
        ("no token", None), ("an empty token", "Bearer "), ("no scheme", "{}"), ("Basic", "Basic {}"),
        ("Digest", 'Digest response="{}"'),
        ("a scheme of two words", "Bearer Bearer {}"), ("a comma", "Bearer x, Bearer {}"), ("a token in quotes", 'Bearer "{}"'),
        ("unicode", "Bearer {}\u00e9\u4e2d"), ("half a surrogate", "Bearer {}\udc80"), ("a long token", "Bearer {}" + _LONG),
        ("NUL", "Bearer {}\0"), ("a token of one more letter", "Bearer {}x"), ("a tab", "Bearer\t{}"),
    ):  # fmt: skip
        yield name, {} if value is None else {"Authorization": value}
    yield "a token as cookie", {"Cookie": "tuneyard_session={}; token={}"}
    yield "a token in another header", {"X-Auth-Token": "{}", "Proxy-Authorization": "Bearer {}"}


def _two_tokens(target: Target) -> Answer:
    both = "".join(f"Authorization: Bearer {one}\r\n" for one in (target.service.token, target.tokens["viewer"]))
    return target.send([f"GET /v1/studies HTTP/1.1\r\nHost: {target.host}\r\nConnection: close\r\n{both}\r\n".encode()])


def _on_own(method: str, path: str, who: str) -> Act:
    return lambda target: target.ask(
        method, path.format(own=target.studies["own"]), who, b"{}", {"Content-Type": "application/json"}
    )


def _on_neighbours(method: str, rest: str) -> Act:
    def act(target: Target) -> Answer:
        body = b"{}" if method in {"POST", "PATCH"} else b""
        headers = {"Content-Type": "application/json", "If-Match": "*"}
        return target.ask(method, f"/v1/studies/{target.studies['neighbour']}{rest}", "editor", body, headers)

    return act


def _in_mlflow(path: str) -> Act:
    def act(target: Target) -> Answer:
        asked = path.format(**target.tracked)
        assert target.ask("GET", asked, "neighbour").status == 200, "it is there"
        return target.ask("GET", asked)

    return act


def _into_speech(rest: str) -> Act:
    return lambda target: target.ask("DELETE", f"/v1/datasets/secret{rest}", headers={"Tuneyard-Project": "speech"})


def _warm_start(target: Target) -> Answer:
    return posting(simulated(warm_start=[target.studies["neighbour"]]))(target)


def _listed(target: Target) -> Answer:
    answer = target.ask("GET", "/v1/studies?limit=200")
    assert target.studies["own"] in answer.body
    assert target.studies["neighbour"] not in answer.body
    return answer


def _trainer() -> Any:
    return trained("tiny")["trainer"]


def _foreign_rows() -> dict[str, object]:
    return {"train": "dataset://secret/rows.csv", "validation_fraction": 0.2}
