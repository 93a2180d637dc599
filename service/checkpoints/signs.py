"""What a study's driver says to others that share no disk with it: small objects beside the study's checkpoints."""

from collections.abc import Callable
from functools import cache

from service.checkpoints.storage import Storage
from service.checkpoints.trial_objects import CHECKPOINTS


class ObjectSigns:
    """`checkpoints/STUDY/NAME`, which is not there while nothing is said.

    `opened` opens the storage at the first use, and is asked again until it does. Raises StorageAway.
    """

    def __init__(self, opened: Callable[[], Storage], study_id: str, name: str) -> None:
        self._storage = cache(opened)
        self._key = f"{CHECKPOINTS}/{study_id}/{name}"

    def read(self) -> str | None:
        content = self._storage().get(self._key)
        return None if content is None else content.decode(errors="replace")

    def write(self, word: str | None) -> None:
        if word is None:
            self._storage().delete([self._key])
        else:
            self._storage().put(self._key, word.encode())
