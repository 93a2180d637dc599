"""A checkpoint from the service to a folder: all of it and verified, or nothing."""

import hashlib
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import quote

import httpx

from service.api.schemas import ManifestFileView, ManifestView
from service.client.connection import RETRY_SECONDS, Connection, reason_of
from service.client.errors import CorruptDownload, PullRefused, ServiceUnreachable, not_replaceable

MARKER = ".tuneyard-pull.json"
"""Written into a pulled folder: the manifest, and the sign that another pull may replace it."""
_IDLE_SECONDS = 30.0
_PARTIAL = 206

Progress = Callable[[str, int, int], None]
"""Told of a file's path, its bytes so far and its bytes in all."""


def silent(path: str, done: int, total: int) -> None:
    """No progress wanted."""


def pull_checkpoint(
    connection: Connection, base: str, manifest: ManifestView, directory: Path, *, force: bool, progress: Progress
) -> Path:
    """Download all files of a manifest below `base` into `directory`, whose earlier pull is replaced at the very end.

    Raises `PullRefused`, `CorruptDownload`, `ServiceUnreachable`, `ProblemError`; `directory` is then as it was.
    """
    target = directory.expanduser().absolute()
    check_paths(manifest)
    check_target(target, force=force)
    target.parent.mkdir(parents=True, exist_ok=True)
    incoming = _beside(target, "pull")
    incoming.mkdir()
    try:
        for file in manifest.files:
            local = incoming.joinpath(*PurePosixPath(file.path).parts)
            local.parent.mkdir(parents=True, exist_ok=True)
            with local.open("wb") as output:
                _download(connection, f"{base}/{quote(file.path)}", file, output, progress)
        (incoming / MARKER).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
        _swap(incoming, target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return target


def check_paths(manifest: ManifestView) -> None:
    """Raise `PullRefused` unless every path stays inside the folder and names a file of its own."""
    seen: set[str] = set()
    for file in manifest.files:
        path = file.path
        parts = path.split("/")
        climbs = any(part in {"", ".", ".."} for part in parts) or "\\" in path or "\0" in path or ":" in parts[0]
        if climbs or path == MARKER:
            raise PullRefused(f"The service names a file {path!r}, which would not stay inside the folder: nothing was written.")
        if path in seen:
            raise PullRefused(f"The service names the file {path!r} twice: nothing was written.")
        seen.add(path)


def check_target(target: Path, *, force: bool) -> None:
    """Raise `PullRefused` where the folder must not be replaced."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PullRefused(f"{target} is not a folder: name another one.")
    if any(place.is_relative_to(target.resolve()) for place in (Path.cwd().resolve(), Path.home().resolve())):
        raise PullRefused(f"{target} holds the folder you work in or your home: name a folder of its own, such as ./best.")
    if target.is_dir() and any(target.iterdir()) and not force and not (target / MARKER).is_file():
        raise not_replaceable(target)


def _download(connection: Connection, url: str, file: ManifestFileView, output: BinaryIO, progress: Progress) -> None:
    """Fetch one file; a dropped connection goes on where it broke off, until it drops too often without a byte more."""
    digest, done, failures = hashlib.sha256(), 0, 0
    # The file's ETag is its SHA-256: a better export that replaces this one meanwhile answers 412, never a mixture of both.
    fixed = {"Accept-Encoding": "identity", "If-Match": f'"{file.sha256}"'}
    while True:
        headers = {**fixed, "Range": f"bytes={done}-"} if done else fixed
        before = done
        try:
            with connection.stream(url, headers=headers, idle_seconds=_IDLE_SECONDS) as response:
                if done and not _continues(response, done):
                    output.seek(0)
                    output.truncate()
                    digest, done = hashlib.sha256(), 0
                for chunk in response.iter_bytes():
                    output.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if done > file.bytes:
                        raise CorruptDownload(file.path, f"more than {file.bytes} bytes")
                    progress(file.path, done, file.bytes)
        except httpx.TransportError as error:
            if done == file.bytes:
                break
            failures = 0 if done > before else failures + 1
            if failures >= len(RETRY_SECONDS):
                raise ServiceUnreachable(connection.url, reason_of(error)) from error
            connection.sleep(RETRY_SECONDS[failures])
            continue
        break
    if done != file.bytes:
        raise CorruptDownload(file.path, f"{done} bytes instead of {file.bytes}")
    if digest.hexdigest() != file.sha256:
        raise CorruptDownload(file.path, "its SHA-256 differs")


def _continues(response: httpx.Response, done: int) -> bool:
    """Whether this answer starts right after the bytes that are there."""
    return response.status_code == _PARTIAL and response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


def _swap(incoming: Path, target: Path) -> None:
    """Put the new folder in the place of the old one, which comes back when that fails."""
    if not target.exists():
        incoming.rename(target)
        return
    old = _beside(target, "old")
    target.rename(old)
    try:
        incoming.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _beside(target: Path, word: str) -> Path:
    """A name next to the folder, on the same file system, that nobody else uses."""
    return target.with_name(f".{target.name}.{word}-{os.getpid()}-{secrets.token_hex(3)}")
