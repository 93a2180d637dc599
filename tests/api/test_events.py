import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from service.api import events
from service.api.identity import sha256_of
from service.api.schemas import EventView
from service.client.stream import Message, lines_of, messages
from service.domain.access import AccessToken, Caller, Role, Source
from service.domain.errors import StoreAway, StudyNotFound
from service.domain.events import Event
from service.domain.ports import EventStore
from tests.api.conftest import TOKEN, World, client_of, with_parts
from tests.builders import NOW

TYPE = "urn:tuneyard:problem:"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", 0.0)


def told(content: bytes) -> list[Message]:
    return [message for message in messages(lines_of([content])) if message is not None]


@dataclass
class LivelyEvents:
    """Events of a study to which something happens whenever somebody looks."""

    events: EventStore
    happenings: list[Callable[[], Any]]

    def add(self, events: Sequence[Event]) -> None:
        self.events.add(events)

    def after(self, study_id: str, event_id: int, limit: int = 500) -> Sequence[Event]:
        found = self.events.after(study_id, event_id, limit)
        self._something_happens()
        return found

    def latest(self, study_ids: Collection[str]) -> Mapping[str, tuple[int, bool]]:
        found = self.events.latest(study_ids)
        self._something_happens()
        return found

    def _something_happens(self) -> None:
        if self.happenings:
            self.happenings.pop(0)()


def lively(world: World, *happenings: Callable[[], Any], token: str | None = TOKEN, **changes: Any) -> TestClient:
    store = world.parts.store
    changed = replace(store, events=LivelyEvents(store.events, list(happenings)))
    return client_of(with_parts(world, store=changed, **changes), token)


def test_the_stream_tells_everything_to_the_end_of_the_study(world: World) -> None:
    study = world.runs(world.has_study())
    answer = lively(world, lambda: world.has_trial(study, 0, [0.5]), lambda: None, lambda: world.ends(study)).get(
        f"/v1/studies/{study.id}/events"
    )
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    heard = told(answer.content)
    assert [int(message.id or 0) for message in heard] == [event.id for event in world.parts.store.events.after(study.id, 0)]
    assert heard[0].event == "study.created"
    last = EventView.model_validate_json(heard[-1].data)
    assert (last.kind, last.payload["state"], last.trial) == ("study.state", "completed", None)


def test_the_message_carries_the_event_in_json(client: TestClient, world: World) -> None:
    study = world.has_study()
    (message,) = told(client.get(f"/v1/studies/{study.id}/events?follow=false").content)
    view = json.loads(message.data)
    assert (message.event, message.id) == (view["kind"], str(view["id"])) == ("study.created", message.id)
    assert view["study_id"] == study.id


def test_events_about_a_trial_name_it(client: TestClient, world: World) -> None:
    study = world.runs(world.has_study())
    world.has_trial(study, 3)
    heard = told(client.get(f"/v1/studies/{study.id}/events?follow=false").content)
    assert json.loads(heard[-1].data)["trial"] == 3


@pytest.mark.parametrize("by", ["header", "query", "both"])
def test_a_client_that_comes_back_misses_nothing_and_hears_nothing_twice(client: TestClient, world: World, by: str) -> None:
    study = world.ends(world.runs(world.has_study()))
    place = f"/v1/studies/{study.id}/events"
    everything = told(client.get(place).content)
    headers = {"Last-Event-ID": str(everything[1].id)} if by != "query" else {}
    query = {"header": {}, "query": {"after": str(everything[1].id)}, "both": {"after": "0"}}[by]
    assert told(client.get(place, headers=headers, params=query).content) == everything[2:]


def test_a_client_that_has_heard_the_end_is_told_not_to_come_back(client: TestClient, world: World) -> None:
    study = world.ends(world.runs(world.has_study()))
    place = f"/v1/studies/{study.id}/events"
    last = told(client.get(place).content)[-1].id
    assert client.get(place, headers={"Last-Event-ID": str(last)}).status_code == 204


def test_the_stream_ends_when_the_study_is_deleted(world: World) -> None:
    study = world.has_study()

    def deleted() -> None:
        world.ends(study)
        world.parts.store.studies.delete(study.id)

    answer = lively(world, deleted).get(f"/v1/studies/{study.id}/events")
    assert [message.event for message in told(answer.content)] == ["study.created"]


