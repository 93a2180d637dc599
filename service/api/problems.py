"""Every error as `application/problem+json` (RFC 9457) with a stable `type`, and how the OpenAPI document lists them."""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match

from service.api import pages
from service.api.schemas import Problem, ViolationView
from service.domain import errors

MEDIA_TYPE = "application/problem+json"
_LOG = logging.getLogger("tuneyard.api")


class InvalidParameters(errors.TuneyardError):
    """A path, query or header parameter that is not what its description says."""

    def __init__(self, violations: Sequence[ViolationView]) -> None:
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(f"{violations[0].detail}{more}")
        self.violations = tuple(violations)


class BodyTooLarge(errors.TuneyardError):
    """A request body with more bytes than this route reads."""


class PreconditionFailed(errors.TuneyardError):
    """What is there is not what `If-Match` names."""


class PreconditionRequired(errors.TuneyardError):
    """A change that does not say with `If-Match` what it was made for."""


class RangeNotSatisfiable(errors.TuneyardError):
    """A range that starts behind the end of the file."""

    def __init__(self, size: int) -> None:
        super().__init__(f"The file has {size} bytes: ask for a range that starts before its end.")
        self.size = size


@dataclass(frozen=True)
class Kind:
    """What one class of errors looks like to clients. `example` is a `detail`."""

    status: int
    slug: str
    title: str
    example: str

    @property
    def type(self) -> str:
        """The problem's `type`."""
        return f"urn:tuneyard:problem:{self.slug}"


_NO_SUCH_PATH = Kind(
    404, "no-such-path", "There is nothing at this path", "There is nothing at '/v2': `/docs` lists what there is."
)
_METHOD = Kind(405, "method-not-allowed", "This path has no such method", "'/v1/studies' answers GET and POST, not PATCH.")
_INTERNAL = Kind(
    500, "internal-error", "The service made a mistake",
    "Something went wrong inside the service; its log tells more under 4f2a9c0d1e7b. Try again, and report it if it stays.",
)  # fmt: skip

