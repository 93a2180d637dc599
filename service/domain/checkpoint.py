"""An exported checkpoint as clients see it: a list of files that can be verified."""

from dataclasses import dataclass
from pathlib import PurePosixPath

EXPORTED_SUFFIXES = frozenset({".safetensors", ".json", ".txt", ".md"})
"""Only these leave the service: a pickle runs code where it is loaded."""


@dataclass(frozen=True)
class CheckpointFile:
    """One file of a checkpoint, by its path inside it."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All files of the export of one trial's best report."""

    study_id: str
    trial: int
    report: int
    files: tuple[CheckpointFile, ...]

    def file(self, path: str) -> CheckpointFile | None:
        """The file with this path, if the checkpoint has it."""
        return next((file for file in self.files if file.path == path), None)


def may_leave(path: str) -> bool:
    """Whether a file of this name may be handed out."""
    pure = PurePosixPath(path)
    return pure.suffix in EXPORTED_SUFFIXES and ".." not in pure.parts and not pure.is_absolute()
