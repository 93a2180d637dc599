"""Why a trial was proposed, promoted or cut: what the search knew when it decided."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from service.domain.trial import Trial

DecisionKind = Literal["proposed", "promoted", "cut"]


@dataclass(frozen=True)
class Decision:
    """One decision about a trial. What does not belong to its kind is None.

    `by` names the sampler or the rule. `report` is the one that values were compared at, or that a model looked at, and
    `observations` what that model knew. `rank` counts from 1 among `among` trials, `cut` is the value it took to go on.
    `parent` is the trial that is copied. `incumbent` is the trial that was best at the time, with its `incumbent_value`.
    `outcome` says which outcomes were broken, and by how much, `although` why a member of a population that is worse than the cut
    goes on.
    """

    kind: DecisionKind
    by: str
    report: int | None = None
    rung: int | None = None
    bracket: int | None = None
    observations: int | None = None
    value: float | None = None
    rank: int | None = None
    among: int | None = None
    cut: float | None = None
    parent: int | None = None
    incumbent: int | None = None
    incumbent_value: float | None = None
    outcome: str | None = None
    although: str | None = None

    @property
    def sentence(self) -> str:
        """The decision in words."""
        match self.kind:
            case "proposed":
                return self._proposed()
            case "promoted" if self.by == "pbt":
                although = "" if self.although is None else f"; it stays, as {self.although}"
                return f"Goes on after generation {self.rung}{self._compared()}{although}."
            case "promoted":
                return f"Promoted to rung {self.rung}{self._compared()}."
            case "cut" if self.outcome is not None:
                return f"Ended at report {self.report}: {self.outcome}."
            case "cut" if self.by == "user":
                return "Stopped, as a user asked."
            case "cut":
                return self._over() if self.by in _OVER else f"Cut{self._compared()}{self._followed()}."

    def beside(self, best: Trial | None) -> Decision:
        """The decision, made while this trial was the best one."""
        return self if best is None else replace(self, incumbent=best.number, incumbent_value=best.best_value)

    def to_json(self) -> dict[str, Any]:
        """What is known of it, without what is not."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def _proposed(self) -> str:
        words = _SOURCES.get(self.by, f"Proposed by `{self.by}`")
        model = f", a model of {self.observations} trials" if self.observations else ""
        at = f" at report {self.report}" if self.observations and self.report else ""
        copied = "" if self.by in {"pbt", "final"} else ", with the weights"
        where = "" if self.report is None else f" at report {self.report}"
        parent = f"{copied} of trial {self.parent}{where}" if self.parent is not None else ""
        best = "" if self.incumbent is None else f"; best so far was trial {self.incumbent} with {self.incumbent_value:.4g}"
        return f"{words}{parent}{model}{at}{best}."

    def _over(self) -> str:
        value = "" if self.incumbent_value is None else f" with {self.incumbent_value:.4g}"
        return f"Ended, as trial {self.incumbent} {_OVER[self.by]}{value}."

    def _followed(self) -> str:
        return "" if self.parent is None else f"; a copy of trial {self.parent} takes its place"

    def _compared(self) -> str:
        if self.rank is None or self.value is None:
            return f" at report {self.report}: it has no value to compare" if self.report else ""
        cut = "" if self.cut is None else f"; the cut was at {self.cut:.4g}"
        return f" by `{self.by}` at report {self.report}: {self.value:.4g} is number {self.rank} of {self.among}{cut}"


_OVER = {"target": "reached the target", "no_improvement": "stayed the best for `no_improvement` trials,"}
"""Why a search is over, of its best trial."""

_SOURCES = {
    "grid": "The next one of the grid",
    "random": "Drawn at random",
    "sobol": "The next one of the Sobol sequence",
    "initial": "Asked for in the definition",
    "request": "Asked for while the study ran",
    "pbt": "A copy",
    "final": "A run under another seed",
}
