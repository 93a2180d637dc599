"""What a study has learned: which parameters matter, how the best was found, and pictures of it."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from service.api.analysis_schemas import StudyAnalysisView
from service.api.dependencies import Parts
from service.api.paths import STUDY, StudyId
from service.api.problems import InvalidParameters, documented
from service.domain import errors
from service.domain.study_analysis import Figure

router = APIRouter(tags=["studies"])

_REFUSALS = (errors.StudyNotFound, errors.NotReady, errors.AnalysisFailed, errors.AnalysisTimedOut)
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The picture.", "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}
}


@router.get(
    STUDY + "/analysis",
    operation_id="getStudyAnalysis",
    summary="Get what a study has learned",
    response_description="The analysis.",
    responses=documented(*_REFUSALS),
)
def get_study_analysis(study_id: StudyId, parts: Parts) -> StudyAnalysisView:
    """How much each parameter matters, how the best was found, and trials to draw. It may be asked for while the study runs.

    It takes a second or two, in a process of its own, and is kept until the study goes on. All lists are bounded: they hold the
    best trials, and an even spread of the others.
    """
    return StudyAnalysisView.of(parts.analyst.analysis(study_id))


@router.get(
    STUDY + "/analysis/{figure}.png",
    operation_id="getStudyFigure",
    summary="Get a picture of what a study has learned",
    response_class=Response,
    responses={**_PICTURE, **documented(errors.NotFound, *_REFUSALS, InvalidParameters)},
)
def get_study_figure(
    study_id: StudyId,
    figure: Annotated[Figure, Path(description="What to see of the analysis.", examples=["importance"])],
    parts: Parts,
) -> Response:
    """One part of the analysis as a PNG, drawn when it is first asked for. 404 while there is nothing to draw yet."""
    return Response(
        parts.analyst.figure(study_id, figure), media_type="image/png", headers={"Cache-Control": "private, no-cache"}
    )
