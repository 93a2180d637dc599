"""Bytes on their way out: ranges and validators (RFC 9110, sections 13 and 14), and tar streams of known length."""

import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO

from fastapi import Request, Response, status
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from service.api.problems import RangeNotSatisfiable
from service.domain.checkpoint import CheckpointFile

_CHUNK_BYTES = 4 * 1024**2  # each costs a change of threads, and a client in the middle of one holds it in memory
_BLOCK_BYTES = 512
_END_OF_ARCHIVE = b"\0" * (2 * _BLOCK_BYTES)
_MEDIA_TYPES = {".json": "application/json", ".txt": "text/plain", ".md": "text/markdown"}
_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


@dataclass(frozen=True)
class Download:
    """An open file and what is said about it."""

    content: BinaryIO
    size: int
    sha256: str
    media_type: str
    name: str


class _ClosingResponse(StreamingResponse):
    """A stream that closes its files however it ends: sent, broken off or failed."""

    files: Sequence[BinaryIO] = ()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            for file in self.files:
                file.close()


def file_response(request: Request, download: Download) -> Response:
    """The answer to GET or HEAD for one file; closes it when done. Raises RangeNotSatisfiable, and leaves it open then."""
    headers = {
        "ETag": f'"{download.sha256}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Disposition": f'attachment; filename="{_ascii(download.name)}"',
    }
    if etag_matches(request.headers.get("If-None-Match"), download.sha256, weakly=True):
        download.content.close()
        return Response(status_code=status.HTTP_304_NOT_MODIFIED, headers=headers)
    if request.method == "HEAD":
        download.content.close()
        return Response(headers={**headers, "Content-Length": str(download.size)}, media_type=download.media_type)
    part = _wanted_part(request, download)
    start, length = part or (0, download.size)
    headers["Content-Length"] = str(length)
    if part:
        headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{download.size}"
    response = streamed(_chunks(download.content, start, length), [download.content], headers, download.media_type)
    response.status_code = status.HTTP_206_PARTIAL_CONTENT if part else status.HTTP_200_OK
    return response


def streamed(chunks: Iterator[bytes], files: Sequence[BinaryIO], headers: dict[str, str], media_type: str) -> Response:
    """A stream of chunks that closes `files` at its end."""
    response = _ClosingResponse(chunks, headers=headers, media_type=media_type)
    response.files = files
    return response


def etag_matches(header: str | None, sha256: str, *, weakly: bool) -> bool:
    """Whether an `If-Match` or `If-None-Match` header names this content."""
    if header is None:
        return False
    tags = [tag.strip() for tag in header.split(",")]
    if weakly:
        tags = [tag.removeprefix("W/") for tag in tags]
    return f'"{sha256}"' in tags or tags == ["*"]


def media_type_of(path: str) -> str:
    """The content type of an exported file."""
    return _MEDIA_TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")


def tar_headers(folder: str, files: Sequence[CheckpointFile]) -> tuple[list[bytes], int]:
    """The header blocks of each file, below `folder`, the same for the same files, and the length of the whole archive."""
    blocks = []
    for file in files:
        entry = tarfile.TarInfo(f"{folder}/{file.path}")
        entry.size = file.bytes
        entry.mode = 0o644
        blocks.append(entry.tobuf(tarfile.GNU_FORMAT))
    length = sum(len(block) + file.bytes + _padding(file.bytes) for block, file in zip(blocks, files, strict=True))
    return blocks, length + len(_END_OF_ARCHIVE)


def tar_chunks(entries: Sequence[tuple[bytes, tuple[CheckpointFile, BinaryIO]]]) -> Iterator[bytes]:
    """A tar archive, a piece at a time."""
    for block, (file, content) in entries:
        yield block
        yield from _chunks(content, 0, file.bytes)
        yield b"\0" * _padding(file.bytes)
    yield _END_OF_ARCHIVE


def _wanted_part(request: Request, download: Download) -> tuple[int, int] | None:
    """Start and length of the range asked for, or None for all of it: where there is none, several, or one of older content."""
    condition = request.headers.get("If-Range")
    match = _RANGE.fullmatch(request.headers.get("Range", "").strip())
    if match is None or match.groups() == ("", "") or (condition is not None and condition.strip() != f'"{download.sha256}"'):
        return None
    first, last = match.groups()
    if first == "":
        length = min(int(last), download.size)
        start = download.size - length
    else:
        start = int(first)
        end = download.size - 1 if last == "" else min(int(last), download.size - 1)
        if last != "" and int(last) < start:
            return None  # not a range at all
        length = end - start + 1
    if start >= download.size or length <= 0:
        raise RangeNotSatisfiable(download.size)
    return start, length


def _chunks(content: BinaryIO, start: int, length: int) -> Iterator[bytes]:
    content.seek(start)
    left = length
    while left:
        chunk = content.read(min(_CHUNK_BYTES, left))
        if not chunk:
            # The answer promised more: breaking it off is the only way left to say so.
            raise EOFError(f"a checkpoint's file ends {left} bytes before its manifest says")
        left -= len(chunk)
        yield chunk


def _padding(size: int) -> int:
    return -size % _BLOCK_BYTES


def _ascii(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
