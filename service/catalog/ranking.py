"""Base models to choose from, and how they do on somebody's rows.

The API process loads no torch, so models are tried in a child process (`trainers.probe`): one at a time, offline, and for no
longer than `_SECONDS`. Whoever asks waits a little and is then told to ask again; results of models are kept on disk.

    CACHE/results/KEY.json     how one model did on the rows of one file; failures are only kept in memory
    CACHE/features/            the child's own
"""

import json
import logging
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from service import lifeline
from service.catalog.models import Models
from service.catalog.sources import Sources
from service.domain.base_models import FoundModel, Probed, ProbeRows
from service.domain.errors import InvalidQuery, NotReady, UnreadableDataset
from service.inherited import needed
from service.settings import write_private

_LOG = logging.getLogger("tuneyard.models")
_VERSION = 1
_SECONDS = 300
_WAIT_SECONDS = 8.0
_LOG_TAIL = 2000

Run = Callable[[Mapping[str, Any]], Iterator[Mapping[str, Any]]]
"""Tries models: a request of `trainers.probe`, and the lines of its answer."""


class ModelShelf:
    """Base models by name, and the rows to try them on."""

    def __init__(self, models: Models, sources: Sources, prober: "Prober") -> None:
        self._models = models
        self._sources = sources
        self._prober = prober

    def of(self, project: str) -> "ModelShelf":
        return ModelShelf(self._models, self._sources.of(project), self._prober)

    def describe(self, name: str) -> FoundModel:
        return self._models.describe(name)

    def here(self) -> Sequence[FoundModel]:
        return self._models.here()

    def probe(self, kind: str, rows: ProbeRows, names: Sequence[str]) -> Mapping[str, Probed]:
        columns = self._sources.columns(rows.source)
        for role, column in rows.columns.items():
            if columns is not None and column not in columns:
                listed = ", ".join(f"`{one}`" for one in columns)
                raise InvalidQuery(f"{rows.source} has no column `{column}`: name one of {listed} as `{role}`.")
        folders = {name: self._models.folder(name) for name in names}
        try:
            return self._prober.results(kind, self._sources.fetch(rows.source), rows.columns, folders)
        except OSError as error:  # replaced at this moment
            raise UnreadableDataset(f"{rows.source} or a model cannot be read: {error}. Ask again.") from error


class ChildEndedError(Exception):
    """The child ended before it was done, with this exit code; the message says how."""

    def __init__(self, code: int) -> None:
        self.is_late = code == -signal.SIGALRM
        super().__init__(f"was not done within {_SECONDS} seconds" if self.is_late else f"ended with {_end_of(code)}")


