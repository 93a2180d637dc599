"""Folders of a service that runs, of which files go while they are looked at."""

import os
from collections.abc import Iterator
from pathlib import Path


def paths_below(folder: Path) -> Iterator[Path]:
    """Everything below it, with no failure over a folder that goes meanwhile, which pathlib's own walk ends with."""
    for parent, folders, files in os.walk(folder):
        yield from (Path(parent, name) for name in (*folders, *files))


def files_below(folder: Path) -> Iterator[Path]:
    """The files among them, links to files included."""
    return (path for path in paths_below(folder) if path.is_file())


def logs_of(home: Path) -> list[str]:
    """What the service with this home folder has written into its logs."""
    return [path.read_text(errors="replace") for path in files_below(home / "logs")]
