"""A worker that shares no disk with the service: it has everything from object storage, and its own disk is a cache of that."""

from service.checkpoints import shared_sources
from service.checkpoints.cache import WorkerCache, open_cache
from service.checkpoints.cached import CachedTrialFolder
from service.checkpoints.local import TrialFolder
from service.checkpoints.signs import ObjectSigns
from service.checkpoints.space import Free, free_bytes
from service.checkpoints.storage import Patience, Storage, open_storage
from service.checkpoints.trial_objects import CHECKPOINTS, TrialObjects
from service.domain.ports import LocalSources, SharedSources
from service.execution.assignment import Assignment
from service.execution.interruption import INTERRUPT, ListenerAfar
from service.execution.place import Place


class Afar:
    """What the attempts of one worker process have in common. Raises StorageAway, UnusableCache."""

    def __init__(self, storage: Storage, cache: WorkerCache, listener: ListenerAfar, free: Free = free_bytes) -> None:
        self._storage = storage
        self.listener = listener
        self._cache = cache
        self._free = free

    def place(self, assignment: Assignment) -> Place:
        """Where an attempt is at work. What the one before it had in use may be dropped from here on, rows and models aside."""
        study, cache = assignment.study_id, self._cache
        cache.leave(CHECKPOINTS)
        trial = cache.use(f"{CHECKPOINTS}/{study}/{assignment.number:06d}")
        prepared = cache.use(f"prepared/{study}")
        cache.shrink()
        root = trial.parent.parent
        folder = CachedTrialFolder(
            TrialFolder(root, study, assignment.number, self._free, assignment.attempt),
            TrialObjects(self._storage, study, assignment.number),
            lambda: cache.shrink(0),
        )
        return Place(folder, root / study, prepared, lambda: self._fetch(assignment))

    def _fetch(self, assignment: Assignment) -> LocalSources:
        shared = SharedSources(assignment.models, assignment.sources)
        return shared_sources.fetch(self._storage, self._cache, shared)


def open_afar(url: str, study_id: str) -> Afar:
    """With the credentials and the cache that this node's environment names, and an ear for the study's driver."""
    listener = ListenerAfar(ObjectSigns(lambda: open_storage(url, Patience.SHORT), study_id, INTERRUPT))
    return Afar(open_storage(url, Patience.LONG), open_cache(url), listener.listen())
