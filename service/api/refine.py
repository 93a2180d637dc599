"""A narrower space, from what a study has found."""

from collections.abc import Mapping

from fastapi import APIRouter

from search_spaces import Parameter
from service.api.dependencies import ApiParts, Parts
from service.api.paths import STUDY, StudyId
from service.api.problems import documented
from service.api.step_schemas import RefinementView
from service.domain import errors
from service.domain.definition import parse_definition
from service.domain.refinement import Refinement, refined
from service.domain.study import Study

router = APIRouter(tags=["studies"])

REFUSALS = (errors.StudyNotFound, errors.TooFewTrials, errors.NotReady, errors.AnalysisFailed, errors.AnalysisTimedOut)


@router.get(
    STUDY + "/refine",
    operation_id="getRefinement",
    summary="Get a narrower space",
    response_description="The space, and why each parameter changes or does not.",
    responses=documented(*REFUSALS),
)
def get_refinement(study_id: StudyId, parts: Parts) -> RefinementView:
    """A space drawn around the best quarter of the trials so far, at least five of at least ten.

    Ranges shrink to where these lie, with a margin, and reach further where half of them lie at an edge and the trainer takes
    it. Choices go that were tried often and never well. Parameters that hardly matter are fixed as in the best trial. It
    changes nothing by itself: `POST /v1/studies/{study_id}:fork` with `refine` starts a study with it.
    """
    return RefinementView.of(study_id, refinement_of(parts, parts.store.studies.get(study_id)))


def refinement_of(parts: ApiParts, study: Study) -> Refinement:
    """The refinement of a study as it is now. Raises TooFewTrials, and what the analysis raises."""
    importance = parts.analyst.analysis(study.id).importance
    document = study.definition.model_dump(mode="json")

    def takes(space: Mapping[str, Parameter]) -> bool:
        try:
            wider = parse_definition(
                {**document, "initial": [], "space": {name: one.model_dump(mode="json") for name, one in space.items()}}
            )
            parts.catalog.of(study.project).check(wider)
        except errors.InvalidDefinition:
            return False
        return True

    return refined(study, parts.store.trials.history(study.id), importance, takes)
