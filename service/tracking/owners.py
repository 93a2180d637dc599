"""Whose what is in the tracker, said where a version before projects did not say it: the gateway searches by that tag."""

import logging

from service.domain.errors import StudyNotFound
from service.domain.ports import Store
from service.tracking.tracker import Tracker, TrackerForgot, TrackerRefused

_LOG = logging.getLogger("tuneyard.mirror")


def tag_owners(store: Store, tracker: Tracker) -> None:
    """Tag what has no tag yet. Of a study that the store does not know nobody sees anything. Raises TrackerAway."""
    try:
        for study_id, experiment_id in tracker.unowned().items():
            try:
                tracker.own(study_id, experiment_id, store.studies.project_of(study_id))
            except StudyNotFound:
                continue
            except (TrackerForgot, TrackerRefused) as error:
                _LOG.error("study %s cannot be shown to its project's members: %s", study_id, error.detail)
    except TrackerRefused as error:
        _LOG.error("what MLflow has cannot be looked through for whose it is: %s", error.detail)
