"""The contract of `LeadershipStore`, and what the store refuses a controller that does not lead."""

from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from service.domain.errors import LeadershipLost
from service.domain.ports import Store
from service.store.sql import open_store
from service.store.versions import upgrade
from tests.builders import NOW, a_study
from tests.contract.conftest import POSTGRESQL, at_once

MINUTE = timedelta(minutes=1)
FIRST, SECOND = "controller-one-1-1", "controller-two-1-1"


@pytest.fixture
def led(store: Store) -> Store:
    """A store of which `FIRST` leads for a minute."""
    assert store.leadership.acquire(FIRST, NOW, MINUTE)
    return store


def test_nobody_leads_at_first(store: Store) -> None:
    assert store.leadership.holder(NOW) is None


def test_who_takes_the_lead_has_it_until_it_runs_out(led: Store) -> None:
    assert led.leadership.holder(NOW) == FIRST
    assert led.leadership.holder(NOW + MINUTE - timedelta.resolution) == FIRST
    assert led.leadership.holder(NOW + MINUTE) is None


@pytest.mark.parametrize("seconds", [0, 59.999999])
def test_the_lead_of_another_is_not_taken_and_not_prolonged(led: Store, seconds: float) -> None:
    assert not led.leadership.acquire(SECOND, NOW + timedelta(seconds=seconds), timedelta(hours=1))
    assert led.leadership.holder(NOW + MINUTE - timedelta.resolution) == FIRST
    assert led.leadership.holder(NOW + MINUTE) is None


def test_a_lead_that_ran_out_is_taken_by_another_and_kept_from_the_first(led: Store) -> None:
    assert led.leadership.acquire(SECOND, NOW + MINUTE, MINUTE)
    assert not led.leadership.acquire(FIRST, NOW + MINUTE, MINUTE)
    assert led.leadership.holder(NOW + MINUTE) == SECOND


def test_who_leads_renews_it_also_after_it_ran_out(led: Store) -> None:
    assert led.leadership.acquire(FIRST, NOW + MINUTE / 2, MINUTE)
    assert not led.leadership.acquire(SECOND, NOW + MINUTE, MINUTE)
    assert led.leadership.acquire(FIRST, NOW + 3 * MINUTE, MINUTE)
    assert led.leadership.holder(NOW + 3 * MINUTE) == FIRST


def test_a_lead_that_was_given_back_is_free_at_once(led: Store) -> None:
    led.leadership.release(FIRST)
    assert led.leadership.holder(NOW) is None
    assert led.leadership.acquire(SECOND, NOW, MINUTE)


def test_nobody_gives_back_what_another_has(led: Store) -> None:
    led.leadership.release(SECOND)
    assert led.leadership.holder(NOW) == FIRST


@pytest.mark.parametrize("is_expired", [False, True])
def test_of_controllers_at_the_same_time_one_leads(store: Store, *, is_expired: bool) -> None:
    for _ in range(5):
        if is_expired:
            assert store.leadership.acquire("controller-gone-1-1", NOW - MINUTE, MINUTE)
        owners = [f"controller-{number}-1-1" for number in range(4)]
        taken = at_once(*(partial(store.leadership.acquire, owner, NOW, MINUTE) for owner in owners))
        assert sorted(map(str, taken)) == ["False", "False", "False", "True"]
        leader = owners[taken.index(True)]
        assert store.leadership.holder(NOW) == leader
        store.leadership.release(leader)


@pytest.fixture(params=["sqlite", POSTGRESQL])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    file = f"sqlite:///{tmp_path / 'tuneyard.db'}"
    found: str = file if request.param == "sqlite" else request.getfixturevalue("empty_postgresql")
    upgrade(found)
    return found


def test_only_the_controller_that_leads_writes(url: str) -> None:
    first, second, anybody = open_store(url, leader=FIRST), open_store(url, leader=SECOND), open_store(url)
    with pytest.raises(LeadershipLost):
        first.studies.add(a_study("never-aaaaaa"))
    assert first.leadership.acquire(FIRST, NOW, MINUTE)
    first.studies.add(a_study("first-aaaaaa"))
    with pytest.raises(LeadershipLost):
        second.studies.add(a_study("never-aaaaaa"))
    assert second.studies.get("first-aaaaaa").created_at == NOW, "who does not lead reads"
    anybody.studies.add(a_study("another-aaaaaa"))


def test_a_controller_that_was_stopped_and_wakes_up_writes_nothing_once_another_leads(url: str) -> None:
    first, second = open_store(url, leader=FIRST), open_store(url, leader=SECOND)
    assert first.leadership.acquire(FIRST, NOW, MINUTE)
    assert second.leadership.acquire(SECOND, NOW + MINUTE, MINUTE)
    with pytest.raises(LeadershipLost):
        first.studies.add(a_study())
    second.leadership.release(SECOND)
    with pytest.raises(LeadershipLost):
        first.studies.add(a_study())
