"""A trial's checkpoints for the worker that trains it, where they are kept in object storage: its disk is a cache of them.

Each is written to the disk first, all or nothing, and then sent. A report is only told once its state has arrived, so that a
worker on another node, which has nothing of this disk, goes on exactly from what was told.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from service.checkpoints.local import Resume, TrialFolder
from service.checkpoints.manifests import files_in
from service.checkpoints.names import CheckpointName
from service.checkpoints.trial_objects import StateObject, TrialObjects
from service.domain.checkpoint import Manifest
from service.domain.errors import CheckpointNotFound, DamagedObject, NoSpace

_LOG = logging.getLogger("tuneyard.checkpoints")
T = TypeVar("T")


class CachedTrialFolder:
    """As `TrialFolder`, and kept in storage: it raises StorageAway. `make_room` drops from the cache what is not in use."""

    def __init__(self, here: TrialFolder, stored: TrialObjects, make_room: Callable[[], None]) -> None:
        self._here = here
        self._stored = stored
        self._make_room = make_room

    def save_resume(
        self, reports: Sequence[Mapping[str, Any]], write_state: Callable[[Path], None] | None, *, midway: bool = False
    ) -> None:
        """Replace what the trial resumes from, here and then in storage."""
        self._with_room(lambda: self._here.save_resume(reports, write_state, midway=midway))
        name = self._here.resume_name(len(reports), midway=midway)
        self._send(name, reports, self._here.path(name) / "state" if write_state is not None else None)

    def resume(self) -> Resume | None:
        """The last state, wherever it is; None for a trial that starts from nothing.

        It is here and not in storage where a process was killed before it had sent all: then it is sent before anything is told.
        """
        here = self._here.resume()
        for name in self._last_first():
            if here is not None and here.name.order > name.order:
                break
            state = self._stored.state(name)
            if state is None:
                continue
            if here is not None and here.name == name and _same(here.reports, state.reports):
                return here
            if self._fetched(state):
                return self._here.resume()
        if here is not None:
            self._send(here.name, here.reports, here.state)
        return here

    def _last_first(self) -> Iterator[CheckpointName]:
        """Names of what is whole in storage, listed anew after each: a writer that was given up may just have replaced it."""
        passed: set[CheckpointName] = set()
        while left := [name for name in self._stored.whole("resume") if name not in passed]:
            passed.add(left[-1])
            yield left[-1]

    def save_export(
        self,
        report: int,
        write_model: Callable[[Path], None],
        before: int | None = None,
        analysis: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Add an export beside that of report `before`, here and then in storage, and drop other older ones."""
        manifest = self._with_room(lambda: self._here.save_export(report, write_model, before, analysis))
        name = self._here.export_name(report)
        self._stored.send_export(name, self._here.path(name), manifest.files, before)
        return manifest

    def model(self, report: int) -> Path:
        """The folder with that report's export, fetched where another node wrote it. Raises CheckpointNotFound."""
        try:
            self._here.manifest(report)
        except CheckpointNotFound:
            name = self._here.export_name(report)
            self._with_room(lambda: self._here.take(name, lambda folder: self._stored.fetch_export(report, folder)))
        return self._here.model(report)

    def _send(self, name: CheckpointName, reports: Sequence[Mapping[str, Any]], state: Path | None) -> None:
        self._stored.send_state(name, reports, state, [] if state is None else files_in(state))

    def _fetched(self, state: StateObject) -> bool:
        """Whether a state came as it was sent; one that did not is passed over for the one before it."""
        try:
            self._with_room(lambda: self._here.take(state.name, lambda folder: self._stored.fetch_state(state, folder)))
        except DamagedObject as error:
            _LOG.warning("%s/%s cannot be used, going on from before it: %s", self._stored.prefix, state.name, error)
            return False
        self._here.drop_before(state.name)
        return True

    def _with_room(self, write: Callable[[], T]) -> T:
        try:
            return write()
        except NoSpace:
            self._make_room()
            return write()


def _same(ours: Sequence[Mapping[str, Any]], stored: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two checkpoints of one name are one: each attempt's reports have times of their own. NaN is equal to NaN here."""
    return json.dumps(list(ours)) == json.dumps(list(stored))
