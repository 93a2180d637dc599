"""Previews: what a study would do, before anything is stored or trained."""

from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from search_spaces import CategoricalParameter, ConstantParameter
from service.api.bodies import whole_body
from service.api.dependencies import Parts
from service.api.documents import decode
from service.api.problems import BodyTooLarge, documented
from service.api.step_schemas import PreviewView, ReportTimeView
from service.api.warm_start import resolve
from service.domain import errors
from service.domain.definition import StudyDefinition, parse_definition
from service.domain.grouped import said_of
from service.domain.paging import all_studies
from service.domain.ports import Store, StudyQuery, TrialQuery

router = APIRouter(tags=["studies"])

_MOST_STUDIES = 200
_MOST_TRIALS = 1000


@router.post(
    "/v1/studies:preview",
    operation_id="previewStudy",
    summary="Preview a study",
    response_description="What the study would do.",
    responses=documented(
        errors.MalformedDocument, BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidDefinition, errors.NotReady,
        errors.AnalysisFailed, errors.AnalysisTimedOut,
    ),
)  # fmt: skip
def preview_study(request: Request, parts: Parts, body: Annotated[bytes, Depends(whole_body)]) -> PreviewView:
    """Check a definition as a POST to `/v1/studies` does, and foresee the study; nothing is stored.

    The same code that would lead the study says what it starts with, and leads it through a world where trials differ in how
    good they are and none fails. It takes seconds, in a process of its own.
    """
    document = decode(body, request.headers.get("Content-Type"))
    definition = parse_definition(document)
    with said_of(document):
        parts.catalog.check(definition)
        prior, warm_start = resolve(parts.store, definition)
    report_time = report_time_of(parts.store, definition)
    return PreviewView.of(parts.previewer(definition, prior, report_time.seconds), report_time, warm_start)


def report_time_of(store: Store, definition: StudyDefinition) -> ReportTimeView:
    """The median time of a report of earlier trials like this study's: with the same data where there are any."""
    found = list(islice(_measured(store, definition), _MOST_TRIALS))
    alike = [seconds for seconds, is_same_data in found if is_same_data]
    times = alike or [seconds for seconds, _ in found]
    model = "" if definition.trainer.model is None else " and this model"
    kind = f"trainer `{definition.trainer.kind}`{model} on the same kind of device"
    if not times:
        sentence = f"No trial with {kind} has reported yet: how long one takes is known once one has."
        return ReportTimeView(seconds=None, trials=0, sentence=sentence)
    data = "" if definition.trainer.data is None else ", on the same data" if alike else ", on other data"
    return ReportTimeView(
        seconds=median(times), trials=len(times), sentence=f"The median of {len(times)} earlier trials with {kind}{data}."
    )


def _measured(store: Store, definition: StudyDefinition) -> Iterator[tuple[float, bool]]:
    """Seconds of a report of each trial like these, those of the latest studies first, and whether it had the same data."""
    models = _models(definition)
    for study in islice(all_studies(store.studies, StudyQuery(limit=100)), _MOST_STUDIES):
        if not _is_alike(study.definition, definition):
            continue
        try:
            trials = store.trials.find(study.id, TrialQuery(limit=_MOST_TRIALS)).items
        except errors.StudyNotFound:  # deleted this very moment
            continue
        is_same_data = study.definition.trainer.data == definition.trainer.data
        for trial in trials:
            trained = trial.own_reports
            if trained and trial.seconds and trial.parameters.get("model", study.definition.trainer.model) in models:
                yield trial.seconds / trained, is_same_data


def _is_alike(one: StudyDefinition, other: StudyDefinition) -> bool:
    """Whether their trials report alike, on the same kind of device."""
    same_kind = (one.trainer.kind, one.trainer.report_every) == (other.trainer.kind, other.trainer.report_every)
    return same_kind and bool(one.resources.gpus) == bool(other.resources.gpus)


def _models(definition: StudyDefinition) -> list[object]:
    match definition.space.get("model"):
        case CategoricalParameter(choices=choices):
            return list(choices)
        case ConstantParameter(value=value):
            return [value]
        case _:
            return [definition.trainer.model]
