import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from service.api.schemas import ManifestFileView, ManifestView
from service.client.address import Address
from service.client.connection import Connection
from service.client.errors import CorruptDownload, PullRefused, ServiceUnreachable
from service.client.pull import MARKER, check_paths, check_target, pull_checkpoint, silent

WEIGHTS = bytes(range(256)) * 40
CONFIG = b'{"id2label": {}}'
FILES = {"model.safetensors": WEIGHTS, "nested/config.json": CONFIG}


def a_file(path: str, content: bytes) -> ManifestFileView:
    return ManifestFileView(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def a_manifest(files: dict[str, bytes] | None = None) -> ManifestView:
    return ManifestView(
        study_id="intents-abc123", trial=3, report=2, files=[a_file(path, content) for path, content in (files or FILES).items()]
    )


class FileServer:
    """Hands out files with ranges; a connection breaks after each of `breaks` bytes."""

    def __init__(self, files: dict[str, bytes] = FILES, breaks: list[int] | None = None, *, ranges: bool = True) -> None:
        self.files = files
        self.breaks = list(breaks or [])
        self.ranges = ranges
        self.asked: list[str | None] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        content = self.files[request.url.path.removeprefix("/files/")]
        wanted = request.headers.get("Range") if self.ranges else None
        self.asked.append(request.headers.get("Range"))
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if wanted else {}
        piece = self._breaking(content[start:]) if self.breaks else content[start:]
        return httpx.Response(206 if wanted else 200, headers=headers, content=piece)

    def _breaking(self, content: bytes) -> Iterator[bytes]:
        yield content[: self.breaks.pop(0)]
        raise httpx.ReadError("connection reset")


def pull(
    handler: Callable[[httpx.Request], httpx.Response],
    target: Path,
    *,
    force: bool = False,
    files: dict[str, bytes] | None = None,
) -> Path:
    connection = Connection(
        Address("http://127.0.0.1:1", None), timeout=1, transport=httpx.MockTransport(handler), sleep=lambda _: None
    )
    return pull_checkpoint(connection, "/files", a_manifest(files), target, force=force, progress=silent)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != MARKER
    }


def test_every_file_arrives_at_its_place(tmp_path: Path) -> None:
    target = pull(FileServer(), tmp_path / "best")
    assert contents(target) == FILES


def test_nothing_but_the_folder_is_left_behind(tmp_path: Path) -> None:
    pull(FileServer(), tmp_path / "best")
    pull(FileServer(), tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_a_dropped_connection_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    server = FileServer(breaks=[100, 1000])
    assert contents(pull(server, tmp_path / "best")) == FILES
    assert server.asked == [None, "bytes=100-", "bytes=1100-", None]


def test_a_connection_that_drops_after_the_last_byte_is_good_enough(tmp_path: Path) -> None:
    server = FileServer(breaks=[len(WEIGHTS)])
    assert contents(pull(server, tmp_path / "best")) == FILES


def test_a_server_without_ranges_is_read_from_the_start_again(tmp_path: Path) -> None:
    assert contents(pull(FileServer(breaks=[100], ranges=False), tmp_path / "best")) == FILES


def test_a_connection_that_keeps_dropping_without_a_byte_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(ServiceUnreachable):
        pull(FileServer(breaks=[0] * 20), tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("damaged", [WEIGHTS[:-1] + b"x", WEIGHTS[:-1], WEIGHTS + b"x"])
def test_a_file_that_is_not_what_the_manifest_says_is_not_kept(tmp_path: Path, damaged: bytes) -> None:
    with pytest.raises(CorruptDownload, match=r"model\.safetensors"):
        pull(FileServer({**FILES, "model.safetensors": damaged}), tmp_path / "best")
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_earlier_pull_is_replaced(tmp_path: Path) -> None:
    target = pull(FileServer({"old.json": b"{}"}), tmp_path / "best", files={"old.json": b"{}"})
    pull(FileServer(), target)
    assert contents(target) == FILES


def test_an_earlier_pull_stays_when_the_next_one_fails(tmp_path: Path) -> None:
    target = pull(FileServer(), tmp_path / "best")
    with pytest.raises(CorruptDownload):
        pull(FileServer({"model.safetensors": b"bad"}), target, files={"model.safetensors": b"bed"})
    assert contents(target) == FILES


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("years of work")
    with pytest.raises(PullRefused, match="no earlier pull"):
        pull(FileServer(), tmp_path / "best")
    assert contents(tmp_path / "best") == {"thesis.txt": b"years of work"}


def test_a_folder_with_other_files_is_replaced_by_force(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "thesis.txt").write_text("years of work")
    assert contents(pull(FileServer(), tmp_path / "best", force=True)) == FILES


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    assert contents(pull(FileServer(), tmp_path / "best")) == FILES


def test_the_folder_one_works_in_is_refused_even_by_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, tmp_path.parent):
        with pytest.raises(PullRefused, match="folder of its own"):
            check_target(place, force=True)


def test_a_file_or_a_link_in_the_folders_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(PullRefused, match="not a folder"):
            check_target(tmp_path / name, force=True)


@pytest.mark.parametrize(
    "path", ["../evil", "a/../../evil", "/etc/passwd", "", "a//b", "./a", "a\\..\\b", "C:/evil", "a\0b", MARKER, "a/"]
)
def test_a_path_that_would_leave_the_folder_is_refused(path: str) -> None:
    with pytest.raises(PullRefused, match="nothing was written"):
        check_paths(a_manifest({path: b"x"}))


def test_a_path_named_twice_is_refused() -> None:
    manifest = a_manifest()
    doubled = manifest.model_copy(update={"files": [*manifest.files, manifest.files[0]]})
    with pytest.raises(PullRefused, match="twice"):
        check_paths(doubled)


def test_progress_is_told_as_bytes_of_each_file(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    connection = Connection(Address("http://127.0.0.1:1", None), timeout=1, transport=httpx.MockTransport(FileServer()))
    pull_checkpoint(connection, "/files", a_manifest(), tmp_path / "best", force=False, progress=lambda *step: told.append(step))
    assert told[-1] == ("nested/config.json", len(CONFIG), len(CONFIG))
