"""A file in object storage, to read and seek, of which no more than a piece is in memory."""

import io
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from service.checkpoints.storage import Replaced, Storage
from service.domain.errors import StorageAway

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_TRIES = 3


class ObjectReader(io.RawIOBase):
    """Reads on with one request that streams, and makes another after a seek, or where the link broke.

    All it gives is of one and the same content; raises OSError when another one has taken its place, or it cannot be read on.
    """

    def __init__(self, storage: Storage, key: str, size: int, tag: str | None) -> None:
        super().__init__()
        self._storage = storage
        self._key = key
        self._size = size
        self._tag = tag
        self._at = 0
        self._stream: Iterator[bytes] | None = None
        self._piece = memoryview(b"")

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

    def readinto(self, buffer: "WriteableBuffer") -> int:
        target = memoryview(buffer).cast("B")
        if self._at >= self._size or not len(target):
            return 0
        if not len(self._piece):
            self._piece = memoryview(self._next())
        count = min(len(target), len(self._piece))
        target[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        self._at += count
        return count

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
                piece = next(self._stream, b"")
            except (Replaced, FileNotFoundError) as error:
                self._drop()
                raise OSError(f"{self._key} was replaced or deleted while it was read") from error
            except StorageAway as error:
                self._drop()
                broken = error
                continue
            if piece:
                return piece
            self._drop()
        raise OSError(f"{self._key} cannot be read on at byte {self._at}") from broken

    def _drop(self) -> None:
        if isinstance(self._stream, Generator):
            self._stream.close()
        self._stream, self._piece = None, memoryview(b"")
