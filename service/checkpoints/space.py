"""Room on a disk: asked for before a checkpoint is written, and remembered where there was none.

    ROOT/STUDY/.needed     the folder that had no room, and the bytes that have to be free there before the study goes on

A study that was paused for want of room goes on once there is clearly more than that: else it would only fill the disk again.
"""

import errno
import json
import logging
import re
from contextlib import suppress
from pathlib import Path

from service.domain.errors import NoSpace
from service.folders import MARGIN_BYTES, Free, free_bytes, sizes_in

__all__ = ["MARGIN_BYTES", "Free", "Room", "free_bytes", "has_room", "is_full", "note", "refusal"]

_GROWTH = 1.2
_CLEARLY = 1.5
_SLIVER_BYTES = 64 * 1024
"""With less than this free, whatever went wrong while writing went wrong for that."""
_NOTE = ".needed"
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_SAID = re.compile(r"No space left on device|Disk quota exceeded|database or disk is full|os error (?:28|122)\b")
"""What libraries say that do not raise an OSError, or lose its number between processes."""
_LOG = logging.getLogger("tuneyard.checkpoints")


def is_full(error: BaseException | None) -> bool:
    """Whether the error, or one it came from, says that a disk or a quota is full."""
    while error is not None:
        if (isinstance(error, OSError) and error.errno in _FULL) or _SAID.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


class Room:
    """The room that the checkpoints of one trial have, in its study's folder."""

    def __init__(self, trial: Path, free: Free = free_bytes) -> None:
        self._trial = trial
        self._study = trial.parent
        self._free = free

    def require(self, kind: str) -> None:
        """Before a state or an export is written, of which the trial's last one says how large it will be. Raises NoSpace."""
        needed = MARGIN_BYTES + int(_GROWTH * self._last(kind))
        if self._free(self._study) < needed:
            raise self._refused(needed)

    def missing(self, failure: BaseException, written: int) -> NoSpace | None:
        """What to raise for a failure while writing that came of a full disk; so many bytes were written, and are gone again."""
        if not isinstance(failure, Exception) or not (is_full(failure) or self._free(self._study) < _SLIVER_BYTES + written):
            return None
        return self._refused(MARGIN_BYTES + int(_GROWTH * max(self._last("resume"), self._last("export"), 2 * written)))

    def _refused(self, needed: int) -> NoSpace:
        note(self._study, self._study, needed)
        return NoSpace(str(self._study.parent), needed, self._free(self._study), stops_study=True)

    def _last(self, kind: str) -> int:
        """Bytes of this trial's last one, or of another trial's of the study; 0 where there is none."""
        others = sorted((path for path in _inside(self._study) if path != self._trial and path.name.isdigit()), reverse=True)
        for trial in (self._trial, *others):
            found = sorted(path for path in _inside(trial) if path.name.startswith(f"{kind}-"))
            if found:
                return sum(sizes_in(found[-1]))
        return 0


def refusal(study: Path, error: BaseException, folder: Path, free: Free = free_bytes) -> NoSpace:
    """What a study waits for when something beside its checkpoints found a disk full: some room where that was written."""
    named = getattr(error, "filename", None)
    place = Path(named).parent if isinstance(named, str) else folder
    note(study, place, MARGIN_BYTES)
    return NoSpace(str(place), MARGIN_BYTES, free(place), stops_study=True)


def note(study: Path, folder: Path, needed: int) -> None:
    """Remember what a study waits for."""
    try:
        study.mkdir(parents=True, exist_ok=True)
        (study / _NOTE).write_text(json.dumps({"folder": str(folder), "bytes": needed}))
    except OSError as error:
        _LOG.warning("it is not remembered that %s needs %s bytes: %s", folder, needed, error)


def has_room(study: Path, free: Free = free_bytes) -> bool:
    """Whether there is clearly room for what the study last had none for, or for a little where that is not known."""
    folder, needed = study, MARGIN_BYTES
    with suppress(OSError, ValueError, KeyError):
        noted = json.loads((study / _NOTE).read_text())
        folder, needed = Path(noted["folder"]), int(noted["bytes"])
    return free(folder) >= _CLEARLY * needed


def _inside(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir()]
    except FileNotFoundError:
        return []
