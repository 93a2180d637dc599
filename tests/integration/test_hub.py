"""The client of the Hugging Face hub against a stand-in for it on this machine: what goes over the wire is the real thing."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from service.catalog import hub as hub_module
from service.catalog import hub_datasets
from service.catalog.hub import HuggingFaceHub
from service.catalog.hub_datasets import HubDatasets, HuggingFaceDatasets
from service.domain.errors import DatasetNotFound, UnreadableDataset
from tests.unit.catalog_shelf import CONFIG, weights
from trainers.tables import read

pytestmark = pytest.mark.integration

COMMIT = "c0ffee00" * 5


def table(*texts: str) -> bytes:
    written = io.BytesIO()
    parquet.write_table(pa.table({"text": list(texts)}), written)
    return written.getvalue()


DATASETS = {
    "mine/rows": {
        "README.md": b"# Rows",
        "rows.py": b"raise SystemExit('run')",
        "data/train-00000-of-00002.parquet": table("a", "b"),
        "data/train-00001-of-00002.parquet": table("c"),
        "data/test-00000-of-00001.parquet": table("d"),
    },
    "mine/pairs": {"main/train.jsonl": b'{"text": "a"}\n', "other/train.jsonl": b'{"text": "b"}\n'},
    "mine/gated": {"train.csv": b"text\na\n"},
}
MODELS = {
    "mine/tiny": {
        "config.json": json.dumps(dict(CONFIG)).encode(),
        "model.safetensors": weights(),
        "tokenizer.json": b"{}",
        "pytorch_model.bin": b"a pickle",
        "modeling.py": b"raise SystemExit('run')",
    }
}


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does, as far as its client asks."""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0].strip("/")
        self.server.asked.append(f"{self.command} {path}")  # type: ignore[attr-defined]
        self.server.accounts.add(self.headers.get("Authorization"))  # type: ignore[attr-defined]
        match path.split("/"):
            case ["api", ("datasets" | "models") as kind, owner, name] | ["api", kind, owner, name, "revision", _]:
                self._describe((DATASETS if kind == "datasets" else MODELS).get(f"{owner}/{name}"), f"{owner}/{name}")
            case ["api", "models", owner, name, "tree", _]:
                files = MODELS[f"{owner}/{name}"].items()
                listed = [{"type": "file", "path": file, "size": len(content), "oid": "0"} for file, content in files]
                self._send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})
            case ["datasets", owner, name, "resolve", _, *file]:
                self._file(DATASETS[f"{owner}/{name}"], "/".join(file), with_body=with_body)
            case [owner, name, "resolve", _, *file]:
                self._file(MODELS[f"{owner}/{name}"], "/".join(file), with_body=with_body)
            case _:
                self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})

    def _describe(self, files: Mapping[str, bytes] | None, name: str) -> None:
        if files is None:
            self._send(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
            return
        siblings = [{"rfilename": file, "size": len(content)} for file, content in files.items()]
        body = {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _file(self, files: Mapping[str, bytes], file: str, *, with_body: bool) -> None:
        if files is DATASETS["mine/gated"]:
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif file not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            content = files[file]
            headers = {"ETag": f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"', "X-Repo-Commit": COMMIT}
            self._send(200, content, headers, with_body=with_body)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], *, with_body: bool = True) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and self.command != "HEAD":
            self.wfile.write(body)


class StandIn(ThreadingHTTPServer):
    """A hub on a free port; `asked` are the requests so far, `accounts` the tokens that came with them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.asked: list[str] = []
        self.accounts: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for a machine on which much else is at work."""
    for module in (hub_module, hub_datasets):
        for name in ("_LOOK_SECONDS", "_REQUEST_SECONDS"):
            monkeypatch.setattr(module, name, 60.0)


@pytest.fixture
def hub() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_split_is_downloaded_shard_by_shard_and_nothing_else(hub: StandIn, tmp_path: Path) -> None:
    datasets = HubDatasets(tmp_path, HuggingFaceDatasets(hub.url))
    datasets.look("hub://mine/rows/train")
    assert not any("/resolve/" in request for request in hub.asked)
    path = datasets.fetch("hub://mine/rows/train")
    assert read(path, ["text"]) == {"text": ["a", "b", "c"]}
    fetched = {request.rpartition("/")[2] for request in hub.asked if request.startswith("GET datasets/")}
    assert fetched == {"train-00000-of-00002.parquet", "train-00001-of-00002.parquet"}
    assert COMMIT in str(path)


def test_a_split_that_was_fetched_is_there_without_the_hub(hub: StandIn, tmp_path: Path) -> None:
    path = HubDatasets(tmp_path, HuggingFaceDatasets(hub.url)).fetch("hub://mine/pairs/other/train")
    assert read(path, ["text"]) == {"text": ["b"]}
    assert HubDatasets(tmp_path, None).fetch("hub://mine/pairs/other/train") == path


def test_a_data_set_that_the_hub_does_not_have_is_not_found(hub: StandIn, tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFound, match="has no data set 'mine/nothing' for us"):
        HubDatasets(tmp_path, HuggingFaceDatasets(hub.url)).look("hub://mine/nothing/train")


def test_a_data_set_that_asks_for_consent_says_how_to_give_it(hub: StandIn, tmp_path: Path) -> None:
    with pytest.raises(UnreadableDataset, match=r"asks for consent: .* set TUNEYARD_HUB_ACCOUNT=1"):
        HubDatasets(tmp_path, HuggingFaceDatasets(hub.url)).fetch("hub://mine/gated/train")


def test_a_hub_that_is_not_there_is_not_asked_again_at_once(tmp_path: Path) -> None:
    with StandIn() as gone:
        url = gone.url
    datasets = HubDatasets(tmp_path, HuggingFaceDatasets(url))
    for _ in range(2):
        with pytest.raises(DatasetNotFound, match="could not be reached: try again, or upload the rows"):
            datasets.look("hub://mine/rows/train")


@pytest.fixture
def model_hub(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    return hub


@pytest.mark.parametrize(("options", "sent"), [({}, None), ({"as_account": True}, "Bearer hf_ofTheOperator")])
def test_the_machines_account_is_used_only_where_that_was_asked_for(
    model_hub: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool], sent: str | None
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_ofTheOperator")
    datasets = HubDatasets(tmp_path / "rows", HuggingFaceDatasets(model_hub.url, **options))
    datasets.look("hub://mine/rows/train")
    datasets.fetch("hub://mine/rows/train")
    models = HuggingFaceHub(tmp_path / "models", **options)
    models.look("mine/tiny")
    models.download("mine/tiny")
    assert model_hub.accounts == {sent}


def test_a_model_is_downloaded_without_pickles_and_code(model_hub: StandIn, tmp_path: Path) -> None:
    models = HuggingFaceHub(tmp_path)
    assert models.look("mine/tiny").config == CONFIG
    assert {path.name for path in models.download("mine/tiny").iterdir()} == {
        "config.json", "model.safetensors", "tokenizer.json",
    }  # fmt: skip
