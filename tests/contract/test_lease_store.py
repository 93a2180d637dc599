"""The contract of `LeaseStore`."""

from datetime import timedelta
from functools import partial

import pytest

from service.domain.ports import Store
from tests.builders import NOW, a_study
from tests.contract.conftest import at_once, end

STUDY = "intents-abc123"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def leased(store: Store) -> Store:
    """A store with a study that `driver-1` holds for a minute."""
    store.studies.add(a_study())
    assert store.leases.acquire(STUDY, "driver-1", NOW, MINUTE)
    return store


def test_a_free_lease_is_taken(leased: Store) -> None:
    assert leased.leases.holders(NOW) == {STUDY: "driver-1"}


def test_nobody_holds_a_study_that_was_just_added(store: Store) -> None:
    store.studies.add(a_study())
    assert store.leases.holders(NOW) == {}


@pytest.mark.parametrize("seconds", [0, 59.999999])
def test_a_lease_that_another_holds_is_not_taken(leased: Store, seconds: float) -> None:
    moment = NOW + timedelta(seconds=seconds)
    assert not leased.leases.acquire(STUDY, "driver-2", moment, MINUTE)
    assert leased.leases.holders(moment) == {STUDY: "driver-1"}


def test_an_attempt_to_take_it_does_not_prolong_the_holders_lease(leased: Store) -> None:
    assert not leased.leases.acquire(STUDY, "driver-2", NOW, timedelta(hours=1))
    assert leased.leases.holders(NOW + MINUTE) == {}


def test_a_lease_is_held_until_it_runs_out(leased: Store) -> None:
    assert leased.leases.holders(NOW + MINUTE - timedelta.resolution) == {STUDY: "driver-1"}
    assert leased.leases.holders(NOW + MINUTE) == {}


def test_a_lease_that_ran_out_is_taken_by_another(leased: Store) -> None:
    assert leased.leases.acquire(STUDY, "driver-2", NOW + MINUTE, MINUTE)
    assert leased.leases.holders(NOW + MINUTE) == {STUDY: "driver-2"}
    assert not leased.leases.acquire(STUDY, "driver-1", NOW + MINUTE, MINUTE)


def test_the_holder_renews_its_lease(leased: Store) -> None:
    assert leased.leases.acquire(STUDY, "driver-1", NOW + MINUTE / 2, MINUTE)
    assert leased.leases.holders(NOW + MINUTE) == {STUDY: "driver-1"}
    assert not leased.leases.acquire(STUDY, "driver-2", NOW + MINUTE, MINUTE)
    assert leased.leases.holders(NOW + MINUTE * 1.5) == {}


def test_the_holder_renews_a_lease_that_ran_out_and_that_nobody_took(leased: Store) -> None:
    assert leased.leases.acquire(STUDY, "driver-1", NOW + 2 * MINUTE, MINUTE)
    assert leased.leases.holders(NOW + 2 * MINUTE) == {STUDY: "driver-1"}


def test_a_lease_that_was_given_up_is_free(leased: Store) -> None:
    leased.leases.release(STUDY, "driver-1")
    assert leased.leases.holders(NOW) == {}
    assert leased.leases.acquire(STUDY, "driver-2", NOW, MINUTE)


def test_nobody_gives_up_anothers_lease(leased: Store) -> None:
    leased.leases.release(STUDY, "driver-2")
    assert leased.leases.holders(NOW) == {STUDY: "driver-1"}


def test_to_give_up_what_one_does_not_hold_does_no_harm(store: Store) -> None:
    store.leases.release("unknown", "driver-1")
    assert store.leases.holders(NOW) == {}


def test_there_is_no_lease_of_an_unknown_study(store: Store) -> None:
    assert not store.leases.acquire("unknown", "driver-1", NOW, MINUTE)
    assert store.leases.holders(NOW) == {}


def test_each_study_has_a_lease_of_its_own(leased: Store) -> None:
    leased.studies.add(a_study("other"))
    assert leased.leases.acquire("other", "driver-2", NOW, 2 * MINUTE)
    assert leased.leases.holders(NOW) == {STUDY: "driver-1", "other": "driver-2"}
    assert leased.leases.holders(NOW + MINUTE) == {"other": "driver-2"}


def test_the_end_of_a_study_does_not_end_its_lease(leased: Store) -> None:
    end(leased)
    assert leased.leases.holders(NOW) == {STUDY: "driver-1"}


@pytest.mark.parametrize("is_expired", [False, True])
def test_of_drivers_at_the_same_time_one_takes_the_lease(store: Store, *, is_expired: bool) -> None:
    for turn in range(5):
        study_id = f"study-{turn}"
        store.studies.add(a_study(study_id))
        if is_expired:
            store.leases.acquire(study_id, "gone", NOW - MINUTE, MINUTE)
        owners = [f"driver-{number}" for number in range(4)]
        taken = at_once(*(partial(store.leases.acquire, study_id, owner, NOW, MINUTE) for owner in owners))
        assert sorted(map(str, taken)) == ["False", "False", "False", "True"]
        assert store.leases.holders(NOW)[study_id] == owners[taken.index(True)]


def test_a_driver_that_asks_twice_at_the_same_time_takes_it_twice(store: Store) -> None:
    for turn in range(5):
        store.studies.add(a_study(f"study-{turn}"))
        assert at_once(*[partial(store.leases.acquire, f"study-{turn}", "driver-1", NOW, MINUTE)] * 3) == [True] * 3
