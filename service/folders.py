"""Folders that are measured and deleted, and the room on their disks."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from service.domain.stored import Freed

MARGIN_BYTES = 256 * 1024**2
"""What stays free beside all that is asked about, for logs, the database and the like."""

Free = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """Bytes that may still be written on the disk that holds this folder, or will hold it."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(there).free


def folders_in(root: Path) -> Mapping[str, datetime]:
    """The folders in `root`, which need not be there, and when something was last added to or taken from each."""
    found = {}
    with suppress(FileNotFoundError):
        for path in root.iterdir():
            with suppress(FileNotFoundError):  # deleted meanwhile
                if path.is_dir():
                    found[path.name] = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    return found


def sizes_in(folder: Path) -> Iterator[int]:
    """Bytes of each file below it; of one with several names this one's part."""
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(path, name))  # noqa: PTH118 - half the time of a walk goes into making paths
                yield status.st_size // max(1, status.st_nlink)


def remove(folder: Path) -> Freed:
    """Delete a folder with all in it, and say what that was; nothing happens when there is none."""
    sizes = list(sizes_in(folder))
    shutil.rmtree(folder, ignore_errors=True)
    return Freed(len(sizes), sum(sizes))
