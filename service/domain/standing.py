"""Where a study stands, as a forecast begins from it: as JSON it goes to the process that simulates the rest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from statistics import median
from typing import Any

from pydantic import TypeAdapter

from service.domain.definition import StudyDefinition
from service.domain.history import History
from service.domain.trial import Attempt, AttemptOutcome, Trial, TrialState

_TRIALS = TypeAdapter(list[Trial])


@dataclass(frozen=True)
class Standing:
    """A study as it stands: what it has come to by `now`, for how long it has run, and how many trials run side by side.

    `overhead_seconds` is what a report takes beside its training; None where nothing says so. `losses` is the share of reports in
    whose place an attempt was lost, `under_way` for how long trials that run have been at their next report. `amended_at` is when
    the budget last changed.
    """

    definition: StudyDefinition
    history: History
    now: datetime
    elapsed_seconds: float
    slots: int
    overhead_seconds: float | None = None
    losses: float = 0.0
    amended_at: datetime | None = None
    under_way: Mapping[int, float] = field(default_factory=dict)

    def to_json(self) -> str:
        """All that a forecast asks for; what models of the search know from elsewhere is left out."""
        history = self.history
        return json.dumps(
            {
                "definition": self.definition.model_dump(mode="json"),
                "trials": _TRIALS.dump_python(list(history.trials.values()), mode="json"),
                "values": history.values,
                "seconds": history.seconds,
                "requested": [dict(one) for one in history.requested],
                "now": self.now.isoformat(),
                "elapsed_seconds": self.elapsed_seconds,
                "slots": self.slots,
                "overhead_seconds": self.overhead_seconds,
                "losses": self.losses,
                "amended_at": self.amended_at and self.amended_at.isoformat(),
                "under_way": self.under_way,
            }
        )

    @staticmethod
    def from_json(text: str) -> "Standing":
        """What `to_json` made."""
        found: Mapping[str, Any] = json.loads(text)
        history = History(
            trials={trial.number: trial for trial in _TRIALS.validate_python(found["trials"])},
            values={int(number): tuple(values) for number, values in found["values"].items()},
            requested=found["requested"],
            seconds={int(number): tuple(times) for number, times in found["seconds"].items()},
        )
        definition = StudyDefinition.model_validate_json(json.dumps(found["definition"]))
        rest = {name: found[name] for name in ("elapsed_seconds", "slots", "overhead_seconds", "losses")}
        amended_at = found["amended_at"] and datetime.fromisoformat(found["amended_at"])
        under_way = {int(number): seconds for number, seconds in found["under_way"].items()}
        now = datetime.fromisoformat(found["now"])
        return Standing(definition, history, now, **rest, amended_at=amended_at, under_way=under_way)


def overhead_seconds(history: History, attempts: Mapping[int, Sequence[Attempt]]) -> float | None:
    """What a report takes beside its training, such as saving: the median over attempts that ended by themselves, or None.

    The first attempt of each worker is left out: it took the worker's start too, which does not come again.
    """
    first: dict[str | None, datetime] = {}
    for attempt in chain.from_iterable(attempts.values()):
        first[attempt.worker] = min(attempt.started_at, first.get(attempt.worker, attempt.started_at))
    found = []
    for number, several in attempts.items():
        copied = history.trials[number].parent_report
        for attempt in several:
            if (
                attempt.ended_at is None
                or attempt.outcome is not AttemptOutcome.DONE
                or attempt.started_at == first[attempt.worker]
            ):
                continue
            took = history.seconds.get(number, ())[attempt.first - copied : attempt.until - copied]
            lasted = (attempt.ended_at - attempt.started_at).total_seconds()
            found += [max(0.0, lasted - sum(took)) / len(took)] if took else []
    return median(found) if found else None


def losses(history: History, attempts: Mapping[int, Sequence[Attempt]]) -> float:
    """The share of reports in whose place an attempt was lost."""
    lost = sum(attempt.outcome is AttemptOutcome.LOST for attempt in chain.from_iterable(attempts.values()))
    reports = sum(map(len, history.seconds.values()))
    return lost / (lost + reports) if lost else 0.0


def under_way(
    history: History, attempts: Mapping[int, Sequence[Attempt]], overhead_seconds: float | None, now: datetime
) -> Mapping[int, float]:
    """For how long each trial that runs has been at its next report: as long as its attempt, less the reports that gave."""
    found = {}
    for trial in history.in_state(TrialState.RUNNING):
        latest = attempts[trial.number][-1] if attempts.get(trial.number) else None
        if latest is not None and latest.ended_at is None:
            given = history.seconds.get(trial.number, ())[max(0, latest.first - trial.parent_report) :]
            spent = sum(given) + len(given) * (overhead_seconds or 0.0)
            found[trial.number] = max(0.0, (now - latest.started_at).total_seconds() - spent)
    return found
