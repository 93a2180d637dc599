"""Two services over one database: what each keeps in its memory is right, whatever the other one writes.

Kept are the summaries of ended studies, the looks that watchers share, and whether the service is ready. All else is asked of
the store each time.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from service.api import events
from service.domain.ports import Store
from service.store.database import Database
from service.store.sql import store_on
from service.store.versions import upgrade
from tests.api.conftest import World, client_of, with_parts
from tests.builders import a_document


@dataclass
class Pair:
    """Each service has connections of its own; `world` writes as drivers do."""

    one: TestClient
    two: TestClient
    world: World

    @property
    def both(self) -> tuple[TestClient, TestClient]:
        return self.one, self.two


@pytest.fixture
def pair(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    monkeypatch.setattr(events, "POLL_SECONDS", 0.0)
    url = f"sqlite:///{tmp_path / 'tuneyard.db'}"
    upgrade(url)
    databases = [Database(url) for _ in range(3)]
    stores: list[Store] = [store_on(database, world.clock) for database in databases]
    one, two = (client_of(with_parts(world, store=store)) for store in stores[:2])
    with one, two:
        for client in (one, two):
            client.get(
                "/nothing"
            )  # routes are made ready at the first request, which two threads of one process cannot do at once
        yield Pair(one, two, replace(world, parts=with_parts(world, store=stores[2])))
    for database in databases:
        database.engine.dispose()


def shown(client: TestClient, study_id: str) -> tuple[Any, ...]:
    view = client.get(f"/v1/studies/{study_id}").json()
    return view["state"], sum(view["trials"].values()), view["best"] and view["best"]["value"], view["version"]


def test_a_study_that_one_service_extends_is_shown_as_it_goes_on_by_the_other(pair: Pair) -> None:
    world = pair.world
    study = world.runs(world.has_study())
    world.has_trial(study, 0, [0.5])
    ended = world.ends(study)
    assert shown(pair.one, study.id) == shown(pair.two, study.id) == ("completed", 1, 0.5, ended.version)
    assert pair.two.post(f"/v1/studies/{study.id}:extend", json={"budget": {"trials": 9}}).status_code == 202
    goes_on = world.runs(world.parts.store.studies.get(study.id))
    world.has_trial(goes_on, 1, [0.75])
    assert shown(pair.one, study.id) == shown(pair.two, study.id) == ("running", 2, 0.75, goes_on.version)
    world.reports(world.parts.store.trials.get(study.id, 1), [0.875])
    again = world.ends(goes_on)
    for _ in range(2):
        assert shown(pair.one, study.id) == shown(pair.two, study.id) == ("completed", 2, 0.875, again.version)


def test_a_study_that_one_service_deletes_is_gone_from_the_other(pair: Pair) -> None:
    study = pair.world.ends(pair.world.runs(pair.world.has_study()))
    assert [client.get(f"/v1/studies/{study.id}").status_code for client in pair.both] == [200, 200]
    assert pair.one.delete(f"/v1/studies/{study.id}").is_success
    assert pair.two.get(f"/v1/studies/{study.id}").status_code == 404
    assert pair.two.get("/v1/studies").json()["items"] == []


def test_a_post_that_is_repeated_at_the_other_service_starts_one_study(pair: Pair) -> None:
    first = pair.one.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "once"})
    again = pair.two.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": "once"})
    other = pair.two.post("/v1/studies", json=a_document(name="another"), headers={"Idempotency-Key": "once"})
    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 409)
    assert first.json()["id"] == again.json()["id"]
    assert len(pair.one.get("/v1/studies").json()["items"]) == 1


def test_a_post_that_reaches_both_services_at_the_same_time_starts_one_study(pair: Pair) -> None:
    for turn in range(5):
        gate = Barrier(2)

        def post(client: TestClient, gate: Barrier = gate, key: str = f"turn-{turn}") -> Response:
            gate.wait()
            return client.post("/v1/studies", json=a_document(), headers={"Idempotency-Key": key})

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(post, pair.both))
        assert [answer.status_code for answer in answers] == [201, 201]
        assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(pair.one.get("/v1/studies").json()["items"]) == 5


def test_a_trial_that_is_asked_for_twice_at_two_services_is_asked_for_once(pair: Pair) -> None:
    study = pair.world.runs(pair.world.has_study())
    body, path = {"parameters": {"learning_rate": 2e-3}}, f"/v1/studies/{study.id}/trials"
    answers = [client.post(path, json=body, headers={"Idempotency-Key": "once"}) for client in pair.both]
    assert [answer.status_code for answer in answers] == [202, 202], answers[0].text
    assert len(pair.world.parts.store.trials.requests(study.id)) == 1


def test_what_was_read_at_one_service_is_not_changed_at_the_other_once_it_is_old(pair: Pair) -> None:
    study = pair.world.runs(pair.world.has_study())
    tag = pair.one.get(f"/v1/studies/{study.id}").headers["ETag"]
    changed = [
        client.patch(f"/v1/studies/{study.id}", json={"priority": 80 + place}, headers={"If-Match": tag}).status_code
        for place, client in enumerate(pair.both)
    ]
    assert changed == [200, 412]
    assert pair.two.get(f"/v1/studies/{study.id}").json()["definition"]["priority"] == 80


def test_who_watches_at_one_service_hears_what_is_asked_of_the_other(pair: Pair) -> None:
    study = pair.world.runs(pair.world.has_study())
    path = f"/v1/studies/{study.id}/events"
    before = _told(pair.one.get(path, params={"follow": "false"}))
    assert pair.two.post(f"/v1/studies/{study.id}:cancel").status_code == 202
    pair.world.parts.store.studies.save(pair.world.parts.store.studies.get(study.id).ended(pair.world.clock.now()))
    heard = [_told(client.get(path)) for client in pair.both]
    assert heard[0] == heard[1]
    assert heard[0][: len(before)] == before
    assert [one["payload"]["state"] for one in heard[0][len(before) :]] == ["stopping", "cancelled"]


def _told(answer: Response) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_a_login_link_of_one_service_works_once_at_either_and_its_session_at_both(pair: Pair) -> None:
    link = pair.one.post("/v1/login-links").json()["url"]
    for client in pair.both:
        del client.headers["Authorization"]
    assert pair.two.get(link, follow_redirects=False).status_code == 303
    assert pair.one.get(link, follow_redirects=False).status_code == 403
    cookie = {"Cookie": f"tuneyard_session={pair.two.cookies['tuneyard_session']}"}
    assert [client.get("/v1/studies", headers=cookie).status_code for client in pair.both] == [200, 200]
    assert pair.two.post("/logout", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 204
    assert [client.get("/v1/studies", headers=cookie).status_code for client in pair.both] == [401, 401]
