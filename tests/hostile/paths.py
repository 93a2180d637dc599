"""Names that would lead out of their folders, and addresses that would be fetched."""

from collections.abc import Iterator
from urllib.parse import quote

from tests.hostile.attack import Act, Attack, attack, posting
from tests.hostile.target import Answer, Target, trained

_CLIMBS = (
    "..", "../../etc/passwd", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd", "..%5c..%5cetc",
    "%252e%252e%252f",
    "..%252f..%252fetc", "....//....//etc", "..;/..;/etc", "%c0%ae%c0%ae/", "%e2%80%a5/etc", "%uff0e%uff0e", "/etc/passwd",
    "%2fetc%2fpasswd", "file:%2f%2f%2fetc%2fpasswd", "a%00.csv", "%00", ".", "%2e", "a.csv%20", "a.csv::$DATA", "C:%5cx.csv",
    "%5c%5chost%5cshare", "~root", ".hidden.csv", ".projects", "%0aX:y", "%1b%5b31m.csv", "%ff%fe.csv", "x" * 300 + ".csv",
)  # fmt: skip
_PLACES = (
    ("GET", "/v1/presets/{}"), ("GET", "/v1/studies/{}"), ("GET", "/v1/studies/{}/events"), ("GET",
    "/v1/studies/{{own}}/trials/0/checkpoint/files/{}"),
    ("GET", "/v1/studies/{{own}}/analysis/figures/{}"), ("PUT", "/v1/datasets/{}/files/a.csv"), ("PUT",
    "/v1/datasets/a/files/{}"), ("DELETE", "/v1/datasets/{}"), ("DELETE", "/v1/datasets/a/files/{}"),
)  # fmt: skip
_GATEWAY = (
    "/mlflow/../v1/tokens", "/mlflow/%2e%2e/%2e%2e/etc/passwd", "/mlflow/static-files/../../etc/passwd",
    "/mlflow/static-files/..%2f..%2fx",
    "/mlflow/static-files/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/mlflow/api/2.0/mlflow/runs/create",
    "/mlflow/api/2.0/mlflow//runs/search",
    "/mlflow/api/2.0/mlflow/runs/search;x", "/mlflow/ajax-api/3.0/mlflow/assistant/status",
    "/mlflow/ajax-api/3.0/mlflow/assistant/sessions",
    "/mlflow/gateway/endpoints", "/mlflow/ajax-api/2.0/mlflow/gateway-proxy?gateway_path=http://127.0.0.1/", "/mlflow/signup",
    "/mlflow/api/2.0/mlflow-artifacts/artifacts/../../x", "/mlflow/api/2.0/mlflow-artifacts/artifacts/%2e%2e/%2e%2e/mlflow.db",
    "/mlflow/api/2.0/mlflow-artifacts/artifacts/..%5c..%5cmlflow.db", "/mlflow/invocations", "/mlflow%2f..%2fv1",
)  # fmt: skip
_MODELS = (
    "/etc", "/etc/passwd", "../../../../etc", "./..", "~root/.ssh", "~", "file:///etc/passwd", "http://{evil}/model",
    "https://{evil}/model",
    "hub://{evil}/x", "//{evil}/x", "owner/../../etc", "owner/name@http://{evil}", "a" * 5000, "\u2025/etc", "s3://bucket/x",
    "model\n",
    "{home}", "{home}/checkpoints", "{models}/../home", "{models}/linked", "{models}/leaky", "{models}/coded", "{models}/pickled",
    "{models}/adapted", "{models}/kernel", "{models}/bomb", "{models}/nested",
)  # fmt: skip
_BECAUSE = {
    "leaky": "is a link to where nothing may be read", "coded": "code of its own", "kernel": "asks for code of the hub",
    "pickled": "only safetensors are read", "adapted": "holds an adapter", "bomb": "cut short", "nested": "cut short",
    "linked": "no model", "passwd": "no model",
}  # fmt: skip
"""Why a folder of `folders.py` is refused."""
_ROWS = (
    "/etc/passwd", "file:///etc/passwd", "http://{evil}/rows.csv", "https://{evil}/rows.csv", "hub://{evil}/x/train",
    "hub://../../etc/train",
    "hub://a/b/../../c", "dataset://../secret/rows.csv", "dataset://.projects/speech", "dataset://intents/../../token",
    "dataset://intents/train.csv/..", "dataset://%2e%2e/x.csv", "builtin://../../etc", "builtin://api-docs/../../x",
    "s3://bucket/rows.csv",
    "dataset://intents/\u202etrain.csv", "dataset://intents/train.csv\0",
)  # fmt: skip


def attacks() -> Iterator[Attack]:
    for method, place in _PLACES:
        for climb in _CLIMBS:
            yield attack(f"{method} {place.format(climb[:30])}", _at(method, place.format(climb)), 307, 400, 404, 405, 422, 428)
    for path in _GATEWAY:
        for method in ("GET", "POST", "PUT", "DELETE"):
            yield attack(f"{method} {path}", _gateway(method, path), 400, 403, 404, 405)
    for name in _MODELS:
        yield attack(f"the model {name[:30]!r}", _model(name), 400, 422, says=_BECAUSE.get(name.rpartition("/")[2], ""))
        yield attack(f"what is said of the model {name[:30]!r}", _described(name), 404, 422)
    for uri in _ROWS:
        yield attack(f"the rows {uri!r}", _rows(uri), 400, 422)


def _at(method: str, path: str) -> Act:
    return lambda target: target.ask(
        method, path.replace("{own}", target.studies["own"]), body=b"text,label\na,b\n" if method == "PUT" else b""
    )


def _gateway(method: str, path: str) -> Act:
    return lambda target: target.ask(method, path, "operator")


def _filled(name: str, target: Target) -> str:
    return (
        name.replace("{evil}", target.evil)
        .replace("{home}", str(target.service.home))
        .replace("{models}", str(target.service.models))
    )


def _model(name: str) -> Act:
    return lambda target: posting(trained(_filled(name, target)))(target)


def _described(name: str) -> Act:
    return lambda target: target.ask("GET", "/v1/models/" + quote(_filled(name, target), safe=""))


def _rows(uri: str) -> Act:
    def act(target: Target) -> Answer:
        trainer = dict(trained(target.service.model)["trainer"])  # type: ignore[call-overload]  # a dictionary
        trainer["data"] = {**trainer["data"], "train": uri.replace("{evil}", target.evil)}
        return posting(trained(target.service.model, trainer=trainer))(target)

    return act
