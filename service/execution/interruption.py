"""How trainers hear in the middle of a step that they are to leave: by a small file in their study's folder of checkpoints.

Ray says nothing to an actor that computes, and this folder is there for a study's driver and all its workers. Where they share no
disk it is an object in storage, which a thread of the worker looks at, as a look takes as long as a step.
"""

import logging
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path

from service.domain.errors import StorageAway
from service.domain.ports import Signs
from service.domain.study import Study, StudyReason, StudyState

INTERRUPT = ".interrupt"
"""The file's name, or the object's."""
_LOOK_SECONDS = 0.2
"""Trainers ask at every step; the disk is asked less often."""
_LOOK_AFAR_SECONDS = 2.0
_LOG = logging.getLogger("tuneyard.attempt")


class Wish(StrEnum):
    """What is asked for: to save and leave, or to leave."""

    PAUSE = "pause"
    CANCEL = "cancel"


def wish_of(study: Study) -> Wish | None:
    """What the trainers of a study are asked for."""
    if study.state is StudyState.PAUSING and study.is_urgent:
        return Wish.PAUSE
    is_cancelled = study.state is StudyState.STOPPING and study.reason is StudyReason.CANCEL_REQUESTED
    return Wish.CANCEL if is_cancelled else None


class FileSigns:
    """The port `Signs` on a disk: a small file in the study's folder of checkpoints. Raises OSError."""

    def __init__(self, checkpoints: Path, study_id: str, name: str) -> None:
        self._path = checkpoints / study_id / name

    def read(self) -> str | None:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return None

    def write(self, word: str | None) -> None:
        if word is None:
            self._path.unlink(missing_ok=True)
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_name(f"{self._path.name}.new")
        unfinished.write_text(word)
        unfinished.replace(self._path)


class Sign:
    """The driver's end: the file says what is asked for, and is not there while nothing is."""

    def __init__(self, checkpoints: Path, study_id: str) -> None:
        self._signs = FileSigns(checkpoints, study_id, INTERRUPT)
        self._shown: Wish | None = None
        self._signs.write(None)  # what a driver left that was killed

    def show(self, wish: Wish | None) -> None:
        """Ask all trainers of the study for this, or for nothing any more. Raises OSError when the disk does not take it."""
        if wish is self._shown:
            return
        self._signs.write(wish)
        self._shown = wish


class Listener:
    """A worker's end: called at every step, it answers what is asked for."""

    def __init__(self, checkpoints: Path, study_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._signs = FileSigns(checkpoints, study_id, INTERRUPT)
        self._clock = clock
        self._looked_at = -_LOOK_SECONDS
        self._heard: Wish | None = None

    def __call__(self) -> Wish | None:
        now = self._clock()
        if now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = now
            self._heard = self._read()
        return self._heard

    def _read(self) -> Wish | None:
        try:
            return _wish(self._signs.read())
        except (OSError, ValueError):  # a shared disk may lose a file that takes another's place; the next look finds it
            return None


class SignAfar:
    """The driver's end where there is no shared disk. `signs` is the object that says it."""

    def __init__(self, signs: Signs, clock: Callable[[], float] = time.monotonic) -> None:
        self._signs = signs
        self._clock = clock
        self._not_before = 0.0
        self._shown: Wish | None = None
        self._is_sure = False
        """Whether what is shown is this driver's: one that was killed may have left something."""

    def show(self, wish: Wish | None) -> None:
        """Ask all trainers of the study for this, or for nothing any more. Raises StorageAway, and then rests for a while."""
        if (self._is_sure and wish is self._shown) or self._clock() < self._not_before:
            return
        self._not_before = self._clock() + _LOOK_AFAR_SECONDS
        self._signs.write(wish)
        self._shown, self._is_sure, self._not_before = wish, True, 0.0


class ListenerAfar:
    """A worker's end of it: at every step it answers what the last look found."""

    def __init__(self, signs: Signs) -> None:
        self._signs = signs
        self._heard: Wish | None = None
        self._is_away = False
        self._done = threading.Event()

    def __call__(self) -> Wish | None:
        return self._heard

    def listen(self) -> "ListenerAfar":
        """Look again and again from a thread of its own, which ends with this process or at `close`."""
        threading.Thread(target=self._look_on, name="listener", daemon=True).start()
        return self

    def close(self) -> None:
        self._done.set()

    def look(self) -> None:
        """Look once. While the storage is away, what was heard last holds; that it is away is said once."""
        try:
            said = self._signs.read()
            self._heard, self._is_away = _wish(said), False
        except ValueError:
            self._heard = None
        except StorageAway as error:
            if not self._is_away:
                _LOG.warning("nobody can ask this trial to leave now: %s", error.cause)
            self._is_away = True

    def _look_on(self) -> None:
        while not self._done.is_set():
            self.look()
            self._done.wait(_LOOK_AFAR_SECONDS)


def _wish(said: str | None) -> Wish | None:
    """Raises ValueError for a word that is none."""
    return None if said is None else Wish(said)
