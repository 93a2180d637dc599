"""What passes the gateway to MLflow 3.17: pure rules about methods, paths and GraphQL documents.

The lists were made from the server's routes (`mlflow/server/handlers.py`, `mlflow/server/__init__.py`) and the requests in the
UI's JavaScript. What is not listed does not pass: a newer MLflow can only bring refusals, never a way to write.
"""

import json
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from graphql import DocumentNode, FieldNode, GraphQLError, OperationDefinitionNode, OperationType, parse

from service.domain.errors import Forbidden, MalformedDocument

PREFIX = "/mlflow"
_MAX_PATH = 4096
_MAX_TOKENS = 2000
_SAFE = "/-._~!$&'()*+,=:@"
"""What a path may hold unquoted (RFC 3986), the semicolon left out: some servers cut a path there."""

_GET_2 = (
    "experiments/search", "experiments/get", "experiments/get-by-name", "runs/get", "metrics/get-history",
    "metrics/get-history-bulk", "metrics/get-history-bulk-interval", "artifacts/list", "registered-models/get",
    "registered-models/search", "registered-models/alias", "registered-models/get-latest-versions", "model-versions/get",
    "model-versions/search", "model-versions/get-download-uri", "logged-models/{id}", "logged-models/{id}/artifacts/directories",
    "logged-models/{id}/artifacts/files", "traces", "traces/{id}/info", "get-trace-artifact",
)  # fmt: skip
_POST_2 = (
    "experiments/search", "experiments/search-datasets", "runs/search", "registered-models/get-latest-versions",
    "logged-models/search",
)  # fmt: skip
_GET_3 = (
    "server-info", "ui-telemetry", "traces/get", "traces/batchGet", "traces/{id}", "get-trace-artifact", "datasets/search",
    "datasets/{id}", "datasets/{id}/experiment-ids", "datasets/{id}/records",
)  # fmt: skip
_POST_3 = ("traces/search", "traces/batchGetInfos", "traces/metrics", "datasets/search")
_ARTIFACTS = r"/(?:ajax-)?api/2\.0/mlflow-artifacts/artifacts(?:/.+)?"
_FILES = re.compile(
    PREFIX
    + r"(?:/get-artifact|/model-versions/get-artifact|"
    + _ARTIFACTS
    + r"|/ajax-api/[23]\.0/mlflow/get-trace-artifact|/(?:ajax-)?api/2\.0/mlflow/logged-models/[^/]+/artifacts/files)"
)
_STATIC = re.compile(PREFIX + r"/static-files/.+")
_PAGES = re.compile(PREFIX + r"/(?:static-files/.+)?")


class Kind(Enum):
    """What a listed path answers with: the UI itself, an API's JSON, or bytes that a run logged."""

    PAGE = "page"
    API = "api"
    ARTIFACT = "artifact"


def canonical_path(raw: bytes) -> str | None:
    """The one way to write this path, percent-encoded ASCII; None for a path that has a second reading.

    Servers differ in whether they decode once or twice, fold slashes and dots, cut at semicolons or strip trailing dots: a path
    that some of them would read as another one does not pass at all.
    """
    if len(raw) > _MAX_PATH or re.search(rb"%(?:2f|5c|25|3b|00)", raw, re.IGNORECASE):
        return None
    try:
        path = unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not path.startswith(PREFIX + "/") or re.search(r"[\x00-\x1f\x7f-\x9f\\;%?#]|//", path):
        return None
    if any(segment != segment.strip() or segment.endswith(".") for segment in path.split("/")):
        return None
    return quote(path, safe=_SAFE)


def is_listed(method: str, path: str) -> bool:
    """Whether this method may pass to this canonical path."""
    match method:
        case "GET" | "HEAD":
            return bool(_GET.fullmatch(path) or _STATIC.fullmatch(path) or _FILES.fullmatch(path))
        case "POST":
            return bool(_POST.fullmatch(path))
        case _:
            return False


def kind_of(path: str) -> Kind:
    """What a listed path answers with."""
    if _FILES.fullmatch(path):
        return Kind.ARTIFACT
    return Kind.PAGE if _PAGES.fullmatch(path) else Kind.API


def _pattern(rest: str) -> str:
    return re.escape(rest).replace(r"\{id\}", "[A-Za-z0-9_.-]+")


def _listed(exact: tuple[str, ...], second: tuple[str, ...], third: tuple[str, ...]) -> re.Pattern[str]:
    apis = [r"/(?:ajax-)?api/2\.0/mlflow/" + _pattern(rest) for rest in second]
    apis += [r"/(?:ajax-)?api/3\.0/mlflow/" + _pattern(rest) for rest in third]
    return re.compile(f"{PREFIX}(?:{'|'.join([*map(re.escape, exact), *apis])})")


_GET = _listed(("/", "/health", "/version"), _GET_2, _GET_3)
_POST = _listed(("/graphql",), _POST_2, _POST_3)

_QUERIES = frozenset({
    "__typename", "mlflowGetExperiment", "mlflowGetMetricHistoryBulkInterval", "mlflowGetRun", "mlflowListArtifacts",
    "mlflowSearchModelVersions", "mlflowSearchRuns",
})  # fmt: skip
"""Fields of MLflow's query type that read; its mutation type has the same names, so the operation's type counts first."""


def read_only_query(body: bytes) -> bytes:
    """The body of a GraphQL request, written anew from what was understood of it: one query of known fields.

    Raises Forbidden for anything else that parses, MalformedDocument for what does not.
    """
    asked, _ = understood_query(body)
    kept = {key: asked[key] for key in ("query", "variables", "operationName") if key in asked}
    return json.dumps(kept).encode()


def understood_query(body: bytes) -> tuple[Mapping[str, Any], DocumentNode]:
    """A GraphQL request and its document. Raises as `read_only_query` does."""
    try:
        asked: Any = json.loads(body)
        query = asked["query"] if isinstance(asked, dict) else None
        document = parse(query, max_tokens=_MAX_TOKENS) if isinstance(query, str) else None
    except (ValueError, KeyError, GraphQLError, RecursionError) as error:
        raise MalformedDocument("This is no GraphQL request that can be read: send JSON with `query` and `variables`.") from error
    if document is None:
        raise MalformedDocument("Send one GraphQL request as a JSON object with `query` and `variables`.")
    operations = [one for one in document.definitions if isinstance(one, OperationDefinitionNode)]
    if len(operations) != 1 or operations[0].operation is not OperationType.QUERY:
        raise Forbidden("MLflow can only be read here: send exactly one GraphQL query, and no mutation.")
    for selection in operations[0].selection_set.selections:
        # A fragment at the root would have to be followed to know what it asks for; the UI uses none there.
        if not isinstance(selection, FieldNode) or selection.name.value not in _QUERIES:
            raise Forbidden("This GraphQL query asks for something that is not known to only read.")
    return asked, document
