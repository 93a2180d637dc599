"""Why studies and trials wait, looked up when somebody asks."""

from collections.abc import Mapping, Sequence

from service.api.dependencies import ApiParts
from service.api.waiting_views import WaitingView
from service.domain.history import History
from service.domain.share import Share
from service.domain.study import Study, StudyState
from service.domain.trial import Trial, TrialState
from service.domain.waiting import Waiting, study_waiting, trial_waiting


def why_studies_wait(parts: ApiParts, studies: Sequence[Study]) -> Mapping[str, WaitingView | None]:
    """Of each study, why it waits; None where it does not."""
    active = [study.id for study in studies if study.state in {StudyState.QUEUED, StudyState.RUNNING}]
    shares = parts.store.shares.of(active) if active else {}
    return {study.id: WaitingView.of(_of_study(study, shares.get(study.id))) for study in studies}


def why_trial_waits(parts: ApiParts, study: Study, trial: Trial) -> WaitingView | None:
    """Why a trial waits; None for one that runs or has ended."""
    if trial.state not in {TrialState.QUEUED, TrialState.PAUSED}:
        return None
    share = parts.store.shares.get(study.id)
    of_study = _of_study(study, share)
    history = parts.store.trials.history(study.id) if trial.state is TrialState.PAUSED else History()
    attempts = parts.store.trials.attempts(study.id, trial.number)
    since = (attempts and attempts[-1].ended_at) or trial.created_at
    now = parts.clock.now()
    return WaitingView.of(trial_waiting(study, of_study, history, trial, since, now))


def _of_study(study: Study, share: Share | None) -> Waiting | None:
    return study_waiting(study, share.waiting if share else None, is_known=share is not None)
