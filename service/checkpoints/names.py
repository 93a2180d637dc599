"""What the checkpoints of a trial are called, on disks and in object storage alike, and which of them a new one replaces.

A name says which attempt wrote the checkpoint. So two that are at work at once, as the one that was given up does not know it
yet, never write to the same place; and as none drops what comes after its own, nor anything once it sees a later attempt's, who
writes late destroys nothing that the later attempt wrote. Until that has written something, the earlier one may still drop a
state which it is about to load: then the trial goes on from an earlier one, or trains again.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

_NUMBERED = re.compile(r"(resume|export)-(\d{6,})(?:-(a?)(\d+))?")

MARKERS = {"resume": "reports.json", "export": "manifest.json"}
"""The file of each kind that makes one whole: in object storage it is written last and deleted first."""


@dataclass(frozen=True)
class CheckpointName:
    """`resume-000003-a2` and `export-000003-a2` by attempt 2, `resume-000003-2` where it was interrupted on its way to report 4.

    `resume-000003` and `export-000003` are by no attempt that is known: copies of a parent's, and those of earlier releases.
    """

    kind: Literal["resume", "export"]
    report: int
    attempt: int = 0
    midway: bool = False

    def __str__(self) -> str:
        if self.midway:
            return f"{self.kind}-{self.report:06d}-{self.attempt}"
        return f"{self.kind}-{self.report:06d}{f'-a{self.attempt}' if self.attempt else ''}"

    @property
    def order(self) -> tuple[int, int, bool]:
        """Of all states of a trial the last one counts: a later attempt's, as that began when the others had been given up."""
        return self.attempt, self.report, self.midway

    @property
    def marker(self) -> str:
        return MARKERS[self.kind]


def name_of(text: str) -> CheckpointName | None:
    """The name that a folder's name is; None where it is none."""
    match = _NUMBERED.fullmatch(text)
    if match is None:
        return None
    kind: Literal["resume", "export"] = "resume" if match[1] == "resume" else "export"
    return CheckpointName(kind, int(match[2]), int(match[4] or 0), midway=match[3] == "")


def states_replaced(new: CheckpointName, names: Collection[CheckpointName]) -> list[CheckpointName]:
    """The states that nobody needs once there is a new one: those before it, the last of them last."""
    older = [one for one in _older(new, names) if one.kind == "resume"]
    return sorted(older, key=lambda one: one.order)


def exports_replaced(new: CheckpointName, before: int | None, names: Collection[CheckpointName]) -> list[CheckpointName]:
    """The exports that nobody needs once there is a new one: those up to its report, but that of report `before`.

    A trial that had to start over reports again what is known: a later export may be the one the store names.
    """
    older = [one for one in _older(new, names) if one.kind == "export"]
    return [one for one in older if one.report <= new.report and one.report != before]


def _older(new: CheckpointName, names: Collection[CheckpointName]) -> list[CheckpointName]:
    """What comes before a new one; nothing for an attempt that was given up: others may go on from what it would replace."""
    is_given_up = any(one.attempt > new.attempt for one in names)
    return [] if is_given_up else [one for one in names if one.order < new.order]


def export_of(report: int, names: Collection[CheckpointName]) -> CheckpointName | None:
    """The export of that report, the last attempt's where several have one."""
    found = [one for one in names if one.kind == "export" and one.report == report]
    return max(found, key=lambda one: one.order, default=None)
