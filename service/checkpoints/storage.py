"""Object storage behind a small door: S3, Google's and a mounted folder, through obstore, with its errors turned into ours.

Credentials and endpoints are read from the environment by obstore. What is read of an object is read with one request that
streams, however large it is, so that nothing here holds more of it than a piece.
"""

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError, PreconditionError
from obstore.store import GCSStore, LocalStore, S3Store, from_url

from service.domain.errors import DamagedObject, StorageAway

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

_LOG = logging.getLogger("tuneyard.storage")
_PART_BYTES = 8 * 1024**2
_PARTS_AT_ONCE = 3
_MOST_PARTS = 9_000
"""S3 takes 10,000 parts of an object."""
_LARGEST_COPY_BYTES = 5 * 1024**3
"""S3 copies no more by itself."""
_PIECE_BYTES = 2 * 1024**2
_FETCHES = 3
_HASH = "sha256"
_STATUS = re.compile(r"status code: (\d{3}[\w ]*)")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_QUERY = re.compile(r"\?[^\s,]*")


class Patience(Enum):
    """How long to try again what did not work."""

    LONG = (10, 60.0)
    """For workers: a broken link or a busy storage costs an epoch otherwise."""
    SHORT = (1, 5.0)
    """For who has others waiting: the API, and the controller's turns."""

    def __init__(self, retries: int, seconds: float) -> None:
        self.retries = retries
        self.seconds = seconds


@dataclass(frozen=True)
class Entry:
    """One object: `key` is below the storage's prefix."""

    key: str
    bytes: int
    at: datetime


def open_storage(url: str, patience: Patience) -> "Storage":
    """The storage at a checked address; whether it answers shows at the first use. Raises StorageAway."""
    # S3 sends nothing while it copies or puts together: only workers wait for that.
    silence = "60s" if patience is Patience.LONG else "5s"
    client: ClientConfig = {"connect_timeout": "5s", "read_timeout": silence, "timeout": "15m", "allow_http": _is_plain_http()}
    seconds = timedelta(seconds=patience.seconds)
    retry: RetryConfig = {"max_retries": patience.retries, "retry_timeout": seconds}
    with _translated(url):
        if url.startswith("file:"):
            folder = unquote(urlsplit(url).path)
            if not Path(folder).is_dir():  # made here, it would be one on this machine's own disk
                raise StorageAway(url, "there is no such folder: make it, or mount it", folder)
            return Storage(from_url(url, automatic_cleanup=True), url)
        return Storage(from_url(url, config=_config(url), client_options=client, retry_config=retry), url)


