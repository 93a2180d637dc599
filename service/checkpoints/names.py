"""What the checkpoints of a trial are called, on disks and in object storage alike."""

import re
from dataclasses import dataclass
from typing import Literal

_NUMBERED = re.compile(r"(resume|export)-(\d{6,})(?:-(\d+))?")

MARKERS = {"resume": "reports.json", "export": "manifest.json"}
"""The file of each kind that makes one whole: in object storage it is written last and deleted first."""


@dataclass(frozen=True)
class CheckpointName:
    """`resume-000003`, `resume-000003-2` where attempt 2 was interrupted on its way to report 4, or `export-000002`."""

    kind: Literal["resume", "export"]
    report: int
    interrupted: int | None = None

    def __str__(self) -> str:
        return f"{self.kind}-{self.report:06d}{'' if self.interrupted is None else f'-{self.interrupted}'}"

    @property
    def how_far(self) -> tuple[int, int]:
        """Orders the states of a trial."""
        return self.report, self.interrupted or 0

    @property
    def marker(self) -> str:
        return MARKERS[self.kind]


def name_of(text: str) -> CheckpointName | None:
    """The name that a folder's name is; None where it is none."""
    match = _NUMBERED.fullmatch(text)
    if match is None:
        return None
    kind: Literal["resume", "export"] = "resume" if match[1] == "resume" else "export"
    return CheckpointName(kind, int(match[2]), None if match[3] is None else int(match[3]))
