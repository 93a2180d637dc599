"""Lists come in pages: how many, and from where on."""

from typing import Annotated

from fastapi import Query

MAX_LIMIT = 200

Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items of one page.", examples=[50])]
Cursor = Annotated[
    str | None,
    Query(
        min_length=1, max_length=2000, examples=["eyJvIjoiLWNyZWF0ZWRfYXQifQ"],
        description="The `cursor` of the page before; leave it out for the first page. It fits only the order it came from.",
    ),
]  # fmt: skip
