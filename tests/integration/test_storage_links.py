"""A link to an S3 server that breaks in the middle of files: what is sent and read on over it arrives whole."""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.checkpoints.cached import CachedTrialFolder
from service.checkpoints.local import TrialFolder
from service.checkpoints.objects import ObjectCheckpointStore
from service.checkpoints.storage import Patience, Storage, open_storage
from service.checkpoints.trial_objects import TrialObjects
from service.domain.errors import StorageAway
from tests.s3 import ADDRESS, running_s3

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
STUDY = "intents-abc123"
CONTENT = os.urandom(1_000_000) * 24


class Link:
    """Passes connections on to a server; the next `breaks` of them that carry much are cut off in the middle."""

    def __init__(self, target: tuple[str, int], after_bytes: int) -> None:
        self._target = target
        self._after_bytes = after_bytes
        self.breaks = 0
        self.broken = 0
        self._breaking = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits in `accept`
        self._listening.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, socket.create_connection(self._target) as far:
            back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
            back.start()
            self._pass_on(near, far)
            back.join()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while content := one.recv(65536):
                passed += len(content)
                if passed > self._after_bytes and self._is_to_break():
                    break
                other.sendall(content)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_to_break(self) -> bool:
        with self._breaking:
            is_one = self.breaks > 0
            self.breaks -= is_one
            self.broken += is_one
        return is_one


@pytest.fixture
def link(monkeypatch: pytest.MonkeyPatch) -> Iterator[Link]:
    with running_s3() as s3:
        address = urlsplit(s3["AWS_ENDPOINT_URL"])
        link = Link((str(address.hostname), int(address.port or 0)), after_bytes=3_000_000)
        environment: Mapping[str, str] = {**s3, "AWS_ENDPOINT_URL": link.url}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield link
        link.close()


def a_state(path: Path) -> Path:
    path.write_bytes(CONTENT)
    return path


def a_model(folder: Path) -> None:
    a_state(folder / "model.safetensors")


def test_a_file_of_which_parts_do_not_get_through_arrives_whole(link: Link, tmp_path: Path) -> None:
    storage, path = open_storage(ADDRESS, Patience.LONG), a_state(tmp_path / "state")
    link.breaks = 3
    storage.send("a/state", path, hashlib.sha256(CONTENT).hexdigest())
    assert link.broken == 3
    storage.fetch("a/state", tmp_path / "back", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


@pytest.mark.parametrize("breaks", [1, 3])
def test_a_download_goes_on_where_the_link_broke(link: Link, tmp_path: Path, breaks: int) -> None:
    storage = open_storage(ADDRESS, Patience.LONG)
    folder = CachedTrialFolder(TrialFolder(tmp_path, STUDY, 0), TrialObjects(storage, STUDY, 0), lambda: None)
    folder.save_export(1, a_model)
    store = ObjectCheckpointStore(open_storage(ADDRESS, Patience.SHORT), tmp_path)
    link.breaks = breaks
    with store.open(STUDY, 0, 1, "model.safetensors") as file:
        assert hashlib.sha256(file.read()).digest() == hashlib.sha256(CONTENT).digest()
    assert link.broken == breaks


def test_what_had_arrived_before_a_worker_was_killed_is_not_sent_again(
    link: Link, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, sent, is_killed = open_storage(ADDRESS, Patience.SHORT), list[str](), True
    send = Storage.send

    def watched(self: Storage, key: str, path: Path, sha256: str) -> None:
        sent.append(key.rpartition("/")[2])
        if is_killed and key.endswith("second"):
            raise StorageAway(self.url, "no answer", "the worker is killed here")
        send(self, key, path, sha256)

    def write(folder: Path) -> None:
        (folder / "first").write_bytes(CONTENT[:1_000_000])
        (folder / "second").write_bytes(CONTENT[:2_000_000])

    folder = CachedTrialFolder(TrialFolder(tmp_path, STUDY, 0), TrialObjects(storage, STUDY, 0), lambda: None)
    monkeypatch.setattr(Storage, "send", watched)
    with pytest.raises(StorageAway):
        folder.save_resume([{"number": 1}], write)
    is_killed = False
    assert folder.resume() is not None
    assert sorted(sent) == ["first", "second", "second"]
