"""The places that a study is kept from, worked out when somebody asks."""

from collections.abc import Sequence

from service.api.dependencies import ApiParts
from service.domain.quarantine import FAILURES_OF_A_PLACE, quarantined
from service.domain.study import Study
from service.domain.trial import AttemptOutcome


def quarantined_places(parts: ApiParts, study: Study) -> Sequence[str]:
    """A sentence for each node and GPU; none for a study that has ended."""
    if study.state.is_end:
        return ()
    attempts = parts.store.trials.all_attempts(study.id)
    wrong = [one for tried in attempts.values() for one in tried if one.outcome in {AttemptOutcome.FAILED, AttemptOutcome.LOST}]
    if len(wrong) < FAILURES_OF_A_PLACE:
        return ()
    history = parts.store.trials.history(study.id)
    known = {number: tried for number, tried in attempts.items() if number in history.trials}
    return [one.sentence for one in quarantined(study, history, known, parts.clock.now())]
