"""Where a study stands, as a forecast begins from it: as JSON it goes to the process that simulates the rest."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from statistics import median
from typing import Any

from pydantic import TypeAdapter

from service.domain.definition import StudyDefinition
from service.domain.history import History
from service.domain.trial import Attempt, AttemptOutcome, Trial

_TRIALS = TypeAdapter(list[Trial])


@dataclass(frozen=True)
class Standing:
    """A study as it stands: what it has come to by `now`, for how long it has run, and how many trials run side by side.

    `overhead_seconds` is what a report takes beside its training, `losses` the share of reports in whose place an attempt was
    lost. `amended_at` is when its budget last changed.
    """

    definition: StudyDefinition
    history: History
    now: datetime
    elapsed_seconds: float
    slots: int
    overhead_seconds: float = 0.0
    losses: float = 0.0
    amended_at: datetime | None = None

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
        return Standing(definition, history, datetime.fromisoformat(found["now"]), **rest, amended_at=amended_at)


def overhead_seconds(history: History, attempts: Mapping[int, Sequence[Attempt]]) -> float:
    """What a report takes beside its training, such as saving: the median over the attempts that ended by themselves.

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
    return median(found) if found else 0.0


def losses(history: History, attempts: Mapping[int, Sequence[Attempt]]) -> float:
    """The share of reports in whose place an attempt was lost."""
    lost = sum(attempt.outcome is AttemptOutcome.LOST for attempt in chain.from_iterable(attempts.values()))
    reports = sum(map(len, history.seconds.values()))
    return lost / (lost + reports) if lost else 0.0
