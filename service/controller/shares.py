"""The shares as the controller keeps them: worked out at every look, written when they change."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from service.controller.decide import Seen, why_not_driven
from service.controller.sharing import Member, share_out, waits
from service.domain.definition import Resources
from service.domain.ports import Store
from service.domain.share import Share
from service.domain.study import Study, StudyState
from service.domain.trial import TrialState

_MOST_ELAPSED_SECONDS = 10.0
"""More time between two looks than that was not worked time: the machine slept, or the controller was away."""
_WRITE_EVERY = timedelta(seconds=10)
"""How often what studies are owed is written when nothing else changes."""
_SHARING = frozenset({StudyState.QUEUED, StudyState.RUNNING})


class SharesKept:
    """What studies are owed between two writes; a controller that starts again reads what was written last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, Share] = {}
        self._looked_at: datetime | None = None
        self._written_at: datetime | None = None

    def update(self, seen: Seen, starting: Collection[str]) -> None:
        """Grant slots to the studies that have a driver or get one now, and say of the others why they wait."""
        stored = self._store.shares.all()
        new = self._shares(seen, starting, stored)
        is_due = self._written_at is None or seen.now - self._written_at >= _WRITE_EVERY
        changed = {one: share for one, share in new.items() if is_due or _differs(stored.get(one), share)}
        self._store.shares.grant({one: share for one, share in changed.items() if share != stored.get(one)})
        for study_id in starting:
            if stored.get(study_id, Share()).wanted is not None:  # said by a driver that is gone
                self._store.shares.want(study_id, None)
        active = {study.id for study in seen.studies if study.state is not StudyState.PAUSED}
        for study_id in stored.keys() - active:
            self._store.shares.drop(study_id)
        self._known, self._looked_at = dict(new), seen.now
        self._written_at = seen.now if is_due else self._written_at

    def _shares(self, seen: Seen, starting: Collection[str], stored: Mapping[str, Share]) -> dict[str, Share]:
        causes = why_not_driven(seen)
        shares: dict[str, Share] = {}
        members: list[Study] = []
        for study in sorted(seen.studies, key=lambda study: (study.created_at, study.id)):
            share = stored.get(study.id)
            if study.id in causes:
                waiting = waits(share.waiting if share else None, causes[study.id], seen.now)
                shares[study.id] = replace(self._latest(study.id, share) or Share(), slots=0, waiting=waiting)
            elif study.state in _SHARING and (study.id in starting or seen.is_driven(study)):
                members.append(study)
        return {**shares, **self._shared_out(seen, members, starting, stored)}

    def _shared_out(
        self, seen: Seen, members: Collection[Study], starting: Collection[str], stored: Mapping[str, Share]
    ) -> Mapping[str, Share]:
        capacity = seen.capacity
        if capacity is None or not capacity.cpus:  # a cluster that is away takes no slot from anyone
            return {}
        counts = self._store.trials.counts([study.id for study in seen.studies if seen.is_driven(study) or study.id in starting])
        found = []
        for study in members:
            share = self._latest(study.id, stored.get(study.id)) or Share()
            if study.id in starting:
                share = replace(share, wanted=None)
            here = counts[study.id]
            found.append(Member(study, share, here.get(TrialState.RUNNING, 0), is_new=not here))
        leaving: list[tuple[Resources, int]] = [
            (study.resources, counts[study.id].get(TrialState.RUNNING, 0))
            for study in seen.studies
            if study.state not in _SHARING and study.id in counts
        ]
        elapsed = 0.0 if self._looked_at is None else (seen.now - self._looked_at).total_seconds()
        return share_out(capacity, found, leaving, seen.rules, seen.now, max(0.0, min(_MOST_ELAPSED_SECONDS, elapsed)))

    def _latest(self, study_id: str, stored: Share | None) -> Share | None:
        """The stored share, with what the study is owed by now."""
        known = self._known.get(study_id)
        return stored and (replace(stored, lag=known.lag) if known else stored)


def _differs(stored: Share | None, share: Share) -> bool:
    return stored is None or replace(stored, lag=share.lag, wanted=share.wanted) != share