KINDS: Mapping[type[errors.TuneyardError], Kind] = {
    errors.MalformedDocument: Kind(
        400, "malformed-document", "The body is neither JSON nor YAML",
        "Line 3, column 5: expected ':'. Mend it and send it again.",
    ),
    errors.NotAuthenticated: Kind(
        401, "not-authenticated", "Who is asking?",
        "Send the service's token as `Authorization: Bearer TOKEN`, or open a login link (`tuneyard login`).",
    ),
    errors.Forbidden: Kind(403, "forbidden", "This is not allowed", "Send the request from a page of this service."),
    errors.InvalidLoginCode: Kind(
        403, "invalid-login-code", "The login link does not work any more", "Make a new one with `tuneyard login`."
    ),
    errors.NotFound: Kind(404, "not-found", "There is no such thing", "There is no such thing."),
    errors.StudyNotFound: Kind(
        404, "study-not-found", "There is no such study",
        "There is no study 'intents-abc124': `GET /v1/studies` lists those there are.",
    ),
    errors.TrialNotFound: Kind(
        404, "trial-not-found", "There is no such trial",
        "Study 'intents-abc123' has no trial 70: `GET /v1/studies/intents-abc123/trials` lists its trials.",
    ),
    errors.NoBestTrial: Kind(
        404, "no-best-trial", "No trial has reported yet", "No trial of study 'intents-abc123' has reported yet: ask again later."
    ),
    errors.NoFinal: Kind(
        404, "no-final", "The study has no final",
        "Study 'intents-abc123' has no final: one with `final: {top: 3, seeds: 3}` trains its best configurations again.",
    ),
    errors.CheckpointNotFound: Kind(
        404, "checkpoint-not-found", "The trial has no checkpoint",
        "Trial 7 of study 'intents-abc123' has no checkpoint: only the best trials' are kept.",
    ),
    errors.FileNotInCheckpoint: Kind(
        404, "file-not-in-checkpoint", "The checkpoint has no such file",
        "The checkpoint has no file 'pytorch_model.bin': its manifest lists those it has.",
    ),
    errors.ProjectNotFound: Kind(
        404, "project-not-found", "There is no such project", "There is no project 'vision': `GET /v1/projects` lists all."
    ),
    errors.TokenNotFound: Kind(
        404, "token-not-found", "There is no such token", "There is no token 'k3v9x2': `GET /v1/tokens` lists those there are."
    ),
    errors.DatasetNotFound: Kind(
        404, "dataset-not-found", "There is no such data set", "`GET /v1/datasets` lists the data sets there are."
    ),
    errors.Conflict: Kind(409, "conflict", "Not in this state", "Read it again and decide anew."),
    errors.IllegalMove: Kind(
        409, "illegal-move", "Not in this state", "Study 'intents-abc123' is completed: there is nothing to stop."
    ),
    errors.StaleWrite: Kind(
        409, "stale-write", "Somebody else was faster", "The study changed in the meantime: read it again and decide anew."
    ),
    errors.IdempotencyConflict: Kind(
        409, "idempotency-conflict", "The key was used for something else",
        "This Idempotency-Key came with another body before: use a new key for a new study.",
    ),
    errors.NoSingleBest: Kind(
        409, "no-single-best", "Several objectives have no best trial",
        "Study 'intents-abc123' has several objectives, so no trial is the best: `GET /v1/studies/intents-abc123/pareto` lists "
        "those that no other beats, and `GET /v1/studies/intents-abc123/trials/NUMBER/checkpoint` has the export of each.",
    ),
    errors.StudyStillActive: Kind(
        409, "study-still-active", "The study has not ended",
        "Study 'intents-abc123' is running: cancel it and delete it once it has ended.",
    ),
    errors.TooFewTrials: Kind(
        409, "too-few-trials", "There are too few trials yet",
        "Refining needs 10 trials that can be compared, and study 'intents-abc123' has 4: ask again when there are more.",
    ),
    errors.StudyEnded: Kind(
        409, "study-ended", "The study has ended",
        "Study 'intents-abc123' is completed: it tries nothing more. Start another one with `initial`.",
    ),
    errors.ConfigurationKnown: Kind(
        409, "configuration-known", "This was tried or asked for",
        "Trial 7 has these parameters: look at it, or ask for other ones.",
    ),
    errors.TooManyRequests: Kind(
        409, "too-many-requests", "The study was asked for very many trials",
        "Study 'intents-abc123' was asked for 1000 configurations: start another one with `initial`.",
    ),
    errors.ProjectExists: Kind(
        409, "project-exists", "The project is there already",
        "There is a project 'vision' already: change its quotas, or choose another name.",
    ),
    errors.QuotaSpent: Kind(
        409, "quota-spent", "The project has used up what it may",
        "Project 'vision' has used 10.02 of its 10 GPU-hours (max_gpu_hours).",
    ),
    errors.DatasetInUse: Kind(
        409, "dataset-in-use", "A study needs the data set",
        "dataset://banking77 is used by 'intents-abc123': cancel that, or wait for its end.",
    ),
    errors.LeaseLost: Kind(409, "lease-lost", "Another process holds this study", "Another process drives the study now."),
    errors.LeadershipLost: Kind(409, "leadership-lost", "Another controller leads", "Another controller leads now."),
    PreconditionFailed: Kind(
        412, "precondition-failed", "It is another one now", "The file changed: read the manifest again."
    ),
    PreconditionRequired: Kind(
        428, "precondition-required", "Which one is meant?",
        "Read the study, and send its `ETag` back as `If-Match`, so that no other change is undone.",
    ),
    BodyTooLarge: Kind(413, "body-too-large", "The body is too large", "A study definition has at most 1048576 bytes."),
    errors.UploadTooLarge: Kind(
        413, "upload-too-large", "The file is too large",
        "A file has at most 2147483648 bytes: upload it in parts, as several files.",
    ),
    errors.UnsupportedMediaType: Kind(
        415, "unsupported-media-type", "The body's content type is not read here",
        "Send the definition as `Content-Type: application/yaml` or `application/json`, not 'text/html'.",
    ),
    errors.TooManyFiles: Kind(
        413, "too-many-files", "The project has as many files as it may",
        "The project has 1000 files, and may have 1000: replace one of them, or delete some.",
    ),
    RangeNotSatisfiable: Kind(
        416, "range-not-satisfiable", "There are no such bytes",
        "The file has 512 bytes: ask for a range that starts before its end.",
    ),
    errors.InvalidDefinition: Kind(
        422, "invalid-definition", "The study cannot be run as it stands",
        "/space/learning_rate/low: `learning_rate` cannot be -1.0: Input should be greater than 0",
    ),
    errors.InvalidConfiguration: Kind(
        422, "invalid-configuration", "The study cannot try this",
        "/parameters/learning_rate: cannot be 2: give it a number from 1e-06 to 0.001",
    ),
    InvalidParameters: Kind(
        422, "invalid-parameters", "A parameter is not what it should be",
        "query parameter `limit`: Input should be less than or equal to 200",
    ),
    errors.InvalidQuery: Kind(
        422, "invalid-query", "A filter, an order, a cursor or a column means nothing here",
        "This cursor belongs to another order: leave it out to start from the beginning.",
    ),
    errors.UnreadableDataset: Kind(
        422, "unreadable-dataset", "The file cannot be read as a data set",
        "'train.txt' is not a format read here: upload .csv, .jsonl, .parquet, .conll, .bio or .zip.",
    ),
    errors.UnsafePath: Kind(
        422, "unsafe-path", "This cannot be a name",
        "'..' cannot be a data set's or file's name: use letters, digits, dot, dash and underscore, at most 100.",
    ),
    errors.ModelNotFound: Kind(422, "model-not-found", "There is no such model", "Name a model that exists."),
    errors.UnusableModel: Kind(422, "unusable-model", "The trainer cannot use this model", "Name another model."),
    errors.TooOften: Kind(
        429, "too-often", "Too many requests", "Too many wrong tokens came from your address: try again in 42 s."
    ),
    errors.NotReady: Kind(
        503, "not-ready", "A part of the service is not up", "MLflow is not up yet: try again in a few seconds."
    ),
    errors.TooManyUploads: Kind(
        503, "too-many-uploads", "Very many uploads are under way",
        "As many uploads are under way as go at once: send this one again in a few seconds.",
    ),
    errors.SchemaTooOld: Kind(
        503, "schema-too-old", "The database is of an earlier version", "Stop every service and run `tuneyard db upgrade`."
    ),
    errors.SchemaTooNew: Kind(
        503, "schema-too-new", "The database is of a later version", "Install the version of Tuneyard that wrote it."
    ),
    errors.StoreAway: Kind(
        503, "store-away", "The database does not answer",
        "The database does not answer, or has no room: try again in a few seconds; the service's log tells more.",
    ),
    errors.StorageAway: Kind(
        503, "storage-away", "The object storage does not answer",
        "The object storage s3://models/tuneyard does not answer, or refuses (503 SlowDown): see that it runs.",
    ),
    errors.WrongSettings: Kind(
        500, "wrong-settings", "The service's settings cannot be used",
        "TUNEYARD_PORT is 'http', and has to be a whole number.",
    ),
    errors.StorageRefused: Kind(
        500, "storage-refused", "The object storage's address cannot be used",
        "TUNEYARD_STORAGE_URL names no bucket: give it as `s3://BUCKET/PREFIX`.",
    ),
    errors.DamagedObject: Kind(
        502, "damaged-object", "The object storage gave something else than it was given",
        "sources/4f2a9c0d1e7b in the object storage is not what was stored there (its SHA-256 differs): it is not used.",
    ),
    errors.UnusableCache: Kind(
        500, "unusable-cache", "A worker's cache cannot be used",
        "The folder /cache for what workers fetch cannot be used (Permission denied): set TUNEYARD_WORKER_CACHE to another.",
    ),
    errors.NoSpace: Kind(
        507, "no-space", "The disk is full",
        "The disk of /srv/tuneyard has 1.0 MB free, and needs 267.4 MB more: make room there.",
    ),
    errors.AnalysisFailed: Kind(
        503, "analysis-failed", "The study could not be analysed",
        "Measuring the parameters' importance ended with code 1; the service's log tells more. Ask again.",
    ),
    errors.AnalysisTimedOut: Kind(
        504, "analysis-timed-out", "Analysing the study took too long",
        "Measuring the parameters' importance was not done within 20 s: ask again when the machine is less busy.",
    ),
    errors.TuneyardError: _INTERNAL,
}  # fmt: skip
"""What each error of the tree is to clients; what is not here is what its nearest base is."""


