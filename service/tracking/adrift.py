"""Where the tracker and the store differ without the mirror knowing: after a return to a backup of one of them, or a crash."""

from collections.abc import Mapping, Sequence

from service.domain.errors import NotFound
from service.domain.ports import MirroredTrial, Store
from service.domain.repairs import Repaired
from service.tracking.tracker import STUDY

Adrift = Mapping[str, tuple[Repaired, Sequence[MirroredTrial]]]
"""For each study what is wrong with it, and of what it has to be mirrored again."""


def adrift(store: Store, running: Sequence[tuple[str, int]]) -> Adrift:
    """What the mirror believes to be done and is not; `running` are the runs that the tracker says go on."""
    found: dict[str, tuple[Repaired, list[MirroredTrial]]] = {}
    for entry in store.mirror.ahead():
        found.setdefault(entry.study_id, (Repaired.MIRROR, []))[1].append(entry)
    for study_id, numbers in _by_study(running).items():
        known = store.mirror.mirrored(study_id)
        again = found.get(study_id, (None, []))[1]
        left = [known[number] for number in numbers if number in known and known[number] not in again]
        for entry in left:
            if _has_ended(store, entry):
                found.setdefault(study_id, (Repaired.RUNS, []))[1].append(entry)
    return found


def said_of(what: Repaired, entries: Sequence[MirroredTrial]) -> str:
    """The sentence that an event says it with."""
    whose = ", ".join("the study" if entry.number == STUDY else f"trial {entry.number}" for entry in entries[:10])
    whose += f" and {len(entries) - 10} more" if len(entries) > 10 else ""  # noqa: PLR2004 - a sentence one can read
    if what is Repaired.RUNS:
        return f"MLflow had runs as running whose trials have ended: {whose}. They are written again."
    return f"MLflow was thought to have more than there is: of {whose}. They are written again."


def _by_study(running: Sequence[tuple[str, int]]) -> Mapping[str, Sequence[int]]:
    found: dict[str, list[int]] = {}
    for study_id, number in running:
        found.setdefault(study_id, []).append(number)
    return found


def _has_ended(store: Store, entry: MirroredTrial) -> bool:
    """Whether it has ended, and the mirror thinks that it has said so."""
    try:
        if entry.number == STUDY:
            study = store.studies.get(entry.study_id)
            return study.state.is_end and entry.version >= study.version
        trial = store.trials.get(entry.study_id, entry.number)
    except NotFound:
        return False
    return trial.state.is_end and entry.version >= trial.version
