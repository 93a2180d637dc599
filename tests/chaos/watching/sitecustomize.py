"""Every Python process of a service under test loads this, as its folder is on PYTHONPATH: workers write down what they are at.

A line is written before or after what it names, so the last one of a process that was killed says in the middle of what it was.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

_WATCHED = "service.execution.attempt"
_JOURNAL = os.environ.get("CHAOS_JOURNAL")


class _Finder(importlib.abc.MetaPathFinder):
    """Finds one module as others do, and changes it once it is there."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != _WATCHED:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        run = loader.exec_module

        def run_and_watch(module: ModuleType) -> None:
            run(module)
            _watch(module)

        loader.exec_module = run_and_watch
        return spec


class _Journal:
    """One process's lines, each whole, in a file that many append to."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._of: dict[str, Any] = {}

    def begin(self, assignment: Any) -> None:
        self._of = {"study": assignment.study_id, "trial": assignment.number, "attempt": assignment.attempt}
        self.say("start")

    def say(self, what: str, report: int | None = None) -> None:
        line = {"at": time.time(), "pid": os.getpid(), **self._of, "what": what, "report": report}
        os.write(self._file, (json.dumps(line) + "\n").encode())


def _watch(module: Any) -> None:
    from service.checkpoints.local import TrialFolder  # noqa: PLC0415 - most processes have no use for it

    assert _JOURNAL is not None
    journal = _Journal(_JOURNAL)
    make_trainer = module.contract.make_trainer
    begin = module.AttemptRun.__init__

    def begun(run: Any, assignment: Any, worker: str, clock: Any, **others: Any) -> None:
        journal.begin(assignment)
        make: Callable[[Any, Any], Any] = lambda config, context: _Watched(make_trainer(config, context), journal)  # noqa: E731
        begin(run, assignment, worker, clock, make, **others)

    module.AttemptRun.__init__ = begun
    _around(TrialFolder, "save_resume", journal, "save")
    _around(TrialFolder, "save_export", journal, "export")
    _around(module.AttemptRun, "advance", journal, "work")


def _around(owner: Any, name: str, journal: _Journal, what: str) -> None:
    plain = getattr(owner, name)

    def watched(self: Any, *arguments: Any, **named: Any) -> Any:
        journal.say(what)
        try:
            return plain(self, *arguments, **named)
        finally:
            journal.say(f"{what} done")

    setattr(owner, name, watched)


class _Watched:
    """A trainer whose epochs are written down."""

    def __init__(self, trainer: Any, journal: _Journal) -> None:
        self._trainer = trainer
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trainer, name)

    def load(self, directory: Path) -> None:
        self._journal.say("load")
        self._trainer.load(directory)

    def reports(self) -> Iterator[Any]:
        self._journal.say("train")
        for report in self._trainer.reports():
            self._journal.say("trained", report.number)
            yield report
            self._journal.say("train")


if _JOURNAL:
    sys.meta_path.insert(0, _Finder())
