"""What happens to a study, as it happens: server-sent events."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, Generic, TypeVar

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Header, Query, Request, Response, status
from sse_starlette import EventSourceResponse, ServerSentEvent

from service.api.dependencies import all_parts_of
from service.api.identity import is_still_let_in
from service.api.paths import STUDY, StudyId
from service.api.problems import InvalidParameters, documented
from service.api.schemas import EventView
from service.domain import errors
from service.domain.events import EventKind
from service.domain.ports import Clock, Store

router = APIRouter(tags=["events"])

POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15
_BATCH = 500
_LEAVING_SECONDS = 1.0
"""Given to the streams to end by themselves when the server stops; less than uvicorn waits for them."""
_THREADS = 2
_LET_IN_SECONDS = 60
"""After which it is asked again whether who watches still may: a token may be revoked, and a session ended, meanwhile."""
_LARGEST_ID = 2**63 - 1
_OF_ALL = ("", 0)
"""The name of the question that is asked for all watchers; no study has it."""

T = TypeVar("T")

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
    as `Last-Event-ID` to miss nothing. The stream ends within about a minute of what let you in: a token, or a session.
    """
    looks: Looks = request.app.state.looks
    first = await looks.fresh(study_id, after if last_event_id is None else last_event_id)
    if first.is_last and not first.messages:
        return Response(status_code=status.HTTP_204_NO_CONTENT)
    leaving = anyio.Event()
    parts = all_parts_of(request)
    watcher = Watcher(partial(is_still_let_in, request, parts), parts.clock)
    return EventSourceResponse(
        watch(looks, study_id, first, leaving, watcher, follow=follow),
        ping=HEARTBEAT_SECONDS,
        sep="\n",
        headers={"Cache-Control": "no-store"},
        shutdown_event=leaving,
        shutdown_grace_period=_LEAVING_SECONDS,
    )


class Watcher:
    """Who watches. `is_let_in` says whether they may, by the store."""

    def __init__(self, is_let_in: Callable[[], bool], clock: Clock) -> None:
        self._is_let_in = is_let_in
        self._clock = clock
        self._asked_at = clock.now()

    def is_due(self) -> bool:
        """Whether it is time to ask again."""
        return self._clock.now() - self._asked_at >= timedelta(seconds=_LET_IN_SECONDS)

    def may_go_on(self) -> bool:
        """Ask; whoever was let in stays so while the store cannot be asked."""
        self._asked_at = self._clock.now()
        try:
            return self._is_let_in()
        except errors.StoreAway:
            return True


@dataclass(frozen=True)
class Step:
    """What one look at the store found; after the one that `is_last` nothing can follow. `seen` is the last event by then."""

    messages: Sequence[ServerSentEvent]
    seen: int
    is_full: bool
    is_last: bool


@dataclass
class _Asked(Generic[T]):
    """A question that somebody asks the store just now, or did a moment ago."""

    at: float
    is_answered: anyio.Event = field(default_factory=anyio.Event)
    answer: T | None = None
    error: Exception | None = None

    def is_worth_waiting_for(self, now: float) -> bool:
        """Whether its answer will do: it is still to come, however long ago it was asked, or came a moment ago."""
        return not self.is_answered.is_set() or now - self.at < POLL_SECONDS / 2


