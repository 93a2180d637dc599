"""Receiving an upload: how many at once, how much of it, and whether there is room."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

from anyio.to_thread import run_sync
from fastapi import Request

from service.api.bodies import declared_bytes
from service.api.dependencies import ApiParts
from service.domain import errors
from service.domain.datasets import Allowance, DatasetFile, over_allowance

AT_ONCE = 8
"""Uploads that one process receives and reads at once: each may take some hundred megabytes of memory."""
AT_ONCE_OF_ONE = 4
"""Of those, of one project: one whose uploads come slowly does not keep the others waiting."""
_WRITE_BYTES = 1024 * 1024


class UploadsUnderWay:
    """Counts them, in all and of each project. For the thread of the event loop alone."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextmanager
    def one_more(self, project: str) -> Iterator[None]:
        """While one is under way. Raises TooManyUploads."""
        if self._of.total() >= AT_ONCE or self._of[project] >= AT_ONCE_OF_ONE:
            raise errors.TooManyUploads("As many uploads are under way as go at once: send this one again in a few seconds.")
        self._of[project] += 1
        try:
            yield
        finally:
            self._of[project] -= 1
            self._of += Counter()  # forgets projects that have none


def allowance_of(parts: ApiParts) -> Allowance:
    """What the project's uploads may come to: of its gigabytes, what its checkpoints leave."""
    most = parts.store.projects.get(parts.project).quotas.max_stored_gb
    if most is None:
        return Allowance(files=parts.settings.max_uploaded_files)
    held = parts.store.projects.usage([parts.project])[parts.project].stored_bytes
    return Allowance(files=parts.settings.max_uploaded_files, bytes=int(1e9 * most) - held)


def replaced_by(parts: ApiParts, dataset: str, file: str) -> DatasetFile | None:
    """The file whose place the upload takes, if there is one."""
    try:
        return parts.datasets.get(dataset, file)
    except errors.DatasetNotFound:
        return None


@dataclass(frozen=True)
class Bounds:
    """What one upload may come to. `held` is what the project has beside it, `allowed` what it may have with it."""

    parts: ApiParts
    held: int
    allowed: int | None

    @staticmethod
    def of(parts: ApiParts, allowance: Allowance, dataset: str, file: str) -> "Bounds":
        if allowance.bytes is None:
            return Bounds(parts, 0, None)
        replaced = replaced_by(parts, dataset, file)
        return Bounds(parts, parts.datasets.size() - (replaced.bytes if replaced else 0), allowance.bytes)

    def check(self, received: int, to_come: int) -> None:
        """Whether it may go on, with so much of it on the disk. Raises UploadTooLarge, QuotaSpent, NoSpace."""
        size, most = received + to_come, self.parts.settings.max_upload_bytes
        if size > most:
            raise errors.UploadTooLarge(f"A file has at most {most} bytes: upload it in parts, as several files.")
        if self.allowed is not None and self.held + max(1, size) > self.allowed:
            raise over_allowance(self.held + size, self.allowed)
        self.parts.datasets.require_room(to_come + size)  # it is copied once more, into its place


async def receive(request: Request, content: BinaryIO, bounds: Bounds) -> None:
    """Write the request's body to `content` and go back to its start. Raises UploadTooLarge, QuotaSpent, NoSpace."""
    declared = declared_bytes(request)
    received, waiting = 0, bytearray()
    await run_sync(bounds.check, 0, declared)
    async for chunk in request.stream():
        received += len(chunk)
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES or received > bounds.parts.settings.max_upload_bytes:
            await run_sync(bounds.check, received, max(0, declared - received))
            await run_sync(content.write, bytes(waiting))
            waiting.clear()
    await run_sync(bounds.check, received, 0)
    await run_sync(content.write, bytes(waiting))
    content.seek(0)
