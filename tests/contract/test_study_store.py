"""The contract of `StudyStore`."""

import base64
import json
import string
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.errors import (
    IdempotencyConflict,
    InvalidQuery,
    LeaseLost,
    StaleWrite,
    StudyNotFound,
    StudyStillActive,
)
from service.domain.ports import Change, IdempotencyKey, MirroredTrial, Store, StudyQuery
from service.domain.study import Study, StudyReason, StudyState
from tests.builders import NOW, a_study, a_trial
from tests.contract.conftest import DRIVER, at_once, end, has_study, has_trial

STUDY = "intents-abc123"
KEY = IdempotencyKey("a-key", "a" * 64)
ORDERS = ["created_at", "-created_at", "name", "-name"]


def a_cursor(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def ids(store: Store, query: StudyQuery) -> list[str]:
    return [study.id for study in store.studies.find(query).items]


def pages(store: Store, query: StudyQuery) -> list[list[str]]:
    """The ids on each page, from the first to the last."""
    found = []
    while True:
        page = store.studies.find(query)
        found.append([study.id for study in page.items])
        if page.cursor is None:
            return found
        query = replace(query, cursor=page.cursor)


def has_many(store: Store) -> list[Study]:
    """Nine studies, of which always three share their name and three others their time."""
    return [
        store.studies.add(a_study(f"study-{number}", NOW + timedelta(microseconds=number % 3), name=f"name {number // 3}"))
        for number in (4, 0, 8, 3, 7, 2, 6, 1, 5)
    ]


def test_what_was_added_is_read_back_as_it_was(store: Store) -> None:
    study = a_study(
        budget={"wall_clock": "1h30m", "target": 0.1 + 0.2},
        space={"batch_size": {"kind": "categorical", "choices": [16, 32]}, "dropout": {"kind": "float", "low": 0, "high": 0.3}},
    )
    assert store.studies.add(study) == study
    assert store.studies.get(STUDY) == study


def test_every_field_survives_a_save(store: Store) -> None:
    moment = datetime(2031, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
    running = store.studies.save(store.studies.add(a_study()).running(moment))
    stopping = store.studies.save(running.stopping(StudyReason.DRIVER_FAILED, "It said: “disk full” 💥\n"))
    ended = store.studies.save(stopping.ended(moment))
    assert ended == replace(stopping.ended(moment), version=3)
    assert store.studies.get(STUDY) == ended


def test_an_unknown_study_is_not_found(store: Store) -> None:
    with pytest.raises(StudyNotFound):
        store.studies.get(STUDY)
    with pytest.raises(StudyNotFound):
        store.studies.save(a_study())
    with pytest.raises(StudyNotFound):
        store.studies.delete(STUDY)


def test_the_same_key_and_body_give_the_study_that_was_stored_first(store: Store) -> None:
    first = store.studies.add(a_study("first"), KEY)
    assert store.studies.add(a_study("second"), KEY) == first
    assert ids(store, StudyQuery()) == ["first"]


def test_the_study_of_a_key_is_given_as_it_is_now(store: Store) -> None:
    running = store.studies.save(store.studies.add(a_study(), KEY).running(NOW))
    assert store.studies.add(a_study("second"), KEY) == running


def test_the_same_key_with_another_body_is_refused(store: Store) -> None:
    store.studies.add(a_study("first"), KEY)
    with pytest.raises(IdempotencyConflict):
        store.studies.add(a_study("second"), replace(KEY, body_sha256="b" * 64))
    assert ids(store, StudyQuery()) == ["first"]


def test_the_study_of_a_key_is_found_as_it_is_now_and_gone_once_it_is_deleted(store: Store) -> None:
    assert store.studies.with_key(KEY) is None
    running = store.studies.save(store.studies.add(a_study(), KEY).running(NOW))
    assert store.studies.with_key(KEY) == running
    assert store.studies.with_key(replace(KEY, key="another")) is None
    with pytest.raises(IdempotencyConflict):
        store.studies.with_key(replace(KEY, body_sha256="b" * 64))
    end(store)
    store.studies.delete(running.id)
    assert store.studies.with_key(KEY) is None


def test_other_keys_and_no_key_make_other_studies(store: Store) -> None:
    store.studies.add(a_study("first"), KEY)
    store.studies.add(a_study("second"), replace(KEY, key="another"))
    store.studies.add(a_study("third"))
    assert len(ids(store, StudyQuery())) == 3


def test_of_two_requests_with_one_key_at_the_same_time_one_makes_a_study_that_both_get(store: Store) -> None:
    for turn in range(10):
        key = replace(KEY, key=f"key-{turn}")
        one, other = at_once(*(partial(store.studies.add, a_study(f"{name}-{turn}"), key) for name in ("a", "b")))
        assert one == other
        assert isinstance(one, Study)
    assert len(ids(store, StudyQuery())) == 10


def test_of_two_bodies_with_one_key_at_the_same_time_one_is_refused(store: Store) -> None:
    first, second = (lambda body=body: store.studies.add(a_study(body), IdempotencyKey("one", body * 64)) for body in "ab")
    outcomes = at_once(first, second)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["IdempotencyConflict", "Study"]


def test_a_save_counts_the_version(store: Store) -> None:
    study = store.studies.add(a_study())
    assert study.version == 0
    running = store.studies.save(study.running(NOW))
    assert (running.version, running.state) == (1, StudyState.RUNNING)
    assert store.studies.save(running.stopping(StudyReason.STOP_REQUESTED)).version == 2


def test_the_second_of_two_writers_is_refused_and_changes_nothing(store: Store) -> None:
    first = second = store.studies.add(a_study())
    saved = store.studies.save(first.running(NOW))
    with pytest.raises(StaleWrite):
        store.studies.save(second.stopping(StudyReason.CANCEL_REQUESTED))
    assert store.studies.get(STUDY) == saved
    assert len(store.events.after(STUDY, 0)) == 2


def test_of_writers_at_the_same_time_exactly_one_is_let_through(store: Store) -> None:
    study = store.studies.add(a_study())
    outcomes = at_once(*[lambda: store.studies.save(study.running(NOW))] * 4)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["StaleWrite"] * 3 + ["Study"]
    assert store.studies.get(STUDY).version == 1


def test_the_newest_studies_come_first(store: Store) -> None:
    for number in range(3):
        store.studies.add(a_study(f"study-{number}", NOW + timedelta(seconds=number)))
    assert ids(store, StudyQuery()) == ["study-2", "study-1", "study-0"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [1, 4, 9])
def test_pages_hold_every_study_once_and_in_order(store: Store, order: str, limit: int) -> None:
    studies = has_many(store)
    query = StudyQuery(order=order, limit=limit)  # type: ignore[arg-type]
    found = pages(store, query)
    by_name = order.endswith("name")
    keys = {study.id: study.definition.name if by_name else study.created_at.isoformat() for study in studies}
    expected = sorted(keys, key=lambda study_id: (keys[study_id], study_id), reverse=order.startswith("-"))
    assert [study_id for page in found for study_id in page] == expected
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1]


@pytest.mark.parametrize("order", ORDERS)
def test_a_study_that_comes_or_goes_between_two_pages_moves_no_other(store: Store, order: str) -> None:
    has_many(store)
    query = StudyQuery(order=order, limit=4)  # type: ignore[arg-type]
    first = store.studies.find(query)
    rest = ids(store, replace(query, limit=50, cursor=first.cursor))
    end(store, first.items[0].id)
    store.studies.delete(first.items[0].id)
    assert ids(store, replace(query, limit=50, cursor=first.cursor)) == rest


def test_an_empty_store_has_one_empty_page(store: Store) -> None:
    assert pages(store, StudyQuery()) == [[]]


def test_studies_are_found_by_state(store: Store) -> None:
    for number in range(3):
        store.studies.add(a_study(f"study-{number}"))
    store.studies.save(store.studies.get("study-1").running(NOW))
    end(store, "study-2")
    assert ids(store, StudyQuery(states=frozenset({StudyState.RUNNING}))) == ["study-1"]
    assert ids(store, StudyQuery(states=frozenset({StudyState.QUEUED, StudyState.COMPLETED}))) == ["study-2", "study-0"]
    assert ids(store, StudyQuery(states=frozenset({StudyState.FAILED}))) == []


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("banking", ["study-0"]),
        ("BANK", ["study-0"]),
        ("s", ["study-0", "study-1"]),
        ("g_i", ["study-1"]),
        ("%", []),
        ("\\", []),
        ("ß", []),
        ("", ["study-0", "study-1", "study-2"]),
    ],
)
def test_studies_are_found_by_a_part_of_their_name(store: Store, part: str, expected: list[str]) -> None:
    for number, name in enumerate(["Banking intents", "g_is", "gxia"]):
        store.studies.add(a_study(f"study-{number}", name=name))
    assert ids(store, StudyQuery(name=part, order="created_at")) == expected


