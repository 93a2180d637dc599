"""The contract of `AccessStore`."""

from datetime import timedelta
from functools import partial

import pytest

from service.domain.ports import Store
from tests.builders import NOW
from tests.contract.conftest import at_once
from tests.fakes import FakeClock

CODE, OTHER = "a" * 64, "b" * 64
MINUTE = timedelta(minutes=1)


def test_a_login_code_works_once(store: Store) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE)
    assert [store.access.use_login_code(CODE, NOW) for _ in range(3)] == [True, False, False]


def test_a_login_code_that_never_was_does_not_work(store: Store) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE)
    assert not store.access.use_login_code(OTHER, NOW)
    assert not store.access.use_login_code("", NOW)
    assert store.access.use_login_code(CODE, NOW)


@pytest.mark.parametrize(("after", "works"), [(MINUTE - timedelta.resolution, True), (MINUTE, False), (2 * MINUTE, False)])
def test_a_login_code_works_until_it_runs_out(store: Store, after: timedelta, *, works: bool) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE)
    assert store.access.use_login_code(CODE, NOW + after) is works


def test_of_several_uses_of_a_login_code_at_the_same_time_one_works(store: Store) -> None:
    for turn in range(10):
        code = f"{turn:064}"
        store.access.add_login_code(code, NOW + MINUTE)
        uses = at_once(*[partial(store.access.use_login_code, code, NOW)] * 4)
        assert sorted(map(str, uses)) == ["False", "False", "False", "True"]


def test_codes_are_added_at_the_same_time(store: Store) -> None:
    for turn in range(5):
        store.access.add_login_code(f"old-{turn}", NOW)
        codes = [f"{turn}-{number}" for number in range(4)]
        added = at_once(*(partial(store.access.add_login_code, code, NOW + MINUTE) for code in codes))
        assert added == [None] * 4
        assert all(store.access.use_login_code(code, NOW) for code in codes)


@pytest.mark.parametrize(("after", "is_there"), [(MINUTE - timedelta.resolution, True), (MINUTE, False), (2 * MINUTE, False)])
def test_a_session_lives_until_it_runs_out(store: Store, after: timedelta, *, is_there: bool) -> None:
    store.access.add_session(CODE, NOW + MINUTE)
    assert store.access.has_session(CODE, NOW + after) is is_there


def test_a_session_is_there_however_often_it_is_asked_for(store: Store) -> None:
    store.access.add_session(CODE, NOW + MINUTE)
    assert [store.access.has_session(CODE, NOW) for _ in range(3)] == [True] * 3
    assert not store.access.has_session(OTHER, NOW)


def test_a_deleted_session_is_gone_and_others_are_not(store: Store) -> None:
    for session in (CODE, OTHER):
        store.access.add_session(session, NOW + MINUTE)
    store.access.delete_session(CODE)
    assert (store.access.has_session(CODE, NOW), store.access.has_session(OTHER, NOW)) == (False, True)


def test_to_delete_a_session_that_is_not_there_does_no_harm(store: Store) -> None:
    store.access.delete_session(CODE)
    assert not store.access.has_session(CODE, NOW)


def test_a_code_is_no_session_and_a_session_no_code(store: Store) -> None:
    store.access.add_login_code(CODE, NOW + MINUTE)
    store.access.add_session(OTHER, NOW + MINUTE)
    assert not store.access.has_session(CODE, NOW)
    assert not store.access.use_login_code(OTHER, NOW)


def test_what_has_run_out_is_forgotten_and_what_has_not_is_kept(store: Store, clock: FakeClock) -> None:
    for add in (store.access.add_login_code, store.access.add_session):
        add("old", clock.now() + MINUTE)
        add("fresh", clock.now() + 3 * MINUTE)
    clock.pass_seconds(60)
    for add in (store.access.add_login_code, store.access.add_session):
        add("new", clock.now() + MINUTE)
        add("old", clock.now() + MINUTE)
    assert all(store.access.has_session(session, clock.now()) for session in ("fresh", "new", "old"))
    assert all(store.access.use_login_code(code, clock.now()) for code in ("fresh", "new", "old"))
