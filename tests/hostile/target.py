"""The service under attack, as an attacker reaches it: bytes on a socket, and tokens of more and of fewer rights."""

import contextlib
import json
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import httpx

from service.api.identity import new_secret, sha256_of
from service.domain.access import AccessToken, Role
from service.domain.ports import Store
from service.store.sql import open_store
from tests.running import RunningService, wait_until

EXPORT = "/mlflow/get-artifact?path=model/simulation.json&run_uuid={run}"
"""The last that is written of a study in MLflow: its champion's export."""
CLOSED = 0
"""In place of a status: the connection was closed without an answer."""
_SECONDS = 90.0


@dataclass(frozen=True)
class Answer:
    """What came back on a connection until it was closed."""

    raw: bytes

    @property
    def status(self) -> int:
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", self.raw)
        return int(found[1]) if found else CLOSED

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode("latin-1")

    @property
    def body(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[2].decode(errors="replace")


@dataclass
class Target:
    """A running service with two projects. `heard` is all that it has ever answered to attacks.

    `tracked` are the ids that MLflow gave the neighbour's study.

    `evil` is an address on this machine where nobody may ever call.
    """

    service: RunningService
    evil: str
    tokens: dict[str, str] = field(default_factory=dict)
    studies: dict[str, str] = field(default_factory=dict)
    tracked: dict[str, str] = field(default_factory=dict)
    heard: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> tuple[str, int]:
        place = urlsplit(self.service.url)
        return str(place.hostname), int(place.port or 0)

    @property
    def host(self) -> str:
        return "{}:{}".format(*self.address)

    def bearer(self, who: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.tokens[who]}"}

    def send(self, pieces: Iterable[bytes]) -> Answer:
        """These bytes as they are, and all that comes back."""
        found = b""
        with socket.create_connection(self.address, timeout=_SECONDS) as line:
            with contextlib.suppress(ConnectionError):  # what is refused is not read to its end
                for piece in pieces:
                    line.sendall(piece)
            with contextlib.suppress(ConnectionError):
                while more := line.recv(2**16):
                    found += more
        self.heard.append(found)
        return Answer(found)

    def ask(
        self, method: str, path: str, who: str | None = "editor", body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request with its path as it stands here: nothing folds its dots or encodes it anew."""
        sent = {"Host": self.host, "Connection": "close", **(self.bearer(who) if who else {}), **(headers or {})}
        if body or method in {"POST", "PUT", "PATCH"}:
            sent.setdefault("Content-Length", str(len(body)))
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        return self.send([f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode("utf-8", "surrogateescape"), body])

    def logged_in(self) -> str:
        """The cookie of a new browser session of the operator."""
        found = re.search("set-cookie: ([^;]+)", self.ask("GET", self.login_link(), None).head)
        assert found
        return found[1]

    def login_link(self) -> str:
        """The path of a new one, of the operator's."""
        return str(json.loads(self.ask("POST", "/v1/login-links", "operator").body)["url"])

    def api(self, who: str) -> httpx.Client:
        return httpx.Client(base_url=self.service.url, headers=self.bearer(who), trust_env=False, timeout=_SECONDS)

    def prepare(self) -> None:
        """Projects, a token of each kind, rows, and a study that nobody but its own project may see."""
        self.tokens["operator"] = self.service.token
        with self.api("operator") as operator:
            for name in ("vision", "speech"):
                operator.post("/v1/projects", json={"name": name}).raise_for_status()
            for who, role, project in _MEMBERS:
                made = operator.post("/v1/tokens", json={"name": who, "role": role, "project": project}).raise_for_status().json()
                self.tokens[who] = made["token"]
                if who == "revoked":
                    operator.delete(f"/v1/tokens/{made['id']}").raise_for_status()
        self.tokens["expired"] = self._expired()
        self.tokens["wrong"] = new_secret("ty_")
        rows = (self.service.rows / "train.csv").read_bytes()
        for who in ("editor", "neighbour"):
            with self.api(who) as client:
                client.put("/v1/datasets/intents/files/train.csv", content=rows).raise_for_status()
        with self.api("neighbour") as neighbour:
            neighbour.put("/v1/datasets/secret/files/rows.csv", content=b"text,label\na,b\n").raise_for_status()
            self.studies["neighbour"] = neighbour.post("/v1/studies", json=simulated()).raise_for_status().json()["id"]

    def await_neighbour(self) -> None:
        """Until all of the neighbour's study is in MLflow."""
        mirror, study = self._store().mirror, self.studies["neighbour"]
        wait_until(lambda: 0 in mirror.mirrored(study), 200, "the neighbour's trial is not in MLflow", look_seconds=0.5)
        self.tracked = {"experiment": str(mirror.experiment(study)), "run": mirror.mirrored(study)[0].run_id}
        path = EXPORT.format(**self.tracked)
        wait_until(lambda: self.ask("GET", path, "neighbour").status == 200, 120, "its export is not", look_seconds=0.5)

    def _store(self) -> Store:
        return open_store(f"sqlite:///{self.service.home / 'tuneyard.db'}")

    def _expired(self) -> str:
        secret, now = new_secret("ty_"), datetime.now(UTC)
        token = AccessToken("expired1", "late", Role.ADMIN, None, now - timedelta(days=2), "token", now - timedelta(days=1))
        self._store().access.add_token(token, sha256_of(secret))
        return secret


_MEMBERS: tuple[tuple[str, str, str | None], ...] = (
    ("editor", "editor", "vision"),
    ("viewer", "viewer", "vision"),
    ("admin", "admin", "vision"),
    ("neighbour", "editor", "speech"),
    ("revoked", "admin", None),
)


def simulated(**changes: object) -> dict[str, object]:
    """A study that trains nothing."""
    document: dict[str, object] = {
        "name": "quick",
        "trainer": {"kind": "simulated", "epochs": 1, "metrics": {"validation/loss": "rate"}, "values": {"rate": 0.1}},
        "space": {"values.rate": {"kind": "float", "low": 0.1, "high": 1.0}},
        "objective": {"metric": "validation/loss", "direction": "minimize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 1},
    }
    return {**document, **changes}


def trained(model: str, **changes: object) -> dict[str, object]:
    """A study that fine-tunes a model on the rows that `Target.prepare` uploads."""
    document: dict[str, object] = {
        "name": "trained",
        "trainer": {
            "kind": "text-classification", "model": model, "epochs": 1, "max_length": 16,
            "data": {"train": "dataset://intents/train.csv", "validation_fraction": 0.2},
        },
        "space": {"learning_rate": {"kind": "float", "low": 1e-4, "high": 1e-2}},
        "objective": {"metric": "validation/accuracy", "direction": "maximize"},
        "strategy": {"kind": "random"},
        "budget": {"trials": 1},
    }  # fmt: skip
    return {**document, **changes}
