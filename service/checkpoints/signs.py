"""What a study's driver says to workers that share no disk with it: one small object beside the study's checkpoints."""

from service.checkpoints.storage import Storage
from service.checkpoints.trial_objects import CHECKPOINTS


class ObjectSigns:
    """`checkpoints/STUDY/.interrupt`, which is not there while nothing is said."""

    def __init__(self, storage: Storage, study_id: str) -> None:
        self._storage = storage
        self._key = f"{CHECKPOINTS}/{study_id}/.interrupt"

    def read(self) -> str | None:
        content = self._storage.get(self._key)
        return None if content is None else content.decode(errors="replace")

    def write(self, word: str | None) -> None:
        if word is None:
            self._storage.delete([self._key])
        else:
            self._storage.put(self._key, word.encode())
