"""The rows that a study started with, kept for it although somebody replaces the file.

FOLDER/sources.json        {"uri": "file in this folder"}, written last
FOLDER/0-….csv             a hard link to the data set's content, or a copy where the disk has no links
"""

import json
import os
import shutil
from pathlib import Path

from service.catalog.locking import only_writer
from service.domain.errors import DatasetNotFound
from service.domain.ports import LocalSources
from service.settings import write_private


def pin(sources: LocalSources, folder: Path) -> LocalSources:
    """Keep the data files in `folder` and answer where they are there; a second time answers what the first one kept.

    Models are answered as they came. Raises DatasetNotFound for a file that was replaced while this ran.
    """
    written = folder / "sources.json"
    with only_writer(folder):
        if not written.is_file():
            _clear(folder)
            kept = {uri: _keep(path, folder, number) for number, (uri, path) in enumerate(sorted(sources.sources.items()))}
            write_private(written, json.dumps(kept, indent=1))
        pinned = json.loads(written.read_bytes())
    return LocalSources(models=sources.models, sources={uri: folder / name for uri, name in pinned.items()})


def _clear(folder: Path) -> None:
    """Of what a killed process left."""
    for path in folder.iterdir():
        if path.name != ".lock":
            path.unlink()


def _keep(path: Path, folder: Path, number: int) -> str:
    name = f"{number}-{path.name}"
    try:
        os.link(path, folder / name)
    except FileNotFoundError as error:
        raise DatasetNotFound(f"{path.name} was replaced or deleted while the study started: start it again.") from error
    except OSError:  # another disk, or one without links
        shutil.copyfile(path, folder / name)
    return name
