"""What happens to a study, as it happens: server-sent events."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response, status
from sse_starlette import EventSourceResponse, ServerSentEvent

from service.api.dependencies import ApiParts, parts_of
from service.api.paths import STUDY, StudyId
from service.api.problems import InvalidParameters, documented
from service.api.schemas import EventView
from service.domain import errors
from service.domain.events import Event, EventKind

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15
_BATCH = 500
_LEAVING_SECONDS = 1.0
"""Given to the streams to end by themselves when the server stops; less than uvicorn waits for them."""
_THREADS = 2
_LARGEST_ID = 2**63 - 1

_MESSAGE = {
    "type": "object",
    "description": "One server-sent event.",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": "^[0-9]+$", "description": "The event's id."},
        "event": {"type": "string", "enum": [kind.value for kind in EventKind], "description": "The event's kind."},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/EventView"},
            "description": "The event, in JSON.",
        },
    },
}
EventId = Annotated[int, Query(ge=0, le=_LARGEST_ID, description="Only events with a greater id.", examples=[42])]


@router.get(
    STUDY + "/events",
    operation_id="watchStudy",
    summary="Watch a study",
    response_class=EventSourceResponse,
    response_description="Server-sent events; the `data` of each is an event in JSON.",
    responses={
        200: {"content": {"text/event-stream": {"schema": _MESSAGE}}},
        204: {"description": "The study has ended and there are no events after this one: do not connect again."},
        **documented(errors.StudyNotFound, InvalidParameters),
    },
)
async def watch_study(
    study_id: StudyId,
    request: Request,
    after: EventId = 0,
    follow: Annotated[  # noqa: FBT002 - a query parameter
        bool, Query(description="`false` ends the stream after what has happened so far.", examples=[False])
    ] = True,
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID", ge=0, le=_LARGEST_ID, examples=[42],
            description="The last event seen; a browser sends it when it connects again. It goes before `after`.",
        ),
    ] = None,
) -> Response:  # fmt: skip
    """Everything that has happened to the study, then everything that happens until it has ended.

    A comment is sent every 15 seconds while nothing happens. After a dropped connection, send the `id` of the last event
    as `Last-Event-ID` to miss nothing.
    """
    watching = _Watching(parts_of(request), study_id, request.app.state.watcher_threads)
    seen = after if last_event_id is None else last_event_id
    first = await watching.step(seen)
    if first.is_last and not first.events:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    leaving = anyio.Event()
    return EventSourceResponse(
        watching.messages(first, seen, leaving, follow=follow),
        ping=HEARTBEAT_SECONDS,
        sep="\n",
        headers={"Cache-Control": "no-store"},
        shutdown_event=leaving,
        shutdown_grace_period=_LEAVING_SECONDS,
    )


def watcher_threads() -> anyio.CapacityLimiter:
    """The threads that ask the store for all watchers together, so that these never take those of other requests."""
    return anyio.CapacityLimiter(_THREADS)


@dataclass(frozen=True)
class _Step:
    """What one look at the store found; after the one that `is_last` nothing can follow."""

    events: Sequence[Event]
    is_full: bool
    is_last: bool


@dataclass(frozen=True)
class _Watching:
    """One client's look at one study."""

    parts: ApiParts
    study_id: str
    threads: anyio.CapacityLimiter

    async def messages(self, step: _Step, seen: int, leaving: anyio.Event, *, follow: bool) -> AsyncIterator[ServerSentEvent]:
        """The events of a first step and of all that follow, until the study has ended or the server is `leaving`."""
        while True:
            for event in step.events:
                seen = event.id
                yield ServerSentEvent(EventView.of(event).model_dump_json(), id=str(event.id), event=event.kind.value)
            if step.is_last or not (follow or step.is_full):
                return
            if not step.is_full:
                with anyio.move_on_after(POLL_SECONDS):
                    await leaving.wait()
            if leaving.is_set():
                return
            try:
                step = await self.step(seen)
            except errors.StudyNotFound:
                return  # deleted meanwhile: there is nothing more to tell
            except errors.StoreAway:
                step = _Step((), is_full=False, is_last=False)  # what happens meanwhile is told once it is back

    async def step(self, seen: int) -> _Step:
        """Ask the store once. Raises StudyNotFound."""
        return await run_sync(self._look, seen, limiter=self.threads)

    def _look(self, seen: int) -> _Step:
        # In this order: a study that had ended before has no event that is not there yet.
        ended = self.parts.store.studies.get(self.study_id).state.is_end
        events = self.parts.store.events.after(self.study_id, seen, _BATCH)
        is_full = len(events) == _BATCH
        return _Step(events, is_full=is_full, is_last=ended and not is_full)
