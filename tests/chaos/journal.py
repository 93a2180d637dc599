"""What the workers wrote down: which epochs each attempt trained, and what every process was at when it was last heard of."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

WATCHING = Path(__file__).parent / "watching"
"""A folder for PYTHONPATH; see `sitecustomize.py` in it."""

_PHASES = {"start": "start", "load": "start", "work": "start", "train": "training", "save": "save", "export": "export"}
"""What a worker is at after such a line; after any other it has done its part, and waits for its driver."""


@dataclass(frozen=True)
class Line:
    """What one process wrote at one moment, in seconds since 1970."""

    at: float
    pid: int
    study: str
    trial: int
    attempt: int
    what: str
    report: int | None


def read_journal(path: Path) -> list[Line]:
    """All lines so far; one that is being written is left for the next time."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return []
    return [Line(**json.loads(line)) for line in text[: text.rfind("\n") + 1].splitlines()]


def phase(lines: Iterable[Line], pid: int) -> str:
    """What the worker was at when it wrote last; `idle` where it never had an attempt."""
    last = None
    for line in lines:
        last = line if line.pid == pid else last
    return "idle" if last is None else _PHASES.get(last.what, "between")


def workers_of(lines: Iterable[Line]) -> Mapping[int, str]:
    """The study that each worker last had an attempt of."""
    return {line.pid: line.study for line in lines}


def trained(lines: Iterable[Line], study: str) -> Mapping[int, Mapping[int, list[Line]]]:
    """For each trial of a study and each of its reports, the lines that say it was trained, in order."""
    found: defaultdict[int, defaultdict[int, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        if line.study == study and line.what == "trained" and line.report is not None:
            found[line.trial][line.report].append(line)
    return found