class Looks:
    """Asks the store for all watchers, on threads of its own, so that these never take those of other requests.

    One question is asked for all of them, whatever they watch: what is the last event of each study? Its events are read only
    where that is a new one. Who watches the same study and has heard the same asks the same question: one answer does for all
    that ask within a moment.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._threads = anyio.CapacityLimiter(_THREADS)
        self._asked: dict[tuple[str, int], _Asked[Any]] = {}
        self._watched: Counter[str] = Counter()

    @contextmanager
    def watching(self, study_id: str) -> Iterator[None]:
        """Ask for this study too whenever somebody asks for all."""
        self._watched[study_id] += 1
        try:
            yield
        finally:
            self._watched[study_id] -= 1
            if not self._watched[study_id]:
                del self._watched[study_id]

    async def news(self, study_id: str, seen: int) -> Step:
        """What came after event `seen`, for one that has been watching. Raises StudyNotFound."""
        latest = await self._joined(_OF_ALL, self._latest)
        if latest.get(study_id) == (seen, False):
            return Step((), seen, is_full=False, is_last=False)
        return await self.shared(study_id, seen)

    async def shared(self, study_id: str, seen: int) -> Step:
        """The same, read or what another watcher has just been answered, be it an error."""
        return await self._joined((study_id, seen), lambda: self.fresh(study_id, seen))

    async def fresh(self, study_id: str, seen: int) -> Step:
        """Ask the store what came after event `seen`. Raises StudyNotFound."""
        return await run_sync(self._look, study_id, seen, limiter=self._threads)

    async def may_go_on(self, watcher: Watcher) -> bool:
        """Whether who watches still may, asked of the store once in a while."""
        return not watcher.is_due() or await run_sync(watcher.may_go_on, limiter=self._threads)

    async def _joined(self, key: tuple[str, int], ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` answers, or what another has just been answered who asked under the same key."""
        while (asked := self._asked.get(key)) and asked.is_worth_waiting_for(anyio.current_time()):
            await asked.is_answered.wait()
            if asked.error is not None:
                raise asked.error
            if asked.answer is not None:
                answered: T = asked.answer
                return answered
        now = anyio.current_time()
        kept = {key: one for key, one in self._asked.items() if not one.is_answered.is_set() or now - one.at < POLL_SECONDS}
        mine: _Asked[T] = _Asked(now)
        self._asked = {**kept, key: mine}
        try:
            mine.answer = await ask()
        except Exception as error:
            mine.error = error
            raise
        finally:
            mine.is_answered.set()
            if mine.answer is None:  # an error is for those who waited; who left without an answer has another ask
                self._asked.pop(key, None)
        return mine.answer

    async def _latest(self) -> Mapping[str, tuple[int, bool]]:
        return await run_sync(self._store.events.latest, tuple(self._watched), limiter=self._threads)

    def _look(self, study_id: str, seen: int) -> Step:
        # In this order: a study that had ended before has no event that is not there yet.
        ended = self._store.studies.get(study_id).state.is_end
        events = self._store.events.after(study_id, seen, _BATCH)
        is_full = len(events) == _BATCH
        messages = [ServerSentEvent(EventView.of(one).model_dump_json(), id=str(one.id), event=one.kind.value) for one in events]
        return Step(messages, events[-1].id if events else seen, is_full=is_full, is_last=ended and not is_full)


async def watch(
    looks: Looks, study_id: str, step: Step, leaving: anyio.Event, watcher: Watcher, *, follow: bool
) -> AsyncIterator[ServerSentEvent]:
    """The messages of a first step and of all that follow, until the study has ended, the server leaves or they may not."""
    with looks.watching(study_id):
        async for message in _watched(looks, study_id, step, leaving, watcher, follow=follow):
            yield message


async def _watched(
    looks: Looks, study_id: str, step: Step, leaving: anyio.Event, watcher: Watcher, *, follow: bool
) -> AsyncIterator[ServerSentEvent]:
    while True:
        for message in step.messages:
            yield message
        if step.is_last or not (follow or step.is_full):
            return
        if not step.is_full:
            with anyio.move_on_after(POLL_SECONDS):
                await leaving.wait()
        if leaving.is_set() or not await looks.may_go_on(watcher):
            return
        try:
            step = await looks.news(study_id, step.seen)
        except errors.StudyNotFound:
            return  # deleted meanwhile: there is nothing more to tell
        except errors.StoreAway:
            step = Step((), step.seen, is_full=False, is_last=False)  # what happens meanwhile is told once it is back