def test_more_events_than_one_look_finds_are_all_told(client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BATCH", 2)
    study = world.runs(world.has_study())
    for number in range(3):
        world.has_trial(study, number)
    ids = [event.id for event in world.parts.store.events.after(study.id, 0)]
    heard = told(client.get(f"/v1/studies/{study.id}/events?follow=false").content)
    assert [int(message.id or 0) for message in heard] == ids
    world.ends(study)
    heard = told(client.get(f"/v1/studies/{study.id}/events").content)
    assert len(heard) == len(world.parts.store.events.after(study.id, 0))


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Last-Event-ID": "x"}, ""),
        ({"Last-Event-ID": "-1"}, ""),
        ({}, "?after=-1"),
        ({}, f"?after={2**63}"),
        ({}, "?follow=perhaps"),
    ],
)
def test_a_place_that_means_nothing_is_refused(client: TestClient, world: World, headers: dict[str, str], query: str) -> None:
    answer = client.get(f"/v1/studies/{world.has_study().id}/events{query}", headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (422, TYPE + "invalid-parameters")


def test_a_stream_ends_when_the_server_leaves(world: World) -> None:
    study = world.has_study()
    leaving = anyio.Event()

    async def heard() -> list[str | None]:
        looks = events.Looks(world.parts.store)
        watcher = events.Watcher(lambda: True, world.clock)
        stream = events.watch(looks, study.id, await looks.fresh(study.id, 0), leaving, watcher, follow=True)
        found = [(await anext(stream)).event]
        leaving.set()
        return found + [message.event async for message in stream]

    assert anyio.run(heard) == ["study.created"]


SECRET = "ty_" + "s" * 43


class Provider:
    """An identity provider that knows one token, for half a minute."""

    def caller_of(self, token: str) -> Caller | None:
        return (
            Caller("ada", Role.VIEWER, Source.OIDC, "default", ends_at=NOW + timedelta(seconds=30)) if token == "a.b.c" else None
        )


def ends(world: World, how: str) -> Callable[[], Any]:
    """What ends somebody's being let in in this way, and the way they come in."""
    access = world.parts.store.access
    access.add_token(AccessToken("1", "ada", Role.VIEWER, "default", NOW, "root", NOW + timedelta(days=1)), sha256_of(SECRET))
    return {
        "revoked": lambda: access.revoke("1", NOW),
        "ran out": lambda: world.clock.pass_seconds(86400),
        "logged out": access.delete_sessions,
        "provider": lambda: None,
        "nothing": lambda: None,
    }[how]


@pytest.mark.parametrize(
    ("how", "headers", "seconds", "last"),
    [
        ("revoked", {"Authorization": f"Bearer {SECRET}"}, 60, "running"),
        ("revoked", {"Authorization": f"Bearer {SECRET}"}, 59, "completed"),
        ("ran out", {"Authorization": f"Bearer {SECRET}"}, 60, "running"),
        ("logged out", {"Cookie": "tuneyard_session=s"}, 60, "running"),
        ("revoked", {"Cookie": "tuneyard_session=s"}, 60, "running"),
        ("provider", {"Authorization": "Bearer a.b.c"}, 60, "running"),
        ("nothing", {"Authorization": f"Bearer {SECRET}"}, 3600, "completed"),
        ("nothing", {"Authorization": f"Bearer {TOKEN}"}, 3600, "completed"),
        ("nothing", {"Cookie": "tuneyard_session=s"}, 3600, "completed"),
    ],
)
def test_the_stream_ends_within_a_minute_of_what_let_them_in_and_not_before(
    world: World, how: str, headers: dict[str, str], seconds: float, last: str
) -> None:
    study = world.runs(world.has_study())
    end, access = ends(world, how), world.parts.store.access
    access.add_session(sha256_of("s"), NOW + timedelta(days=30), Caller("ada", Role.VIEWER, Source.TOKEN, "default", "1"))

    def time_passes() -> None:
        end()
        world.clock.pass_seconds(seconds)

    happenings = (lambda: None, time_passes, lambda: None, lambda: world.ends(study))
    answer = lively(world, *happenings, token=None, identities=Provider()).get(f"/v1/studies/{study.id}/events", headers=headers)
    assert answer.status_code == 200
    assert json.loads(told(answer.content)[-1].data)["payload"]["state"] == last


def test_who_watches_is_asked_for_once_a_minute_and_stays_while_the_store_is_away(world: World) -> None:
    answers: list[bool | Exception] = [True, StoreAway("no route"), False]

    def is_let_in() -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def asked() -> list[bool]:
        looks, watcher = events.Looks(world.parts.store), events.Watcher(is_let_in, world.clock)
        found = []
        for _ in range(6):
            world.clock.pass_seconds(30)
            found.append(await looks.may_go_on(watcher))
        return found

    assert anyio.run(asked) == [True] * 5 + [False]


@dataclass
class CountedEvents:
    """Events of a study, and how often somebody asks for them."""

    events: EventStore
    asked: int = 0
    asked_of_all: int = 0

    def add(self, events: Sequence[Event]) -> None:
        self.events.add(events)

    def after(self, study_id: str, event_id: int, limit: int = 500) -> Sequence[Event]:
        self.asked += 1
        return self.events.after(study_id, event_id, limit)

    def latest(self, study_ids: Collection[str]) -> Mapping[str, tuple[int, bool]]:
        self.asked_of_all += 1
        return self.events.latest(study_ids)


def test_watchers_who_have_heard_the_same_share_one_look_and_a_new_one_looks_for_itself(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", 1000.0)
    study = world.runs(world.has_study())
    counted = CountedEvents(world.parts.store.events)
    looks = events.Looks(replace(world.parts.store, events=counted))
    steps: list[events.Step] = []

    async def ask() -> None:
        steps.append(await looks.shared(study.id, 1))

    async def all_ask() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
        await looks.fresh(study.id, 1)

    anyio.run(all_ask)
    assert counted.asked == 2
    assert {tuple(message.event for message in step.messages) for step in steps} == {("study.state",)}


def test_of_studies_in_which_nothing_happens_no_events_are_read_and_one_question_does_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", 1000.0)
    studies = [world.runs(world.has_study(f"study-{number}")) for number in range(20)]
    counted = CountedEvents(world.parts.store.events)
    looks = events.Looks(replace(world.parts.store, events=counted))
    steps: dict[str, events.Step] = {}

    async def ask(study_id: str, seen: int) -> None:
        steps[study_id] = await looks.news(study_id, seen)

    async def all_ask() -> None:
        with ExitStack() as stack:
            for study in studies:
                stack.enter_context(looks.watching(study.id))
            async with anyio.create_task_group() as group:
                for study in studies:
                    group.start_soon(ask, study.id, 1 if study.id == "study-7" else 2)

    anyio.run(all_ask)
    assert (counted.asked_of_all, counted.asked) == (1, 1)
    assert {study_id for study_id, step in steps.items() if step.messages} == {"study-7"}


def test_a_look_that_failed_is_no_answer_for_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", 1000.0)
    looks = events.Looks(world.parts.store)

    async def ask_twice() -> None:
        for _ in range(2):
            with pytest.raises(StudyNotFound):
                await looks.shared("nothing-abc123", 0)

    anyio.run(ask_twice)


class SlowLooks(events.Looks):
    """Looks that take until told, each of which then does what is next in line."""

    def __init__(self, *outcomes: events.Step | Exception) -> None:
        self._outcomes, self._asked, self.begun = list(outcomes), {}, 0
        self.go = anyio.Event()

    async def fresh(self, study_id: str, seen: int) -> events.Step:
        self.begun += 1
        await self.go.wait()
        outcome = self._outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


NOTHING_NEW = events.Step((), 1, is_full=False, is_last=False)


async def all_ask(looks: SlowLooks, watchers: int, *, gone: int = 0) -> list[events.Step | str]:
    """What watchers that ask together hear, each being its answer or its error; so many of them go before there is any."""
    heard: list[events.Step | str] = []

    async def ask(scope: anyio.CancelScope) -> None:
        with scope:
            try:
                heard.append(await looks.shared("intents-abc123", 1))
            except StoreAway as error:
                heard.append(error.cause)

    scopes = [anyio.CancelScope() for _ in range(watchers)]
    async with anyio.create_task_group() as group:
        for scope in scopes:
            group.start_soon(ask, scope)
            await anyio.wait_all_tasks_blocked()
        for scope in scopes[:gone]:
            scope.cancel()
        await anyio.wait_all_tasks_blocked()
        looks.go.set()
    return heard


def test_watchers_who_wait_for_a_look_that_fails_hear_of_its_failure_and_do_not_ask_again() -> None:
    async def asked() -> None:
        looks = SlowLooks(StoreAway("no route"), NOTHING_NEW)
        assert await all_ask(looks, 20) == ["no route"] * 20
        assert await all_ask(looks, 1) == [NOTHING_NEW]

    anyio.run(asked)


def test_a_look_that_takes_long_is_joined_however_old_it_is() -> None:
    async def asked() -> None:  # with pauses of 0 seconds, whatever was asked before was asked too long ago
        looks = SlowLooks(NOTHING_NEW)
        assert await all_ask(looks, 20) == [NOTHING_NEW] * 20
        assert looks.begun == 1

    anyio.run(asked)


@pytest.mark.parametrize("poll_seconds", [0.0, 1000.0])
def test_when_the_watcher_who_asked_has_gone_one_other_asks_for_all(poll_seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "POLL_SECONDS", poll_seconds)

    async def asked() -> None:
        looks = SlowLooks(NOTHING_NEW)
        assert await all_ask(looks, 20, gone=1) == [NOTHING_NEW] * 19
        assert looks.begun == 2

    anyio.run(asked)
