"""Where the weights of a population's members come from."""

from fastapi import APIRouter

from service.api.dependencies import Parts
from service.api.lineage_schemas import LineageView
from service.api.paths import STUDY, StudyId
from service.api.problems import documented
from service.domain import errors
from service.domain.lineage import lineages
from service.domain.strategy import PbtStrategy

router = APIRouter(tags=["studies"])


@router.get(
    STUDY + "/lineage",
    operation_id="getLineage",
    summary="Get where a population's weights come from",
    response_description="The members, each with the trials that trained its weights.",
    responses=documented(errors.StudyNotFound),
)
def get_lineage(study_id: StudyId, parts: Parts) -> LineageView:
    """The schedule of parameters that each member of a `pbt` study was trained with so far, over its copies.

    A study of another strategy has no members.
    """
    study = parts.store.studies.get(study_id)
    if not isinstance(study.definition.plan.strategy, PbtStrategy):
        return LineageView.of(study_id, [])
    return LineageView.of(study_id, lineages(parts.store.trials.history(study_id).trials))
