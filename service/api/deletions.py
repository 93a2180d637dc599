"""Deleting a study, and what became of those that were deleted."""

from dataclasses import replace

from fastapi import APIRouter

from service.api.deletion_views import DeletionsView, DeletionView
from service.api.dependencies import Caller, Parts
from service.api.paths import STUDY, StudyId
from service.api.problems import InvalidParameters, documented
from service.domain import errors
from service.domain.stored import NOTHING_FREED
from service.folders import remove

router = APIRouter(tags=["studies"])


@router.delete(
    STUDY,
    operation_id="deleteStudy",
    summary="Delete a study",
    response_description="What was removed.",
    responses=documented(errors.StudyNotFound, errors.StudyStillActive, InvalidParameters),
)
def delete_study(study_id: StudyId, parts: Parts, by: Caller) -> DeletionView:
    """Forget a study that has ended, with its trials, events and checkpoints, and say what that was.

    Its experiment, runs with their files and registered model in MLflow go too: within a minute, or as soon as MLflow can be
    reached. `GET /v1/deletions` tells when that was. A second request answers 404.
    """
    deletion = parts.store.studies.delete(study_id, by)
    try:
        checkpoints = parts.checkpoints.delete(study_id)
    except errors.StorageAway:
        checkpoints = NOTHING_FREED  # the study is deleted, and who tidies MLflow deletes these too once it answers
    prepared = remove(parts.settings.layout.cache / "prepared" / study_id)
    parts.store.deletions.freed(study_id, checkpoints=checkpoints, prepared=prepared)
    return DeletionView.of(replace(deletion, checkpoints=checkpoints, prepared=prepared))


@router.get(
    "/v1/deletions",
    operation_id="listDeletions",
    summary="List deleted studies",
    response_description="What was removed with each.",
)
def list_deletions(parts: Parts) -> DeletionsView:
    """The last 100 studies that were deleted, the newest first, with what was removed of each: in MLflow too, once it is."""
    return DeletionsView(items=[DeletionView.of(one) for one in parts.store.deletions.recent(100)])
