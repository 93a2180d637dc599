"""The OpenAPI document: what the framework knows, made whole."""

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from search_spaces.presets import presets
from service import __version__
from service.api.documents import JSON_TYPE, YAML_TYPES
from service.api.identity import SESSION_COOKIE
from service.api.problems import everywhere
from service.api.schemas import EventView, Problem
from service.api.step_schemas import ForkRequest
from service.api.studies import EXAMPLE
from service.domain.definition import StudyDefinition

_REF = "#/components/schemas/"
_OPEN = frozenset({"/healthz", "/readyz", "/login"})
"""Paths that need no token."""
_TOKEN_ONLY = frozenset({"/v1/login-links", "/v1/tokens", "/v1/tokens/{token_id}", "/v1/sessions", "/v1/audit"})
"""Paths that a browser's session does not open."""
_DESCRIPTION = """\
Searches hyperparameters for fine-tuning: POST a study, watch its trials, pull the best checkpoint.

Every request needs a token (`Authorization: Bearer TOKEN`) or a session cookie from a login link. What belongs to another
project than the token's is not there. Who sees every project names one with the header `Tuneyard-Project`.
Every error is a problem document (RFC 9457): compare its `type`, read its `detail`.
"""
_TAGS = [
    {"name": "studies", "description": "One search each: what to train, what varies, how to search and what it may spend."},
    {"name": "trials", "description": "One configuration tried, with its reports and attempts."},
    {"name": "events", "description": "What happens to a study, as it happens."},
    {"name": "checkpoints", "description": "The exported models of the best trials."},
    {"name": "datasets", "description": "Rows to train on."},
    {"name": "models", "description": "Base models to start from."},
    {"name": "access", "description": "Tokens, projects, login links, and the log of who did what."},
    {"name": "health", "description": "Is the service alive, can it work, and how much does it do?"},
]
_SECURITY_SCHEMES = {
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "The service's own, which it keeps in its home, or one of `tuneyard token create`.",
    },
    "session": {"type": "apiKey", "in": "cookie", "name": SESSION_COOKIE, "description": "A browser's, from a login link."},
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of the application, made once."""
    if app.openapi_schema is None:
        app.openapi_schema = _made(app)
    return app.openapi_schema


def _made(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="Tuneyard", version=__version__, summary="A hyperparameter search service.", description=_DESCRIPTION,
        routes=app.routes, tags=_TAGS,
    )  # fmt: skip
    components = document.setdefault("components", {})
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    schemas.update(_schemas_of(Problem, "serialization"))
    schemas.update(_definition_schemas())
    schemas.update(_schemas_of(EventView, "serialization"))
    schemas.update(_schemas_of(ForkRequest, "validation"))
    components["securitySchemes"] = _SECURITY_SCHEMES
    for path, _, operation in _operations(document):
        is_open = path in _OPEN
        schemes = [] if is_open else ["token"] if path in _TOKEN_ONLY else ["token", "session"]
        operation["security"] = [{name: []} for name in schemes]
        _complete(operation["responses"], is_open=is_open)
        for media in operation.get("requestBody", {}).get("content", {}).values():
            schemas.update(media["schema"].pop("$defs", {}))
        for parameter in operation.get("parameters", []):
            parameter["schema"] = _without_null(parameter["schema"])
    document["paths"]["/v1/studies"]["post"]["requestBody"] = _definition_body()
    document["paths"]["/v1/studies:preview"]["post"]["requestBody"] = _definition_body()
    fork = document["paths"]["/v1/studies/{study_id}:fork"]["post"]
    fork["requestBody"] = _fork_body()
    for operation in (document["paths"]["/v1/studies"]["post"], fork):
        operation["responses"]["201"]["headers"] = {
            "Location": {"description": "The study.", "schema": {"type": "string"}, "example": "/v1/studies/intents-abc123"}
        }
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return document


def _complete(responses: dict[str, Any], *, is_open: bool) -> None:
    invalid = responses.get("422", {}).get("content", {}).get("application/json", {}).get("schema", {})
    if invalid.get("$ref") == _REF + "HTTPValidationError":
        del responses["422"]  # the framework's own guess: these routes answer 404 to what cannot be an id
    for status, response in everywhere(is_open=is_open).items():
        responses.setdefault(status, response)
    for status in sorted(responses):
        responses[status] = responses.pop(status)


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter may be left out, but there is no way to send null."""
    options = [option for option in schema.get("anyOf", []) if option != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {**options[0], **{key: value for key, value in schema.items() if key != "anyOf"}}


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def _definition_body() -> dict[str, Any]:
    media = {"schema": {"$ref": f"{_REF}{_INPUT}StudyDefinition"}, "examples": _EXAMPLES}
    return {
        "required": True,
        "description": "The study's definition, in JSON or YAML: the same file the command line takes.",
        "content": dict.fromkeys((JSON_TYPE, *YAML_TYPES), media),
    }


def _fork_body() -> dict[str, Any]:
    media = {"schema": {"$ref": f"{_REF}ForkRequest"}}
    return {
        "required": False,
        "description": "What the new study changes; without a body it is the same search again.",
        "content": dict.fromkeys((JSON_TYPE, *YAML_TYPES), media),
    }


_EXAMPLES = {
    "hyperband": {"value": EXAMPLE},
    "preset": {"value": {**EXAMPLE, "space": {"preset": "text-classification/full", "batch_size": None}}},
}
_INPUT = "Posted"
"""Definitions come in with durations as text and defaults left out, and go out without either."""


def _definition_schemas() -> dict[str, Any]:
    schemas = {f"{_INPUT}{name}": schema for name, schema in _schemas_of(StudyDefinition, "validation", _INPUT).items()}
    # Of several objectives the first is filled in before the model sees the definition.
    definition = schemas[f"{_INPUT}StudyDefinition"]
    definition["required"] = [name for name in definition["required"] if name != "objective"]
    definition["anyOf"] = [{"required": ["objective"]}, {"required": ["objectives"]}]
    # A preset is written out before the model sees the definition, so the model does not know of it.
    space = schemas[f"{_INPUT}StudyDefinition"]["properties"]["space"]
    names = sorted(presets())
    space["properties"] = {
        "preset": {
            "type": "string", "enum": names, "examples": names[:1],
            "description": "A search space to start from; the other keys take the place of its own, or take them out where null.",
        }
    }  # fmt: skip
    parameter, group = space["additionalProperties"], {"$ref": f"{_REF}{_INPUT}Group"}
    space["additionalProperties"] = {"anyOf": [parameter, group, {"type": "null"}]}
    # Groups are written out before the model sees the definition, too.
    schemas[f"{_INPUT}Group"] = {
        "type": "object", "title": "Group", "minProperties": 1, "additionalProperties": {"anyOf": [parameter, group]},
        "description": "Parameters of a group of the trainer's keys: `lora: {rank: {...}}` is the parameter `lora.rank`.",
        "properties": {
            "when": {
                "type": "object", "minProperties": 1, "description": "When the parameters in it exist: as in each of them.",
                "examples": [{"optimizer": "adamw"}],
            }
        },
        "examples": [{"when": {"optimizer": "adamw"}, "rank": {"kind": "int", "low": 4, "high": 64, "log": True}}],
    }  # fmt: skip
    return schemas


def _schemas_of(model: Any, mode: Any, prefix: str = "") -> dict[str, Any]:
    """A model's schema and those it refers to, by name."""
    schema = model.model_json_schema(mode=mode, ref_template=f"{_REF}{prefix}{{model}}")
    return {**schema.pop("$defs", {}), model.__name__: schema}
