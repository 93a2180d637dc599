"""Configurations that a user asks a running study to try."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, status
from pydantic import BaseModel, ConfigDict, Field

from search_spaces import Value
from service.api.bodies import body_of, limited_body, read_as
from service.api.decision_views import TrialRequestView
from service.api.dependencies import ApiParts, Caller, Parts
from service.api.documents import MAX_BYTES, decode
from service.api.paths import STUDY, StudyId
from service.api.problems import BodyTooLarge, InvalidParameters, documented
from service.api.studies import IdempotencyHeader, key_of
from service.domain import errors
from service.domain.configuration_rules import configuration_violations
from service.domain.paging import all_trials
from service.domain.study import Study
from service.domain.trial import TrialRequest

router = APIRouter(tags=["trials"])

_EXAMPLE = {"parameters": {"learning_rate": 3e-5, "batch_size": 32}}


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    parameters: dict[str, Value] = Field(
        description="Each of the space's parameters, but for those that do not exist beside the others' values.",
        examples=[_EXAMPLE["parameters"]],
    )


async def _body(request: Request) -> bytes:
    return await limited_body(request, MAX_BYTES, f"A trial's parameters have at most {MAX_BYTES} bytes: send them alone.")


@router.post(
    STUDY + "/trials",
    operation_id="requestTrial",
    summary="Ask for a trial",
    status_code=status.HTTP_202_ACCEPTED,
    response_description="The request, with its place in the queue.",
    responses=documented(
        errors.MalformedDocument, errors.StudyNotFound, errors.StudyEnded, errors.ConfigurationKnown, errors.TooManyRequests,
        errors.IdempotencyConflict, BodyTooLarge, errors.UnsupportedMediaType, errors.InvalidConfiguration, InvalidParameters,
    ),
    openapi_extra=body_of(_Asked, _EXAMPLE, "What to try, in JSON or YAML."),
)  # fmt: skip
def request_trial(
    request: Request,
    study_id: StudyId,
    parts: Parts,
    by: Caller,
    body: Annotated[bytes, Depends(_body)],
    idempotency_key: IdempotencyHeader = None,
) -> TrialRequestView:
    """Try this configuration before whatever the strategy proposes, in the order asked for, as far as the budget goes.

    It counts as any other trial: for the budget, for the strategy's comparisons, and for its model.
    """
    study = parts.store.studies.get(study_id)
    document = decode(body, request.headers.get("Content-Type"))
    parameters = read_as(_Asked, document, errors.InvalidConfiguration).parameters
    violations = configuration_violations(study.definition, parameters, ("parameters",))
    if violations:
        raise errors.InvalidConfiguration(violations)
    stored = parts.store.trials.request(study_id, parameters, parts.clock.now(), key_of(parts, idempotency_key, body), by)
    return _view(parts, study, stored)


def _view(parts: ApiParts, study: Study, request: TrialRequest) -> TrialRequestView:
    """The request, and how many that nobody has begun are before it."""
    space = study.definition.search_space
    tried = {
        space.key(trial.parameters): trial.number for trial in all_trials(parts.store.trials, study.id) if trial.repeats is None
    }
    waiting = [one.number for one in parts.store.trials.requests(study.id) if space.key(one.parameters) not in tried]
    place = waiting.index(request.number) + 1 if request.number in waiting else 0
    return TrialRequestView.of(study.id, request, place, tried.get(space.key(request.parameters)))
