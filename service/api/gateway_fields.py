"""What each listed route of MLflow 3.17 may be asked with by who sees one project: a table of fields, and what is closed to them.

The fields are those of `service.proto`, `model_registry.proto` and the handlers (`mlflow/server/handlers.py`). A field that is
not here is not sent on, and a route without an entry cannot be asked.
"""

import re
from collections.abc import Mapping
from enum import Enum

from service.api.gateway_rules import PREFIX


class Field(Enum):
    """What a request's field may hold."""

    EXPERIMENT = "an experiment's id"
    EXPERIMENTS = "experiments' ids"
    LOCATIONS = "experiments' ids, as places of traces"
    EXPERIMENT_NAME = "an experiment's name"
    RUN = "a run's id"
    RUNS = "runs' ids"
    MODEL = "a registered model's name"
    FOLDER = "a path below all artifacts, which begins with an experiment's id"
    CLAUSES = "a filter over everything, which gets one more clause"
    FILE = "a path below a run's or a version's artifacts"
    TEXT = "text"
    TEXTS = "texts"
    NUMBER = "a whole number of 32 bits"
    LONG = "a whole number of 53 bits"
    WORD = "one of MLflow's own words"
    OBJECTS = "flat objects, which name nothing of a project's"


Fields = Mapping[str, Field]
F = Field

IDS = frozenset({
    F.EXPERIMENT, F.EXPERIMENTS, F.LOCATIONS, F.EXPERIMENT_NAME, F.RUN, F.RUNS, F.MODEL, F.FOLDER, F.CLAUSES,
})  # fmt: skip
"""What keeps a request within a project."""
SEVERAL = frozenset({F.EXPERIMENTS, F.RUNS, F.TEXTS})

_PAGED: Fields = {"max_results": F.NUMBER, "order_by": F.TEXTS, "page_token": F.TEXT}
_SEARCH: Fields = {"filter": F.CLAUSES, **_PAGED}
_EXPERIMENTS: Fields = {**_SEARCH, "view_type": F.WORD}
_LATEST: Fields = {"name": F.MODEL, "stages": F.TEXTS}
_VERSION: Fields = {"name": F.MODEL, "version": F.TEXT}
_DATASETS: Fields = {"experiment_ids": F.EXPERIMENTS, "filter_string": F.TEXT, **_PAGED}
_METRIC: Fields = {"metric_key": F.TEXT, "max_results": F.NUMBER}
EXPERIMENT: Fields = {"experiment_id": F.EXPERIMENT}
RUN: Fields = {"run_id": F.RUN}
RUNS: Fields = {"experiment_ids": F.EXPERIMENTS, "filter": F.TEXT, "run_view_type": F.WORD, **_PAGED}
FILES: Fields = {"run_id": F.RUN, "path": F.FILE, "page_token": F.TEXT}
CURVES: Fields = {"run_ids": F.RUNS, "start_step": F.NUMBER, "end_step": F.NUMBER, **_METRIC}

_READ: Mapping[str, Fields] = {
    "2/experiments/search": _EXPERIMENTS,
    "2/experiments/get": EXPERIMENT,
    "2/experiments/get-by-name": {"experiment_name": F.EXPERIMENT_NAME},
    "2/runs/get": RUN,
    "2/metrics/get-history": {"run_id": F.RUN, "page_token": F.TEXT, **_METRIC},
    "2/metrics/get-history-bulk": {"run_id": F.RUNS, **_METRIC},
    "2/metrics/get-history-bulk-interval": CURVES,
    "2/artifacts/list": FILES,
    "2/registered-models/get": {"name": F.MODEL},
    "2/registered-models/search": _SEARCH,
    "2/registered-models/alias": {"name": F.MODEL, "alias": F.TEXT},
    "2/registered-models/get-latest-versions": _LATEST,
    "2/model-versions/get": _VERSION,
    "2/model-versions/search": _SEARCH,
    "2/model-versions/get-download-uri": _VERSION,
    "3/server-info": {},
    "3/ui-telemetry": {},
    "3/datasets/search": _DATASETS,
}
_POSTED: Mapping[str, Fields] = {
    "2/experiments/search": _EXPERIMENTS,
    "2/experiments/search-datasets": {"experiment_ids": F.EXPERIMENTS},
    "2/runs/search": RUNS,
    "2/registered-models/get-latest-versions": _LATEST,
    "2/logged-models/search": {
        "experiment_ids": F.EXPERIMENTS, "filter": F.TEXT, "datasets": F.OBJECTS, **_PAGED, "order_by": F.OBJECTS,
    },
    "3/traces/search": {"locations": F.LOCATIONS, "filter": F.TEXT, **_PAGED},
    "3/traces/metrics": {
        "experiment_ids": F.EXPERIMENTS, "view_type": F.WORD, "metric_name": F.TEXT, "aggregations": F.OBJECTS,
        "dimensions": F.TEXTS, "filters": F.TEXTS, "time_interval_seconds": F.LONG, "start_time_ms": F.LONG,
        "end_time_ms": F.LONG, "max_results": F.NUMBER, "page_token": F.TEXT,
    },
    "3/datasets/search": _DATASETS,
}  # fmt: skip
_ELSEWHERE: Mapping[str, Fields] = {
    "/": {},
    "/health": {},
    "/version": {},
    "/get-artifact": {"run_id": F.RUN, "path": F.FILE},
    "/model-versions/get-artifact": {**_VERSION, "path": F.FILE},
}
CLOSED: Mapping[str, str] = {
    "2/logged-models/": "a logged model's id does not tell whose it is; they are searched for by experiment",
    "2/traces": "a trace's id does not tell whose it is; the UI searches for them with version 3.0",
    "2/get-trace-artifact": "a trace's id does not tell whose it is",
    "3/get-trace-artifact": "a trace's id does not tell whose it is",
    "3/traces/": "a trace's id does not tell whose it is; they are searched for by experiment",
    "3/datasets/": "a data set's id does not tell whose it is; they are searched for by experiment",
}
"""Listed routes, by how they begin, that have no entry above, and why. The mirror writes none of what they show."""

LOOKED_THROUGH: Mapping[str, str] = {
    "2/experiments/search": "experiments",
    "2/experiments/get-by-name": "experiment",
    "2/registered-models/search": "registered_models",
    "2/model-versions/search": "model_versions",
}
"""Routes whose answers are looked through once more, and where in them the things stand."""

_API = re.compile(PREFIX + r"/(?:ajax-)?api/([23])\.0/mlflow/(.+)")
_ARTIFACTS = re.compile(PREFIX + r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts(?:/(?P<below>.+))?")
_STATIC = f"{PREFIX}/static-files/"


def name_of(path: str) -> str:
    """A listed path as the tables name it: an API's by its version and what follows, another's without the prefix."""
    match = _API.fullmatch(path)
    return path.removeprefix(PREFIX) if match is None else f"{match[1]}/{match[2]}"


def fields_of(method: str, path: str) -> Fields | None:
    """What a listed route may be asked with; None where it cannot be asked."""
    if path.startswith(_STATIC):
        return {}
    artifacts = _ARTIFACTS.fullmatch(path)
    if artifacts is not None:
        return {} if artifacts["below"] else {"path": F.FOLDER}
    table = _POSTED if method == "POST" else {**_READ, **_ELSEWHERE}
    return table.get(name_of(path))


def folder_of(path: str) -> str | None:
    """The path below all artifacts, percent-encoded, that a listed path itself names."""
    artifacts = _ARTIFACTS.fullmatch(path)
    return None if artifacts is None else artifacts["below"]