class Storage:
    """Objects below one address. Everything raises StorageAway when that refuses or does not answer."""

    def __init__(self, store: "ObjectStore", url: str) -> None:
        self._store = store
        self.url = url

    def check(self) -> None:
        """Whether objects can be written, listed and deleted."""
        self.put(".probe", b"")
        self.is_up()
        self.delete([".probe"])

    def is_up(self) -> None:
        """A look at whether it answers."""
        with _translated(self.url):
            obstore.list_with_delimiter(self._store, ".probe")

    def put(self, key: str, content: bytes) -> None:
        with _translated(self.url):
            obstore.put(self._store, key, content)

    def send(self, key: str, path: Path, sha256: str) -> None:
        """Put a file, in parts where it is large; a part that does not get through is sent again."""
        size = path.stat().st_size
        attributes = None if self._forgets_hashes else {_HASH: sha256}
        with _translated(self.url):
            obstore.put(
                self._store, key, path, attributes=attributes, max_concurrency=_PARTS_AT_ONCE,
                chunk_size=max(_PART_BYTES, size // _MOST_PARTS + 1),
            )  # fmt: skip

    def get(self, key: str) -> bytes | None:
        """All of a small object; None where there is none."""
        with _translated(self.url):
            try:
                return bytes(obstore.get(self._store, key).bytes())
            except FileNotFoundError as error:
                _unless_no_bucket(error)
                return None

    def hash_of(self, key: str) -> str | None:
        """The SHA-256 that an object was sent with, where the storage keeps it."""
        if self._forgets_hashes:
            return None
        with _translated(self.url):
            try:
                found = obstore.get(self._store, key, options={"head": True}).attributes.get(_HASH)
            except FileNotFoundError as error:
                _unless_no_bucket(error)
                return None
        return None if found is None else str(found)

    def tag(self, key: str) -> str | None:
        """What tells this content of the object from another; None where there is no object."""
        with _translated(self.url):
            try:
                return obstore.head(self._store, key)["e_tag"] or ""
            except FileNotFoundError as error:
                _unless_no_bucket(error)
                return None

    def stream(self, key: str, start: int = 0, tag: str | None = None) -> Iterator[bytes]:
        """An object from there to its end; of no other content than that tag's. Raises FileNotFoundError, Replaced."""
        with _translated(self.url):
            try:
                options: GetOptions = {"range": {"offset": start}} if start else {}
                if tag:
                    options["if_match"] = tag
                found = obstore.get(self._store, key, options=options)
                for piece in found.stream(min_chunk_size=_PIECE_BYTES):
                    yield bytes(piece)
            except PreconditionError as error:
                raise Replaced(key) from error

    def fetch(self, key: str, path: Path, size: int, sha256: str) -> None:
        """Write an object to a file, anew where it comes damaged. Raises DamagedObject, FileNotFoundError."""
        for turn in range(_FETCHES):
            digest, written = hashlib.sha256(), 0
            with path.open("wb") as file:
                for piece in self.stream(key) if size else ():
                    file.write(piece)
                    digest.update(piece)
                    written += len(piece)
            if (written, digest.hexdigest()) == (size, sha256):
                return
            _LOG.warning("%s came damaged, time %d: %d bytes of %d", key, turn + 1, written, size)
        path.unlink()
        raise DamagedObject(key, f"{written} bytes instead of {size}" if written != size else "its SHA-256 differs")

    def list(self, prefix: str) -> Sequence[Entry]:
        """All objects below a prefix, which ends where a name does."""
        with _translated(self.url):
            found = obstore.list(self._store, prefix, chunk_size=1000).collect()
        return [Entry(one["path"], one["size"], one["last_modified"]) for one in found]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete these; what is gone already does no harm."""
        if not keys:
            return
        with _translated(self.url):
            if isinstance(self._store, S3Store):
                obstore.delete(self._store, keys)
                return
            for key in keys:  # the others stop at the first that is gone
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    continue

    def copy(self, source: str, key: str, size: int) -> None:
        """Copy an object within the storage; what that does not copy by itself goes through here. Raises FileNotFoundError."""
        with _translated(self.url):
            if size <= _LARGEST_COPY_BYTES:
                obstore.copy(self._store, source, key)
            else:
                obstore.put(self._store, key, self.stream(source), chunk_size=size // _MOST_PARTS + _PART_BYTES)

    def link(self, key: str, lasting: timedelta) -> str | None:
        """An address at which the storage itself hands out the object for so long; None where it signs none."""
        if not isinstance(self._store, S3Store | GCSStore):
            return None
        try:
            return str(obstore.sign(self._store, "GET", key, lasting))
        except BaseError as error:  # credentials of a kind that sign nothing
            _LOG.warning("%s signs no address: %s", self.url, _first_line(error))
            return None

    @property
    def _forgets_hashes(self) -> bool:
        """Whether it keeps nothing beside an object's bytes."""
        return isinstance(self._store, LocalStore)


class Replaced(Exception):
    """Another object has taken the place of the one that was being read."""


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except PreconditionError:
        raise
    except FileNotFoundError as error:
        if "NoSuchBucket" in str(error):
            raise _away(url, error) from error
        raise
    except (BaseError, OSError, NotImplementedError) as error:
        raise _away(url, error) from error


def _unless_no_bucket(error: FileNotFoundError) -> None:
    """That an object is not there is an answer; that the bucket is not is none."""
    if "NoSuchBucket" in str(error):
        raise error


def _away(url: str, error: Exception) -> StorageAway:
    said, status, code = str(error), _STATUS.search(str(error)), _CODE.search(str(error))
    if status is not None:
        why = f"{status[1].strip()}{f', {code[1]}' if code else ''}"
    elif url.startswith("file:") and isinstance(error, OSError):
        why = error.strerror or _first_line(error)
    else:
        why = "no answer" if "HTTP error" in said or "token request" in said else _first_line(error)
    return StorageAway(url, why, _first_line(error))


def _first_line(error: Exception) -> str:
    """What an error of obstore's says, without its innards, nor what follows a `?` in an address: that may be a secret."""
    return _QUERY.sub("?...", str(error).partition("\n")[0])[:300]


def _config(url: str) -> "S3Config | None":
    """Let Amazon's S3 keep the SHA-256 of all it takes. What else speaks S3 may know none: there the environment says it.

    Whatever arrives damaged all of them refuse: each request is signed with the SHA-256 of its body.
    """
    is_said = any(os.environ.get(name) for name in ("AWS_CHECKSUM_ALGORITHM", *_ENDPOINTS))
    return {"checksum_algorithm": "SHA256"} if url.startswith("s3:") and not is_said else None


def _is_plain_http() -> bool:
    """Whether somebody has set an endpoint without TLS, as for a storage on the same machine."""
    return any(os.environ.get(name, "").startswith("http://") for name in (*_ENDPOINTS, "GOOGLE_BASE_URL"))
