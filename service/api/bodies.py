"""What requests carry: a body no larger than it may be, and the model it is read as."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from service.api.documents import JSON_TYPE, MAX_BYTES, YAML_TYPES
from service.api.problems import BodyTooLarge
from service.domain.errors import InvalidDefinition, TuneyardError, Violation
from service.domain.pointers import violations_of

_MAX_SMALL_BYTES = 16 * 1024
_Wanted = TypeVar("_Wanted", bound=BaseModel)


def declared_bytes(request: Request) -> int:
    """How long the body is going to be, as far as the client says: 0 where it does not."""
    declared = request.headers.get("Content-Length", "")
    return int(declared[:20]) if declared.isdecimal() else 0


async def limited_body(request: Request, most_bytes: int, detail: str) -> bytes:
    """The request's body, if it is no larger than this. Raises BodyTooLarge with this detail."""
    if declared_bytes(request) > most_bytes:
        raise BodyTooLarge(detail)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise BodyTooLarge(detail)
    return bytes(body)


async def whole_body(request: Request) -> bytes:
    """The request's body, if it is no larger than a definition may be. Raises BodyTooLarge."""
    advice = "upload rows as a data set and name it in the definition"
    return await limited_body(request, MAX_BYTES, f"A study definition has at most {MAX_BYTES} bytes: {advice}.")


async def small_body(request: Request) -> bytes:
    """A body of a few keys. Raises BodyTooLarge."""
    return await limited_body(request, _MAX_SMALL_BYTES, f"This body has at most {_MAX_SMALL_BYTES} bytes.")


def read_as(
    model: type[_Wanted], document: Any, refusal: Callable[[Sequence[Violation]], TuneyardError] = InvalidDefinition
) -> _Wanted:
    """The model in a decoded body. Raises what `refusal` makes of the violations, each named by its place in the document."""
    try:
        return model.model_validate_json(json.dumps(document))
    except ValidationError as error:
        raise refusal(violations_of(model, document, {}, error.errors(include_url=False))) from error


def body_of(
    model: type[BaseModel] | None,
    example: Any,
    description: str | None = None,
    types: Sequence[str] = (),
    *,
    required: bool = True,
) -> dict[str, Any]:
    """A body as OpenAPI describes it: this model's, or any object, in JSON or YAML unless other media types are named."""
    media = {
        "schema": model.model_json_schema(ref_template="#/components/schemas/{model}") if model else {"type": "object"},
        "example": example,
    }
    body = {"required": required, "content": dict.fromkeys(types or (JSON_TYPE, *YAML_TYPES), media)}
    return {"requestBody": body if description is None else {**body, "description": description}}
