"""How a study is expected to end; once it has, how well that was foretold."""

from fastapi import APIRouter

from service.api.dependencies import ApiParts, Parts
from service.api.paths import STUDY, StudyId
from service.api.problems import documented
from service.api.spending_schemas import ForecastView
from service.domain import errors
from service.domain.forecast import Course
from service.domain.stored import StoredKind
from service.domain.study import Study, StudyState

router = APIRouter(tags=["studies"])


@router.get(
    STUDY + "/forecast",
    operation_id="getForecast",
    summary="Forecast a study's end",
    response_description="How it is expected to end.",
    responses=documented(
        errors.StudyNotFound, errors.TooFewTrials, errors.NotReady, errors.AnalysisFailed, errors.AnalysisTimedOut
    ),
)
def get_forecast(study_id: StudyId, parts: Parts) -> ForecastView:
    """When a study is expected to end, with how much GPU time, cost and disk, each with a band of 80 %.

    The code that leads the study leads it on from where it stands, many times, with times and values drawn from those measured so
    far. That takes seconds, in a process of its own. Forecasts are kept after the 1st, 2nd, 4th, 8th ... trial that ended; when
    the study is completed each is compared with what came.
    """
    study, past = parts.store.studies.get(study_id), parts.store.forecasts.of(study_id)
    if not study.state.is_end and study.state is not StudyState.STOPPING:
        return ForecastView.of(study, parts.forecaster(study_id), past, None, None)
    if study.state is not StudyState.COMPLETED:  # somebody or something ended it before it would have
        return ForecastView.of(study, None, past, None, None)
    return ForecastView.of(study, None, past, _course(parts, study), _export_bytes(parts, study_id))


def _course(parts: ApiParts, study: Study) -> Course:
    """What came of a study."""
    totals = parts.store.trials.totals([study.id])[study.id]
    seconds = study.active_seconds(study.ended_at or parts.clock.now())
    return Course(seconds, totals.gpu_seconds, totals.trials, totals.reports, kept=0)


def _export_bytes(parts: ApiParts, study_id: str) -> float | None:
    sizes = [one.bytes for one in parts.checkpoints.stored(study_id) if one.kind is StoredKind.EXPORT]
    return float(sum(sizes)) if sizes else None
