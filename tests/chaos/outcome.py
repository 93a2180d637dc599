"""What came of a run, and how it is told."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from tests.chaos.invariants import Finding, Wrong
from tests.chaos.kills import Kind
from tests.chaos.schedule import Moment

IN_A_PAUSE = "pause"
_PHASES = {
    "attempt": "in an attempt",
    **{moment.value: f"in a {moment}" for moment in Moment if moment is not Moment.ANY},
    IN_A_PAUSE: "on the way to a pause",
}
"""What a kill may hit in the middle, and the column that counts it."""


@dataclass(frozen=True)
class Hit:
    """One kill that was made: in the middle of what, and how long it took until some trial gave its next report."""

    kind: Kind
    phases: frozenset[str]
    recovered_seconds: float | None


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    hits: list[Hit] = field(default_factory=list)
    studies: dict[str, str] = field(default_factory=dict)
    """The strategy of each study."""
    trials: int = 0
    reports: int = 0
    trained_again: int = 0
    findings: list[Finding] = field(default_factory=list)
    outlived: list[str] = field(default_factory=list)
    """Processes that were there for too long after their owner."""
    seconds: float = 0.0


def table(outcome: Outcome) -> Iterator[str]:
    """The run in lines of text: kills by process and by what they hit, and what was wrong."""
    by_kind: defaultdict[Kind, list[Hit]] = defaultdict(list)
    for hit in outcome.hits:
        by_kind[hit.kind].append(hit)
    yield f"seed {outcome.seed}, {outcome.seconds:.0f} s"
    yield f"| killed | times | {' | '.join(_PHASES.values())} | next report after (median) |"
    yield "|---|---" + "|---" * len(_PHASES) + "|---|"
    for kind in [*Kind, None]:
        hits = outcome.hits if kind is None else by_kind[kind]
        counted = [str(sum(phase in hit.phases for hit in hits)) for phase in _PHASES]
        waited = [hit.recovered_seconds for hit in hits if hit.recovered_seconds is not None]
        after = f"{median(waited):.1f} s" if waited else ""
        yield f"| {kind or 'all'} | {len(hits)} | {' | '.join(counted)} | {after} |"
    wrong = Counter(finding.wrong for finding in outcome.findings)
    counts = f"{len(outcome.studies)} studies, {outcome.trials} trials, {outcome.reports} reports"
    yield f"{counts}, {outcome.trained_again} trained again"
    yield ", ".join(f"{each}: {wrong[each]}" for each in Wrong) + f", outlived their owner: {len(outcome.outlived)}"
    yield from (f"{finding.wrong}: {finding.study}: {finding.sentence}" for finding in outcome.findings)
    yield from outcome.outlived
