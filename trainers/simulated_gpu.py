"""A GPU's memory that is not there: what the processes that share it say they have taken, in a folder that they share."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trainers.contract import GpuMemory, TrainerError


class SimulatedMemory:
    """The memory of one GPU as one process sees it. It has what it took until it takes something else, or ends."""

    def __init__(self, folder: Path, total_bytes: int, process: int | None = None) -> None:
        self._folder = folder
        self._total_bytes = total_bytes
        self._process = os.getpid() if process is None else process
        self._peak_bytes = 0

    def take(self, wanted_bytes: int) -> GpuMemory:
        """Have so much of it from now on. Raises TrainerError with reason `out_of_memory` where the others leave less."""
        with self._locked():
            mine = self._folder / str(self._process)
            mine.unlink(missing_ok=True)
            left = self._total_bytes - sum(self._taken())
            if wanted_bytes > left:
                detail = f"It takes {wanted_bytes} bytes of its GPU's memory, and {left} of {self._total_bytes} are free."
                raise TrainerError("out_of_memory", detail)
            mine.write_text(str(wanted_bytes))
        self._peak_bytes = max(self._peak_bytes, wanted_bytes)
        return GpuMemory(self._peak_bytes, self._total_bytes)

    def _taken(self) -> Iterator[int]:
        """What each process has that still lives."""
        for file in self._folder.glob("[0-9]*"):
            if _lives(int(file.name)):
                yield int(file.read_text())
            else:
                file.unlink()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
