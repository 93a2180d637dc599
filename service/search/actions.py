"""What a study may do next: a closed union. Each action says why; two are equal when they do the same."""

from dataclasses import dataclass, field
from datetime import datetime

from search_spaces import Configuration
from service.domain.decision import Decision
from service.domain.study import StudyReason
from service.domain.trial import Trial, TrialReason


@dataclass(frozen=True)
class Start:
    """Begin a new trial and run it to report `until`.

    One with a parent begins as a copy of it at its `parent_report`; one that repeats another trains it again under its own seed.
    """

    number: int
    parameters: Configuration
    bracket: int
    rung: int
    until: int
    why: Decision | None = field(default=None, compare=False)
    parent: int | None = None
    parent_report: int = 0
    repeats: int | None = None
    seed: int | None = None

    def trial(self, study_id: str, now: datetime) -> Trial:
        """The new trial."""
        return Trial(
            study_id=study_id, number=self.number, parameters=self.parameters, until=self.until, created_at=now,
            bracket=self.bracket, rung=self.rung, reports=self.parent_report, parent=self.parent,
            parent_report=self.parent_report, repeats=self.repeats, seed=self.seed,
        )  # fmt: skip


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
    why: Decision | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Cut:
    """End these trials, which do not run, and ask again. `why` has a decision for each of them, in their order."""

    numbers: tuple[int, ...]
    reason: TrialReason
    why: tuple[Decision, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Wait:
    """Nothing may start before a running trial reports or ends."""


@dataclass(frozen=True)
class Done:
    """Nothing may start and nothing runs: the study ends."""

    reason: StudyReason


Action = Start | Resume | Promote | Cut | Wait | Done
