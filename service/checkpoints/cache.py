"""A worker's disk as a cache of what object storage has: private, bounded, and shared by all workers of a node.

    ROOT/STORAGE/checkpoints/STUDY/TRIAL/     as on the disk of a service without object storage
    ROOT/STORAGE/sources/SHA256/              rows and base models
    ROOT/STORAGE/prepared/STUDY/              what trainers work out of the rows

What is in use is locked: whoever makes room leaves it alone, and a lock goes with the process that holds it.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from service.domain.errors import UnusableCache
from service.folders import sizes_in

_LOG = logging.getLogger("tuneyard.cache")
_GIGABYTE = 1e9
_DEFAULT_GIGABYTES = 20.0
_KINDS = ("checkpoints/*/*", "sources/*", "prepared/*")
_WHOLE = ".whole"


class WorkerCache:
    """The cache of one worker process. `root` is for all storages that workers of this user were ever told of."""

    def __init__(self, root: Path, most_bytes: int, url: str) -> None:
        """Raises UnusableCache."""
        _make_private(root)
        self._root = root
        self._most_bytes = most_bytes
        self.place = root / hashlib.sha256(url.encode()).hexdigest()[:16]
        self._held: dict[str, int] = {}

    def use(self, name: str) -> Path:
        """The folder of that name, made where there is none; nobody drops it until it is left."""
        if name not in self._held:
            self._held[name] = _locked(self.place / name, fcntl.LOCK_SH)
        os.utime(self.place / name)
        return self.place / name

    def leave(self, kind: str) -> None:
        """Let go of all that is in use below that name."""
        for name in [name for name in self._held if name.startswith(f"{kind}/")]:
            os.close(self._held.pop(name))

    def filled(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder of that name in use, and whole: the first of all processes to want it lets `fill` write it."""
        folder = self.use(name)
        while not (folder / _WHOLE).exists():
            os.close(self._held.pop(name))
            lock = _locked(folder, fcntl.LOCK_EX)
            try:
                if not (folder / _WHOLE).exists():
                    _clear(folder)
                    fill(folder)
                    (folder / _WHOLE).touch()
            finally:
                os.close(lock)
            folder = self.use(name)
        return folder

    def shrink(self, most_bytes: int | None = None) -> None:
        """Drop what was not in use for the longest time, until no more than so much is left, or what is in use."""
        limit = self._most_bytes if most_bytes is None else most_bytes
        entries = [path for kind in _KINDS for path in self._root.glob(f"*/{kind}") if path.is_dir()]
        sizes = {path: sum(sizes_in(path)) for path in entries}
        total = sum(sizes.values())
        for path in sorted(entries, key=_last_use):
            if total <= limit:
                break
            if _dropped(path):
                total -= sizes[path]


def open_cache(url: str, environment: Mapping[str, str] = os.environ) -> WorkerCache:
    """The cache of this node's workers, where and as large as the environment says. Raises UnusableCache."""
    named = environment.get("TUNEYARD_WORKER_CACHE")
    said = environment.get("TUNEYARD_WORKER_CACHE_GB", str(_DEFAULT_GIGABYTES))
    try:
        gigabytes = float(said)
    except ValueError as error:
        raise UnusableCache(f"TUNEYARD_WORKER_CACHE_GB is {said!r}: set it to a number of gigabytes.") from error
    if not gigabytes > 0:
        raise UnusableCache(f"TUNEYARD_WORKER_CACHE_GB is {said}: set it to more than 0 gigabytes.")
    places = [Path(named).expanduser().absolute()] if named else list(_usual_places(environment))
    for place in places[:-1]:
        with suppress(UnusableCache):
            return WorkerCache(place, int(gigabytes * _GIGABYTE), url)
    return WorkerCache(places[-1], int(gigabytes * _GIGABYTE), url)


def _usual_places(environment: Mapping[str, str]) -> Iterator[Path]:
    home = environment.get("XDG_CACHE_HOME") or (environment.get("HOME") and f"{environment['HOME']}/.cache")
    if home:
        yield Path(home) / "tuneyard" / "worker"
    yield Path(tempfile.gettempdir()) / f"tuneyard-worker-{os.getuid()}"


def _make_private(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        status = root.lstat()
        if status.st_uid != os.getuid() or root.is_symlink():
            raise UnusableCache(f"The folder {root} is another user's: set TUNEYARD_WORKER_CACHE to one of your own.")
        root.chmod(0o700)
    except OSError as error:
        raise UnusableCache(
            f"The folder {root} for what workers fetch cannot be used ({error.strerror}): set TUNEYARD_WORKER_CACHE to another."
        ) from error


def _locked(folder: Path, how: int) -> int:
    """A lock on the folder that has this name once it is had: whoever dropped it meanwhile, it is made anew."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        fcntl.flock(descriptor, how)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), folder.stat()):
                return descriptor
        os.close(descriptor)


def _dropped(folder: Path) -> bool:
    """Whether a folder was dropped; one that is in use, in this process or another, is not."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        gone = folder.with_name(f".gone-{folder.name}.{os.getpid()}")
        folder.rename(gone)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    _LOG.info("%s was not used for the longest time: it is dropped", folder)
    shutil.rmtree(gone, ignore_errors=True)
    with suppress(OSError):  # there is more in it
        folder.parent.rmdir()
    return True


def _clear(folder: Path) -> None:
    """Of what a killed process left."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0