def test_filters_hold_on_every_page(store: Store) -> None:
    has_many(store)
    assert pages(store, StudyQuery(name="NAME 1", order="name", limit=2)) == [["study-3", "study-4"], ["study-5"]]


@pytest.mark.parametrize("cursor", ["", "nonsense", "ä", "e30", a_cursor(), a_cursor("number", 1), a_cursor({}), "W" * 5000])
def test_a_cursor_that_is_none_of_ours_is_refused(store: Store, cursor: str) -> None:
    for order in ORDERS:
        with pytest.raises(InvalidQuery):
            store.studies.find(StudyQuery(order=order, cursor=cursor))  # type: ignore[arg-type]


def test_a_cursor_of_another_order_is_refused(store: Store) -> None:
    has_many(store)
    for order in ORDERS:
        cursor = store.studies.find(StudyQuery(order=order, limit=2)).cursor  # type: ignore[arg-type]
        for other in set(ORDERS) - {order}:
            with pytest.raises(InvalidQuery):
                store.studies.find(StudyQuery(order=other, cursor=cursor))  # type: ignore[arg-type]


_PARTS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["\x00", "\ud800", 2**31, 2**62, -(10**18)])
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(order=st.sampled_from(ORDERS), parts=st.lists(_PARTS, min_size=1, max_size=3))
def test_a_forged_cursor_is_refused_or_gives_a_page(store: Store, order: str, parts: list[object]) -> None:
    with suppress(InvalidQuery):
        store.studies.find(StudyQuery(order=order, cursor=a_cursor(order, *parts)))  # type: ignore[arg-type]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.text() | st.text(string.printable + "\x00\ud800"))
