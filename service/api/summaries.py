"""What the views of a study show of its trials: how many there are, what they add up to, and the best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock

from service.domain.ports import TrialStore, TrialTotals
from service.domain.study import Study
from service.domain.trial import Trial, TrialState

_MOST_KEPT = 4096


@dataclass(frozen=True)
class Summary:
    """One study's trials in short."""

    counts: Mapping[TrialState, int]
    totals: TrialTotals
    best: Trial | None


class Summaries:
    """Looks them up. Thread-safe.

    Trials do not change after their study's end, and a study that is extended is of another version: those are kept.
    """

    def __init__(self, trials: TrialStore) -> None:
        self._trials = trials
        self._kept: dict[tuple[str, int], Summary] = {}
        self._lock = Lock()

    def of(self, studies: Sequence[Study]) -> Mapping[str, Summary]:
        """Of each of these studies."""
        found: dict[str, Summary] = {}
        for study in studies:
            kept = self._kept.get((study.id, study.version)) if study.state.is_end else None
            if kept is not None:
                found[study.id] = kept
        missing = [study for study in studies if study.id not in found]
        if missing:
            found |= self._read(missing)
            self._keep({(study.id, study.version): found[study.id] for study in missing if study.state.is_end})
        return found

    def _read(self, studies: Sequence[Study]) -> Mapping[str, Summary]:
        ids = [study.id for study in studies if study.started_at is not None]  # the others have no trial yet
        new = {study.id: Summary({}, TrialTotals(), None) for study in studies if study.started_at is None}
        if not ids:
            return new
        counts, totals, bests = self._trials.counts(ids), self._trials.totals(ids), self._trials.bests(studies)
        return {**new, **{one: Summary(counts[one], totals[one], bests.get(one)) for one in ids}}

    def _keep(self, found: Mapping[tuple[str, int], Summary]) -> None:
        with self._lock:
            self._kept.update(found)
            while len(self._kept) > _MOST_KEPT:
                del self._kept[next(iter(self._kept))]
