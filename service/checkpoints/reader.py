"""A file in object storage, to read and seek, of which no more than two pieces are in memory."""

import io
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from service.checkpoints.storage import Replaced, Storage
from service.domain.errors import StorageAway

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TRIES = 3
_AHEAD = ThreadPoolExecutor(16, thread_name_prefix="read-ahead")
"""Fetches the next piece of a file while the last one is on its way to a client."""


class ObjectReader(io.RawIOBase):
    """Reads on with one request that streams, and makes another after a seek, or where the link broke.

    As any raw file it may give less than was asked for. All it gives is of one and the same content; raises OSError when another
    one has taken its place, or it cannot be read on.
    """

    def __init__(self, storage: Storage, key: str, size: int, tag: str | None) -> None:
        super().__init__()
        self._storage = storage
        self._key = key
        self._size = size
        self._tag = tag
        self._at = 0
        self._stream: Iterator[bytes] | None = None
        self._ahead: Future[bytes] | None = None
        self._piece = b""
        self._used = 0
        """Bytes of the piece that were given."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        at = max(0, start + offset)
        if at != self._at:
            self._drop()
            self._at = at
        return at

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            return self.readall()
        if self._at >= self._size or not size:
            return b""
        if self._used == len(self._piece):
            self._piece, self._used = self._next(), 0
        # Not copied where all of it is wanted: it is large, and there are many of it.
        given = self._piece[self._used : self._used + size] if self._used or size < len(self._piece) else self._piece
        self._used += len(given)
        self._at += len(given)
        return given

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(self._size), b""))

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        given = self.read(len(target))
        target[: len(given)] = given
        return len(given)

    def close(self) -> None:
        self._drop()
        super().close()

    def _next(self) -> bytes:
        """The next piece; a stream that breaks is begun again where it broke."""
        broken: Exception | None = None
        for _ in range(_TRIES):
            if self._stream is None:
                self._stream = self._storage.stream(self._key, self._at, self._tag)
            try:
                piece = self._ahead.result() if self._ahead is not None else next(self._stream, b"")
            except (Replaced, FileNotFoundError) as error:
                self._drop()
                raise OSError(f"{self._key} was replaced or deleted while it was read") from error
            except StorageAway as error:
                self._drop()
                broken = error
                continue
            if piece:
                is_last = self._at + len(piece) >= self._size
                self._ahead = None if is_last else _AHEAD.submit(next, self._stream, b"")
                return piece
            self._drop()
        raise OSError(f"{self._key} cannot be read on at byte {self._at}") from broken

    def _drop(self) -> None:
        """Forget what was read ahead, and end the request."""
        if self._ahead is not None and not self._ahead.cancel():
            with suppress(Exception):  # a stream is not ended while a piece of it is on its way
                self._ahead.result()
        self._stream, self._ahead, self._piece, self._used = None, None, b"", 0