def test_any_text_may_be_looked_for_in_names(store: Store, name: str) -> None:
    assert ids(store, StudyQuery(name=name)) == []


def test_a_deleted_study_is_gone_with_all_that_belongs_to_it(store: Store) -> None:
    other, study = has_study(store, "other"), has_study(store)
    for each in (other, study):
        has_trial(store, each, values=[0.5, 0.6])
        store.mirror.set_experiment(each.id, "7")
        store.mirror.set_mirrored([MirroredTrial(each.id, 0, "run")])
    end(store)
    store.studies.delete(STUDY)
    with pytest.raises(StudyNotFound):
        store.studies.get(STUDY)
    with pytest.raises(StudyNotFound):
        store.trials.get(STUDY, 0)
    with pytest.raises(StudyNotFound):
        store.events.after(STUDY, 0)
    with pytest.raises(LeaseLost):
        store.trials.record(DRIVER, [Change(a_trial(1))])
    assert store.leases.holders(NOW) == {"other": DRIVER}
    assert store.mirror.experiment(STUDY) is None
    assert store.mirror.mirrored(STUDY) == {}
    assert store.trials.counts([STUDY]) == {STUDY: {}}
    assert store.trials.get("other", 0).reports == 2


def test_the_id_and_the_key_of_a_deleted_study_are_free_again(store: Store) -> None:
    store.studies.add(a_study(), KEY)
    end(store)
    store.studies.delete(STUDY)
    again = store.studies.add(a_study(name="again"), replace(KEY, body_sha256="b" * 64))
    assert store.studies.get(STUDY) == again
    assert [event.id for event in store.events.after(STUDY, 0)] == [1]


@pytest.mark.parametrize("state", ["queued", "running", "stopping"])
def test_a_study_that_has_not_ended_is_not_deleted(store: Store, state: str) -> None:
    study = has_study(store)
    has_trial(store, study)
    if state == "running":
        store.studies.save(study.running(NOW))
    if state == "stopping":
        store.studies.save(study.stopping(StudyReason.CANCEL_REQUESTED))
    with pytest.raises(StudyStillActive):
        store.studies.delete(STUDY)
    assert store.studies.get(STUDY).state == state
    assert store.trials.get(STUDY, 0).number == 0
