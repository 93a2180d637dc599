"""What a study may do next: a closed union."""

from collections.abc import Mapping
from dataclasses import dataclass

from search_spaces import Scalar
from service.domain.study import StudyReason
from service.domain.trial import TrialReason


@dataclass(frozen=True)
class Start:
    """Begin a new trial and run it to report `until`."""

    number: int
    parameters: Mapping[str, Scalar]
    bracket: int
    rung: int
    until: int


@dataclass(frozen=True)
class Resume:
    """Go on with a queued trial: its last attempt was lost, or it was promoted and not begun."""

    number: int


@dataclass(frozen=True)
class Promote:
    """Go on with a paused trial, to report `until`."""

    number: int
    rung: int
    until: int


@dataclass(frozen=True)
class Cut:
    """End these paused trials, and ask again."""

    numbers: tuple[int, ...]
    reason: TrialReason


@dataclass(frozen=True)
class Wait:
    """Nothing may start before a running trial reports or ends."""


@dataclass(frozen=True)
class Done:
    """Nothing may start and nothing runs: the study ends."""

    reason: StudyReason


Action = Start | Resume | Promote | Cut | Wait | Done
