"""What the routes stand on, handed to them by the composition root."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from service.domain.base_models import BaseModels
from service.domain.ports import Catalog, CheckpointStore, Clock, DatasetStore, Store
from service.domain.preview import Previewer
from service.domain.study_analysis import StudyAnalyst
from service.settings import Settings


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
    clock: Clock
    settings: Settings
    token: str
    mlflow_url: str | None = None


def parts_of(request: Request) -> ApiParts:
    """The parts of the application that serves this request."""
    parts: ApiParts = request.app.state.parts
    return parts


Parts = Annotated[ApiParts, Depends(parts_of)]
