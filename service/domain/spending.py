"""What a study's budget went into."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from service.domain.trial import TrialState


@dataclass(frozen=True)
class Spent:
    """What some trials have used. `seconds` is what their reports took; `lost_seconds` what attempts took that came to nothing.

    `gpu_seconds` has both.
    """

    trials: int = 0
    reports: int = 0
    seconds: float = 0.0
    lost_seconds: float = 0.0
    gpu_seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.trials + other.trials,
            self.reports + other.reports,
            self.seconds + other.seconds,
            self.lost_seconds + other.lost_seconds,
            self.gpu_seconds + other.gpu_seconds,
        )


@dataclass(frozen=True)
class SpentOn:
    """What the trials in one state, at one rung, used; those of the search, or those that the final trains again."""

    state: TrialState
    rung: int
    is_final: bool
    spent: Spent


@dataclass(frozen=True)
class SpendingTable:
    """All that a study has used, as `parts` that add up."""

    parts: Sequence[SpentOn]

    def total(self, of: Callable[[SpentOn], bool] = lambda _: True) -> Spent:
        """What the parts that match add up to."""
        return added(part.spent for part in self.parts if of(part))


def added(spent: Iterable[Spent]) -> Spent:
    """The sum."""
    return sum(spent, Spent())
