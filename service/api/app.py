"""The HTTP application: its routes, who may use them, and what its errors look like."""

import time
from html import escape
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
    return HTMLResponse(_page(request.app.openapi()), headers={"Content-Security-Policy": _POLICY})


def _to_the_docs() -> Response:
    return RedirectResponse("/docs")


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark }
code, pre { font-size: 0.9em } pre { overflow-x: auto; padding: 0.8rem; border: 1px solid #8884 }
details { border: 1px solid #8884; border-radius: 6px; margin: 0.4rem 0; padding: 0.4rem 0.8rem }
summary { cursor: pointer } summary b { display: inline-block; min-width: 4.5rem }
table { border-collapse: collapse } td { padding: 0.1rem 1rem 0.1rem 0; vertical-align: top }
"""


def _page(document: dict[str, Any]) -> str:
    sections = []
    for tag in document["tags"]:
        operations = [
            _operation(method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation.get("tags", []) and method != "head"
        ]
        if operations:
            sections.append(f"<h2>{escape(tag['name'])}</h2><p>{escape(tag['description'])}</p>{''.join(operations)}")
    description = "".join(f"<p>{escape(text)}</p>" for text in document["info"]["description"].split("\n\n"))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Tuneyard API</title><style>{_STYLE}</style><h1>Tuneyard {escape(__version__)}</h1>{description}"
        f'<p>For programs: <a href="/openapi.json">openapi.json</a>. The runs: <a href="/mlflow/">MLflow</a>.</p>'
        f"{''.join(sections)}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    head = f"<b>{method.upper()}</b> <code>{escape(path)}</code> {escape(operation['summary'])}"
    parameters = "".join(
        f"<tr><td><code>{escape(one['name'])}</code><td>{escape(one['in'])}<td>{escape(one.get('description', ''))}"
        for one in operation.get("parameters", [])
    )
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer.get('description', ''))}"
        for status, answer in operation["responses"].items()
    )
    about = f"<p>{escape(operation.get('description', ''))}</p><table>{parameters}</table>"
    return f"<details><summary>{head}</summary>{about}<h4>Answers</h4><table>{answers}</table></details>"
