"""What the routes stand on, handed to them by the composition root."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Header, Request

from service.api.summaries import Summaries
from service.domain import access
from service.domain.base_models import BaseModels
from service.domain.forecast import Forecaster
from service.domain.ports import Catalog, CheckpointStore, Clock, DatasetStore, Store
from service.domain.preview import Previewer
from service.domain.study_analysis import StudyAnalyst
from service.settings import Settings


class Identities(Protocol):
    """An identity provider whose tokens count here."""

    def caller_of(self, token: str) -> access.Caller | None:
        """Whose token it is; None where it is not one of ours to take. Raises NotReady when the provider cannot be asked."""
        ...


@dataclass(frozen=True)
class ApiParts:
    """Everything behind the API. `mlflow_url` is the tracking server's loopback address, without a trailing slash.

    `project` is whose the data sets and new studies are; `service.api.scope` narrows it all to what a caller sees.
    `look_at_storage` raises StorageAway while the object storage does not answer; None where checkpoints are on a disk.
    """

    store: Store
    datasets: DatasetStore
    checkpoints: CheckpointStore
    catalog: Catalog
    models: BaseModels
    analyst: StudyAnalyst
    previewer: Previewer
    forecaster: Forecaster
    clock: Clock
    settings: Settings
    token: str
    summaries: Summaries
    """What views show of studies' trials."""
    mlflow_url: str | None = None
    identities: Identities | None = None
    project: str = access.DEFAULT_PROJECT
    look_at_storage: Callable[[], None] | None = None
    name: str = ""
    """What this service is called among those that use its store."""


def all_parts_of(request: Request) -> ApiParts:
    """The parts of the application, whoever asks."""
    parts: ApiParts = request.app.state.parts
    return parts


def parts_of(request: Request) -> ApiParts:
    """The parts of the application, as far as this request's caller sees them."""
    parts: ApiParts = request.state.parts
    return parts


async def _parts_of(request: Request) -> ApiParts:
    """The same for routes. Not on a thread, for which it would wait with everybody else: it asks nobody."""
    return parts_of(request)


Parts = Annotated[ApiParts, Depends(_parts_of)]


async def caller_of(
    request: Request,
    user: Annotated[
        str | None,
        Header(
            alias="Tuneyard-User", pattern=access.CALLER_PATTERN, examples=["ada"],
            description="Who asks, for the study's events. It counts with the service's own token alone, whose holders are "
            "trusted alike; others are who their token says.",
        ),
    ] = None,
) -> str:  # fmt: skip
    """Who asks: what the token says, or, with the service's own, the name that was sent along."""
    caller: access.Caller = request.state.caller
    if caller.source is not access.Source.OPERATOR:
        return caller.name
    if user is not None:
        return user
    return caller.name if "Authorization" in request.headers else "browser"


Caller = Annotated[str, Depends(caller_of)]
