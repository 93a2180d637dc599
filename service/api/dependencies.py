"""What the routes stand on, handed to them by the composition root."""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Header, Request

from service.api.summaries import Summaries
from service.domain.base_models import BaseModels
from service.domain.forecast import Forecaster
from service.domain.ports import Catalog, CheckpointStore, Clock, DatasetStore, Store
from service.domain.preview import Previewer
from service.domain.study_analysis import StudyAnalyst
from service.settings import Settings

CALLER_PATTERN = r"^[!-~]([ -~]{0,62}[!-~])?$"
"""At most 64 printable ASCII characters, as a header can carry them."""


@dataclass(frozen=True)
class ApiParts:
    """Everything behind the API. `mlflow_url` is the tracking server's loopback address, without a trailing slash."""

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
    mlflow_url: str | None = None
    name: str = ""
    """What this service is called among those that use its store."""

    @cached_property
    def summaries(self) -> Summaries:
        """What views show of studies' trials."""
        return Summaries(self.store.trials)


def parts_of(request: Request) -> ApiParts:
    """The parts of the application that serves this request."""
    parts: ApiParts = request.app.state.parts
    return parts


Parts = Annotated[ApiParts, Depends(parts_of)]


def caller_of(
    request: Request,
    user: Annotated[
        str | None,
        Header(
            alias="Tuneyard-User", pattern=CALLER_PATTERN, examples=["ada"],
            description="Who asks, for the study's events. All who hold the token are trusted alike: nobody checks this.",
        ),
    ] = None,
) -> str:  # fmt: skip
    """Who asks: the name that was sent along, else `token` or `browser`."""
    if user is not None:
        return user
    return "token" if "Authorization" in request.headers else "browser"


Caller = Annotated[str, Depends(caller_of)]