class Prober:
    """Tries models on rows, one request at a time. `wait_seconds` is how long a caller is kept waiting."""

    def __init__(self, cache: Path, run: Run, wait_seconds: float = _WAIT_SECONDS) -> None:
        self._cache = cache
        self._run = run
        self.wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._patience = threading.Lock()
        self._under_way: threading.Thread | None = None
        self._failed: dict[str, Mapping[str, Any]] = {}
        """What is not worth a place on disk: the next service may have the memory, or the file, that this one lacked."""

    def results(
        self, kind: str, rows: Path, columns: Mapping[str, str], folders: Mapping[str, Path]
    ) -> Mapping[str, Probed]:  # fmt: skip
        """How each model does. Raises UnreadableDataset, and NotReady while it is not known yet.

        One caller waits for it; the others are told at once, or they would hold all the threads that the API has.
        """
        keys = {name: _key(kind, rows, columns, folder) for name, folder in folders.items()}
        deadline = time.monotonic() + self.wait_seconds
        known: dict[str, Probed] = {}
        is_waiting = False
        try:
            while True:
                unknown = [name for name in keys if name not in known]
                known |= {name: found for name in unknown if (found := self._known(keys[name])) is not None}
                missing = [name for name in keys if name not in known]
                if not missing:
                    return known
                waited_for = self._begin(_request(kind, rows, columns, {name: folders[name] for name in missing}), keys)
                is_waiting = is_waiting or self._patience.acquire(blocking=False)
                left = deadline - time.monotonic()
                if left <= 0 or not is_waiting:
                    listed = f"{len(missing)} of {len(keys)} models are" if len(keys) > 1 else f"{missing[0]} is"
                    raise NotReady(f"{listed} still being tried on these rows: ask again in a few seconds.")
                waited_for.join(left)
        finally:
            if is_waiting:
                self._patience.release()

    def _begin(self, request: Mapping[str, Any], keys: Mapping[str, str]) -> threading.Thread:
        """The thread that is at it, or else a new one for this request."""
        with self._lock:
            if self._under_way is None or not self._under_way.is_alive():
                whole = {**request, "cache": str(self._cache / "features")}
                self._under_way = threading.Thread(target=self._work, args=(whole, keys), daemon=True)
                self._under_way.start()
            return self._under_way

    def _work(self, request: Mapping[str, Any], keys: Mapping[str, str]) -> None:
        """Try all models. One at which the child ends is not tried again, and those behind it are by another child."""
        waiting = dict(request["models"])
        while waiting:
            at_first = len(waiting)
            how, is_late = "did not finish it", False
            try:
                for line in self._run({**request, "models": dict(waiting)}):
                    for name in [str(line["model"])] if "model" in line else list(waiting):
                        self._keep(keys[name], line)
                        del waiting[name]
            except ChildEndedError as error:
                how, is_late = str(error), error.is_late
            except Exception:
                _LOG.exception("models could not be tried")
            if waiting and not (is_late and len(waiting) < at_first):  # one that began late gets its whole time
                name = next(iter(waiting))
                del waiting[name]
                self._failed[keys[name]] = {"failure": f"{name} could not be tried: the process that tried it {how}"}

    def _keep(self, key: str, line: Mapping[str, Any]) -> None:
        if "metrics" in line:
            try:
                write_private(self._path(key), json.dumps(line))
            except OSError:
                _LOG.exception("a result cannot be kept")
            else:
                return
        self._failed[key] = line

    def _known(self, key: str) -> Probed | None:
        line = self._failed.get(key)
        if line is None:
            try:
                line = json.loads(self._path(key).read_bytes())
            except (FileNotFoundError, ValueError):  # the latter left by a power cut
                return None
        if "error" in line:
            raise UnreadableDataset(f"These rows cannot be ranked by: {line['error']}.")
        return Probed(**{name: value for name, value in line.items() if name != "model"})

    def _path(self, key: str) -> Path:
        return self._cache / "results" / f"{key}.json"


def open_prober(cache: Path) -> Prober:
    """One that starts child processes and keeps what they find in `cache`."""
    return Prober(cache, run_child)


def run_child(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The lines that `trainers.probe` answers, as they come. It ends itself in time, and with our process group.

    Raises ChildEndedError.
    """
    threads = str(request["threads"])
    environment = {
        **needed(os.environ), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": threads,
    }  # fmt: skip
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(  # noqa: S603 - our own module
            lifeline.command("trainers.probe"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
        ) as child:  # fmt: skip
            assert child.stdin is not None  # noqa: S101 - pipes were asked for
            assert child.stdout is not None  # noqa: S101 - the same
            with suppress(BrokenPipeError), child.stdin as stdin:
                stdin.write(json.dumps(request).encode())
            for line in child.stdout:
                yield json.loads(line)
        if child.returncode:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _LOG_TAIL))
            _LOG.warning("trying models ended with %s: %s", child.returncode, log.read().decode(errors="replace"))
            raise ChildEndedError(child.returncode)


def _end_of(code: int) -> str:
    if code == -signal.SIGKILL:
        return f"signal {-code}, as one does that takes more memory than there is"
    return f"signal {-code}" if code < 0 else f"code {code}"


def _request(kind: str, rows: Path, columns: Mapping[str, str], folders: Mapping[str, Path]) -> Mapping[str, Any]:
    models = {name: str(folder) for name, folder in folders.items()}
    return {"kind": kind, "rows": str(rows), "columns": dict(columns), "models": models, "threads": 1, "seconds": _SECONDS}


def _key(kind: str, rows: Path, columns: Mapping[str, str], folder: Path) -> str:
    """Of all that a result depends on. Files of rows are called by their hash; of a model, sizes and times have to do."""
    files = sorted(path for path in folder.iterdir() if path.suffix in {".safetensors", ".json", ".txt", ".model"})
    model = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    seen = [_VERSION, kind, str(rows), rows.stat().st_size, rows.stat().st_mtime_ns, sorted(columns.items()), str(folder), model]
    return sha256(json.dumps(seen).encode()).hexdigest()[:32]