def install(app: FastAPI) -> None:
    """Let the application answer every error with a problem document."""
    app.add_exception_handler(errors.TuneyardError, _tuneyard_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


def problem_response(request: Request, kind: Kind, detail: str, violations: Sequence[ViolationView] = ()) -> Response:
    """The problem document for one error."""
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=detail,
        instance=_instance(request),
        violations=tuple(violations),
    )
    left_out = None if violations else {"violations"}
    return Response(problem.model_dump_json(exclude=left_out), status_code=kind.status, media_type=MEDIA_TYPE, headers=_NO_STORE)


def internal_error(request: Request, error: Exception) -> Response:
    """The answer to an error nobody foresaw: it is logged under an id, and only that id is told."""
    incident = secrets.token_hex(6)
    _LOG.error("%s: %s %r failed", incident, request.method, request.url.path, exc_info=error)
    detail = (
        f"Something went wrong inside the service; its log tells more under {incident}. Try again, and report it if it stays."
    )
    return problem_response(request, _INTERNAL, detail)


def documented(*classes: type[errors.TuneyardError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors, beside those that every route may answer with."""
    grouped: dict[int, list[Kind]] = {}
    for one in classes:
        grouped.setdefault(KINDS[one].status, []).append(KINDS[one])
    return {status: _response(kinds) for status, kinds in sorted(grouped.items())}


def everywhere(*, is_open: bool) -> dict[str, dict[str, Any]]:
    """The errors that every route may answer with; those of `is_open` routes need no token."""
    known = [
        *(KINDS[one] for one in (errors.NotAuthenticated, errors.Forbidden, errors.ProjectNotFound, errors.TooOften)),
        _INTERNAL,
        KINDS[errors.StoreAway],
    ]
    kinds = [_INTERNAL] if is_open else known
    responses = {str(kind.status): _response([kind]) for kind in kinds}
    if not is_open:
        responses["401"]["headers"] = {
            "WWW-Authenticate": {"description": "How to authenticate.", "schema": {"type": "string"}, "example": _CHALLENGE}
        }
    return responses


def kind_of(error: errors.TuneyardError) -> Kind:
    """What this error is to clients."""
    return next(KINDS[base] for base in type(error).__mro__ if base in KINDS)


def _tuneyard_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, errors.TuneyardError)  # noqa: S101 - registered for this class
    kind = kind_of(error)
    if kind is _INTERNAL:
        return internal_error(request, error)
    if isinstance(error, errors.StoreAway | errors.StorageAway):
        _LOG.warning("%s %r: %s", request.method, request.url.path, error.cause)
    response = problem_response(request, kind, error.detail, _violations(error))
    match error:
        case errors.NotAuthenticated():
            if request.method in {"GET", "HEAD"} and pages.wants_page(request):
                needs_token = pages.message("A token is needed here", [error.detail])
                page = needs_token if error.needs_token else pages.message("Log in to see this page", _LOG_IN)
                response = HTMLResponse(page, kind.status, headers={**_NO_STORE, **pages.HEADERS})
            response.headers["WWW-Authenticate"] = _CHALLENGE + (_INVALID_TOKEN if error.is_of_token else "")
        case errors.NotReady() | errors.StoreAway() | errors.StorageAway() | errors.TooManyUploads():
            response.headers["Retry-After"] = "2"
        case errors.TooOften():
            response.headers["Retry-After"] = str(error.seconds)
        case RangeNotSatisfiable():
            response.headers["Content-Range"] = f"bytes */{error.size}"
        case _:
            pass
    return response


def _violations(error: errors.TuneyardError) -> Sequence[ViolationView]:
    match error:
        case errors.InvalidDefinition() | errors.InvalidConfiguration():
            return [ViolationView(pointer=one.pointer, detail=one.detail) for one in error.violations]
        case InvalidParameters():
            return error.violations
        case _:
            return ()


def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class
    violations = []
    for item in error.errors():
        place, *names = [str(part) for part in item["loc"]]
        message = str(item["msg"]).removeprefix("Value error, ")
        name = names[0] if names else place
        where = f"{place} parameter `{name}`" if place in {"query", "path", "header", "cookie"} else place
        violations.append(ViolationView(pointer=name, detail=f"{where}: {message}"))
    return _tuneyard_error(request, InvalidParameters(violations))


def _http_error(request: Request, error: Exception) -> Response:
    """What the framework itself refuses."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            detail = f"There is nothing at {request.url.path!r}: `/docs` lists what there is."
            return problem_response(request, _NO_SUCH_PATH, detail)
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = _methods_of(request)
            detail = f"{request.url.path!r} answers {' and '.join(allowed)}, not {request.method}."
            response = problem_response(request, _METHOD, detail)
            response.headers["Allow"] = ", ".join(allowed)
            return response
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return problem_response(request, KINDS[BodyTooLarge], "The body is larger than this path reads: send less.")
        case status:
            phrase = HTTPStatus(status).phrase
            kind = Kind(status, phrase.lower().replace(" ", "-"), phrase, "")
            response = problem_response(request, kind, str(error.detail))
            response.headers.update(error.headers or {})
            return response


def _methods_of(request: Request) -> list[str]:
    """Every method of this path, over all routes: the framework knows only those of the first route that matches."""
    scope = dict(request.scope)
    methods: set[str] = set()
    for route in iter_route_contexts(request.app.routes):
        known = route.methods or set()
        if known and route.original_route.matches({**scope, "method": next(iter(known))})[0] is Match.FULL:
            methods |= known
    return sorted(methods)


def _response(kinds: Sequence[Kind]) -> dict[str, Any]:
    return {
        "description": _sentence("; ".join(kind.title for kind in kinds)),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {
                    kind.slug: {
                        "summary": kind.title,
                        "value": {"type": kind.type, "title": kind.title, "status": kind.status, "detail": kind.example},
                    }
                    for kind in kinds
                },
            }
        },
    }


def _sentence(text: str) -> str:
    return text if text.endswith(("?", ".")) else f"{text}."


def _instance(request: Request) -> str:
    """The path alone: a query may hold a secret."""
    return request.url.path


_CHALLENGE = 'Bearer realm="tuneyard"'
_INVALID_TOKEN = ', error="invalid_token", error_description="The token is not valid."'  # noqa: S105 - what is said of one
_LOG_IN = (
    "This browser is not logged in, or not any more. Run `tuneyard login`, open the link that it prints, and this page again.",
    "In a clone that is `.venv/bin/tuneyard login`; while `make demo` serves, `.venv/bin/tuneyard --home .tuneyard/demo login`.",
)
_NO_STORE = {"Cache-Control": "no-store"}
