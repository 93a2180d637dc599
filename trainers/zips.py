"""Zips with a folder for each label, read in memory: nothing is ever unpacked to disk.

What a zip says of its names and sizes is checked before any of its files is read, and no more is read than it says.
"""

import re
import stat
import zipfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from trainers.tables import TableError

_ENTRY_BYTES = 128
"""Of a zip's directory, for an entry with a name of ordinary length."""


@dataclass(frozen=True)
class Limits:
    """What a file of pictures may hold: a small file can say that it is a very large one."""

    entries: int = 1_000_000
    unpacked_bytes: int = 64 * 1024**3
    unpacked_factor: int = 100
    """How many times as large as the zip its files may be, once they have more than `small_bytes`."""
    small_bytes: int = 100 * 1024**2
    image_bytes: int = 256 * 1024**2
    pixels: int = 89_478_485
    """Of one picture: the number above which Pillow warns."""


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """A file of a zip, and the label that its folder is."""

    entry: zipfile.ZipInfo
    label: str

    @property
    def name(self) -> str:
        """As an error's sentence names it."""
        return repr(self.entry.filename)


def find_members(path: Path, endings: Collection[str], limits: Limits) -> list[Member]:
    """The files with one of these endings, by name; none of them is read yet. Raises TableError, OSError."""
    _check_directory(path, limits)
    with open_zip(path) as archive:
        entries = archive.infolist()
    if len(entries) > limits.entries:
        raise _too_many(limits)
    found = {}
    for entry in entries:
        place = _place(entry)
        if not entry.is_dir() and place.suffix.lower() in endings and not any(map(_is_hidden, place.parts)):
            found[place] = entry
    if not found:
        raise TableError("there is no picture in the zip: give each label a folder, with files in it such as cats/1.png")
    _check_sizes(path, list(found.values()), limits)
    labels = _folder_labels(list(found))
    return sorted((Member(entry, labels[place]) for place, entry in found.items()), key=lambda member: member.entry.filename)


def _check_directory(path: Path, limits: Limits) -> None:
    """Before Python's own reader takes all of it into memory."""
    with path.open("rb") as file:
        try:
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # noqa: SLF001 - the very place that the reader goes by
        except Exception as error:
            raise TableError(f"the zip is broken: {error}") from error
    if end is not None and end[zipfile._ECD_SIZE] > limits.entries * _ENTRY_BYTES:  # type: ignore[attr-defined]  # noqa: SLF001
        raise _too_many(limits)


def _too_many(limits: Limits) -> TableError:
    return TableError(f"the zip has more than {limits.entries:,} entries: make several of it")


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open it to read from. Raises TableError, OSError."""
    try:
        archive = zipfile.ZipFile(path)
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:
        raise TableError(f"the zip is broken: {error}") from error
    with archive:
        yield archive


def _place(entry: zipfile.ZipInfo) -> PurePosixPath:
    """Where an entry is. Raises TableError for one that no honest zip of pictures has."""
    name = entry.filename.replace("\\", "/")
    place = PurePosixPath(name)
    if place.is_absolute() or ".." in place.parts or re.match(r"[A-Za-z]:", name):
        raise TableError(f"{entry.filename!r} in the zip would leave its folder: use names below it")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        raise TableError(f"{entry.filename!r} in the zip is a link or a device: put the file itself there")
    if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise TableError(f"{entry.filename!r} in the zip is compressed in a way that is not read here: use deflate, or none")
    if entry.flag_bits & 1:
        raise TableError(f"{entry.filename!r} in the zip is encrypted: make the zip without a password")
    return place


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _check_sizes(path: Path, entries: Sequence[zipfile.ZipInfo], limits: Limits) -> None:
    """By what the entries say; no more than that is read of any."""
    size = path.stat().st_size
    for entry in entries:
        if entry.compress_size > size:  # for which Python's reader would make room before it reads
            raise TableError(f"the zip is broken: {entry.filename!r} would be larger than all of it")
        if entry.file_size > limits.image_bytes:
            raise TableError(f"{entry.filename!r} in the zip unpacks to more than {limits.image_bytes:,} bytes: make it smaller")
    unpacked = sum(entry.file_size for entry in entries)
    is_bomb = unpacked > limits.small_bytes and unpacked > limits.unpacked_factor * size
    if is_bomb or unpacked > limits.unpacked_bytes:
        most = f"{limits.unpacked_factor} times its size" if is_bomb else f"{limits.unpacked_bytes:,} bytes"
        raise TableError(f"the zip unpacks to {unpacked:,} bytes, more than {most}: use compressed pictures, or several zips")


def _folder_labels(places: Sequence[PurePosixPath]) -> dict[PurePosixPath, str]:
    """The folder that each file is in, from where they differ on; where all are in one folder, its name."""
    folders = {place.parent.parts for place in places}
    if () in folders:
        name = next(place.name for place in places if not place.parent.parts)
        raise TableError(f"{name!r} in the zip is in no folder: put every picture into a folder with its label's name")
    depth = 0
    while all(len(folder) > depth + 1 for folder in folders) and len({folder[depth] for folder in folders}) == 1:
        depth += 1
    return {place: "/".join(place.parent.parts[depth:]) for place in places}


def unpack(archive: zipfile.ZipFile, member: Member) -> bytes:
    """The file's content, whole and by its checksum. Raises TableError."""
    try:
        return archive.read(member.entry)
    except Exception as error:
        raise TableError(f"{member.name} in the zip is broken: {error}") from error
