"""The HTTP application: its routes, who may use them, and what its errors look like."""

import time
from typing import Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from service import __version__
from service.api import (
    access,
    auth,
    checkpoints,
    control,
    datasets,
    deletions,
    events,
    final,
    forecast,
    fork,
    gateway,
    health,
    lineage,
    models,
    presets,
    preview,
    problems,
    refine,
    spending,
    studies,
    study_analysis,
    study_pareto,
    trial_requests,
    trials,
)
from service.api.dependencies import ApiParts
from service.api.limits import Limits
from service.api.middleware import Shell
from service.api.openapi import describe
from service.api.pages import HEADERS
from service.api.reading import page_of
from service.api.schemas import IndexView
from service.api.uploads import UploadsUnderWay
from service.domain.access import DEFAULT_PROJECT

_index = APIRouter(tags=["health"])
_pages = APIRouter(include_in_schema=False)


def create_api(parts: ApiParts) -> FastAPI:
    """The application over these parts. Nothing is opened or started before the first request."""
    app = FastAPI(title="Tuneyard", version=__version__, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.state.parts = parts
    app.state.metrics = health.Metrics()
    app.state.readiness = health.Readiness(parts)
    app.state.looks = events.Looks(parts.store)
    app.state.projects = {DEFAULT_PROJECT}
    settings = parts.settings
    app.state.uploads = UploadsUnderWay()
    app.state.limits = Limits(settings.max_failed_logins_per_minute, settings.max_writes_per_minute, time.monotonic)
    app.add_middleware(Shell, metrics=app.state.metrics, parts=parts)
    problems.install(app)
    for router in (auth.router, health.open_router):
        app.include_router(router)
    known = [Depends(auth.authenticate)]
    for router in (
        _index, _pages, studies.router, deletions.router, control.router, preview.router, fork.router, refine.router,
        final.router, study_analysis.router, study_pareto.router, spending.router, forecast.router, lineage.router,
        presets.router, trials.router, trial_requests.router, checkpoints.router, events.router, datasets.router,
        models.router, health.router, gateway.router, access.router,
    ):  # fmt: skip
        app.include_router(router, dependencies=known)
    app.add_api_route("/", _to_the_docs, include_in_schema=False)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to replace it
    return app


@_index.get("/v1", operation_id="getIndex", summary="Where to start", response_description="Links.")
async def get_index() -> IndexView:
    """The service's version and where things are."""
    links = {
        "studies": "/v1/studies", "datasets": "/v1/datasets", "models": "/v1/models", "mlflow": "/mlflow/",
        "docs": "/docs", "openapi": "/openapi.json", "metrics": "/metrics",
    }  # fmt: skip
    return IndexView(service="tuneyard", version=__version__, links=links)


@_pages.get("/openapi.json")
def get_openapi_document(request: Request) -> dict[str, Any]:
    app: FastAPI = request.app
    return app.openapi()


@_pages.get("/docs", response_class=HTMLResponse)
def get_docs(request: Request) -> Response:
    """The OpenAPI document to read. No script of another host runs here: it would run with the visitor's session."""
    return HTMLResponse(page_of(request.app.openapi()), headers=dict(HEADERS))


def _to_the_docs() -> Response:
    return RedirectResponse("/docs")
