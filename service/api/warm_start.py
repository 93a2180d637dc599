"""The studies that a new one starts from, found at POST: what they know is stored with it."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from service.domain.definition import StudyDefinition
from service.domain.errors import InvalidDefinition, StudyNotFound, Violation
from service.domain.history import PriorTrial
from service.domain.pointers import pointer
from service.domain.ports import Store
from service.domain.study import Study, WarmStart
from service.domain.warm_start import unlike, warm_start


def resolve(
    store: Store, definition: StudyDefinition, settled: AbstractSet[str] = frozenset()
) -> tuple[Sequence[PriorTrial], WarmStart | None]:
    """What a study with this definition knows from its start; `settled` parameters may have had other values.

    Raises InvalidDefinition for a study that can tell it nothing.
    """
    if not definition.warm_start:
        return (), None
    studies: list[Study] = []
    violations = []
    for index, study_id in enumerate(definition.warm_start):
        try:
            study = store.studies.get(study_id)
        except StudyNotFound:
            detail: str | None = f"there is no study {study_id!r}: name one that there is, or take it out"
        else:
            studies.append(study)
            why = unlike(definition, study.definition)
            detail = why and f"study {study_id!r} {why}: take it out"
        if detail is not None:
            violations.append(Violation(pointer(["warm_start", index]), detail))
    if violations:
        raise InvalidDefinition(violations)
    try:
        known = [(study, store.trials.history(study.id)) for study in studies]
    except StudyNotFound as error:  # deleted this very moment
        raise InvalidDefinition([Violation("/warm_start", "names a study that was deleted just now: take it out")]) from error
    return warm_start(definition, known, settled)
