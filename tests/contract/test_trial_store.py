"""The contract of `TrialStore`: reading. What `record` writes has its own file."""

import base64
import json
import math
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.errors import InvalidQuery, StudyNotFound, TrialNotFound
from service.domain.history import History
from service.domain.outcomes import Point
from service.domain.ports import Change, Store, TrialQuery, TrialTotals
from service.domain.trial import TrialState
from tests.builders import NOW, a_report, a_trial
from tests.contract.conftest import DRIVER, has_study, has_trial

STUDY = "intents-abc123"
ORDERS = ["number", "-number", "best_value", "-best_value"]
MINIMIZE = {"metric": "validation/loss", "direction": "minimize"}


def a_cursor(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


def numbers(store: Store, query: TrialQuery) -> list[int]:
    return [trial.number for trial in store.trials.find(STUDY, query).items]


def pages(store: Store, query: TrialQuery) -> list[list[int]]:
    """The numbers on each page, from the first to the last."""
    found = []
    while True:
        page = store.trials.find(STUDY, query)
        found.append([trial.number for trial in page.items])
        if page.cursor is None:
            return found
        query = replace(query, cursor=page.cursor)


def has_many(store: Store) -> None:
    """Eight trials with equal values among them, and three that have not reported."""
    study = has_study(store)
    for number, value in enumerate([0.5, None, -0.0, 0.25, 0.5, None, 0.0, 1 / 3, -1e300, math.inf, None]):
        has_trial(store, study, number, [] if value is None else [value])


IN_ORDER: dict[str, list[int]] = {
    "number": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10],
    "-number": [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0],
    "best_value": [8, 2, 6, 3, 7, 0, 4, 9, 1, 5, 10],
    "-best_value": [9, 0, 4, 7, 3, 2, 6, 8, 1, 5, 10],
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("limit", [1, 3, 11])
def test_pages_hold_every_trial_once_and_in_order_those_without_a_value_last(store: Store, order: Any, limit: int) -> None:
    has_many(store)
    found = pages(store, TrialQuery(order=order, limit=limit))
    assert [number for page in found for number in page] == IN_ORDER[order]
    assert all(len(page) == limit for page in found[:-1])
    assert found[-1]


def test_a_trial_that_reports_between_two_pages_moves_no_other(store: Store) -> None:
    study = has_study(store)
    for number in range(4):
        has_trial(store, study, number, [number / 10])
    first = store.trials.find(STUDY, TrialQuery(order="-best_value", limit=2))
    better = store.trials.get(STUDY, 3).reported(a_report(2, 0.9), study.definition.objective, gpus=0)
    store.trials.record(DRIVER, [Change(better)])
    assert numbers(store, TrialQuery(order="-best_value", limit=2, cursor=first.cursor)) == [1, 0]


def test_a_study_without_trials_has_one_empty_page(store: Store) -> None:
    has_study(store)
    assert [pages(store, TrialQuery(order=order)) for order in ("number", "best_value")] == [[[]], [[]]]


def test_trials_are_found_by_state_on_every_page(store: Store) -> None:
    study = has_study(store)
    for number in range(6):
        state = TrialState.RUNNING if number % 2 else TrialState.PAUSED
        store.trials.record(DRIVER, [Change(a_trial(number, study.id, state=state))])
    assert pages(store, TrialQuery(states=frozenset({TrialState.RUNNING}), limit=2)) == [[1, 3], [5]]
    assert len(numbers(store, TrialQuery(states=frozenset({TrialState.RUNNING, TrialState.PAUSED})))) == 6
    assert numbers(store, TrialQuery(states=frozenset({TrialState.FAILED}))) == []


def test_a_studys_trials_are_its_own(store: Store) -> None:
    has_trial(store, has_study(store, "other"), 7, [0.9])
    has_trial(store, has_study(store), 0, [0.1])
    best = store.trials.best(STUDY)
    assert numbers(store, TrialQuery()) == [0]
    assert best is not None
    assert best.number == 0
    with pytest.raises(TrialNotFound):
        store.trials.get(STUDY, 7)


@pytest.mark.parametrize("cursor", ["", "nonsense", "e30", a_cursor("name", "a"), a_cursor("number"), a_cursor("best_value", 1)])
def test_a_cursor_that_is_none_of_ours_is_refused(store: Store, cursor: str) -> None:
    has_study(store)
    for order in ORDERS:
        with pytest.raises(InvalidQuery):
            store.trials.find(STUDY, TrialQuery(order=order, cursor=cursor))  # type: ignore[arg-type]


def test_a_cursor_of_another_order_is_refused(store: Store) -> None:
    has_many(store)
    for order in ORDERS:
        cursor = store.trials.find(STUDY, TrialQuery(order=order, limit=2)).cursor  # type: ignore[arg-type]
        for other in set(ORDERS) - {order}:
            with pytest.raises(InvalidQuery):
                store.trials.find(STUDY, TrialQuery(order=other, cursor=cursor))  # type: ignore[arg-type]


@pytest.mark.parametrize("huge", [2**31, -(2**31) - 1, 2**63 - 1, 2**63, -(2**70)])
def test_a_forged_cursor_with_a_huge_number_is_refused_or_gives_a_page(store: Store, huge: int) -> None:
    has_study(store)
    for order, key in (("number", [huge]), ("-number", [huge]), ("best_value", [huge] * 3), ("-best_value", [huge] * 3)):
        query = TrialQuery(order=order, cursor=a_cursor(order, *key))  # type: ignore[arg-type]
        if abs(huge) < 2**63:
            assert numbers(store, query) == []
        else:
            with pytest.raises(InvalidQuery):
                store.trials.find(STUDY, query)


_PARTS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([2**31, 2**62, -(2**31) - 1])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(order=st.sampled_from(ORDERS), parts=st.lists(_PARTS, min_size=1, max_size=3))
def test_a_forged_cursor_is_refused_or_gives_a_page(store: Store, order: Any, parts: list[object]) -> None:
    if not store.leases.holders(NOW):
        has_study(store)
    with suppress(InvalidQuery):
        store.trials.find(STUDY, TrialQuery(order=order, cursor=a_cursor(order, *parts)))


def test_what_belongs_to_an_unknown_study_is_not_found(store: Store) -> None:
    for read in (store.trials.best, store.trials.history, lambda study_id: store.trials.find(study_id, TrialQuery())):
        with pytest.raises(StudyNotFound):
            read(STUDY)
    for of_trial in (store.trials.get, store.trials.reports, store.trials.attempts):
        with pytest.raises(StudyNotFound):
            of_trial(STUDY, 0)


@pytest.mark.parametrize("number", [1, 999_999_999])
def test_what_belongs_to_an_unknown_trial_is_not_found(store: Store, number: int) -> None:
    has_trial(store, has_study(store))
    for of_trial in (store.trials.get, store.trials.reports, store.trials.attempts):
        with pytest.raises(TrialNotFound):
            of_trial(STUDY, number)


def test_trials_are_counted_by_state_for_each_study(store: Store) -> None:
    for study_id, states in {"one": ["queued", "queued", "running"], "other": ["failed", "infeasible"], "none": []}.items():
        study = has_study(store, study_id)
        for number, state in enumerate(states):
            store.trials.record(DRIVER, [Change(a_trial(number, study.id, state=TrialState(state)))])
    assert store.trials.counts(iter(["one", "none", "unknown"])) == {
        "one": {TrialState.QUEUED: 2, TrialState.RUNNING: 1},
        "none": {},
        "unknown": {},
    }
    assert store.trials.counts([]) == {}


def test_the_reports_and_gpu_seconds_of_each_studys_trials_are_added_up(store: Store) -> None:
    for study_id, values in (("one", [[0.1, 0.2, 0.3], [], [0.4]]), ("two", [[0.5]]), ("none", [])):
        study = has_study(store, study_id)
        for number, each in enumerate(values):
            has_trial(store, study, number, each)
    assert store.trials.totals(iter(["one", "none", "unknown"])) == {
        "one": TrialTotals(4, sum(store.trials.get("one", number).gpu_seconds for number in range(3)), 3),
        "none": TrialTotals(0, 0.0),
        "unknown": TrialTotals(0, 0.0),
    }
    assert store.trials.totals([]) == {}


@pytest.mark.parametrize(
    ("objective", "values", "best"),
    [
        ({}, [0.1, 0.7, 0.3], 1),
        ({}, [0.7, 0.1, 0.7], 0),
        ({}, [None, -5.0, None], 1),
        ({}, [None, None], None),
        ({}, [], None),
        ({"objective": MINIMIZE}, [0.1, 0.7, 0.05], 2),
        ({"objective": MINIMIZE}, [0.5, 0.05, 0.05], 1),
        ({"objective": MINIMIZE}, [None, 0.0, -0.0], 1),
    ],
)
def test_the_best_trial_is_the_best_by_the_objective_and_the_earlier_of_equals(
    store: Store, objective: dict[str, Any], values: list[float | None], best: int | None
) -> None:
    study = has_study(store, **objective)
    for number, value in reversed(list(enumerate(values))):
        has_trial(store, study, number, [] if value is None else [value])
    found = store.trials.best(STUDY)
    assert (found and found.number) == best


def test_the_best_report_counts_and_not_the_last(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0, [0.9, 0.1])
    has_trial(store, study, 1, [0.8])
    found = store.trials.best(STUDY)
    assert found is not None
    assert (found.number, found.best_value, found.best_report, found.value) == (0, 0.9, 1, 0.1)


def test_the_best_trials_of_several_studies_are_found_at_once(store: Store) -> None:
    most, least, none = (has_study(store, name, **_objective(way)) for name, way in _WAYS.items())
    for study in (most, least):
        for number, value in enumerate([0.5, 0.9, 0.1]):
            has_trial(store, study, number, [value])
    found = store.trials.bests([most, least, none])
    assert {study_id: trial.number for study_id, trial in found.items()} == {most.id: 1, least.id: 2}


_WAYS = {"most-abc123": "maximize", "least-abc123": "minimize", "none-abc123": "maximize"}


def _objective(direction: str) -> dict[str, Any]:
    return {"objective": {"metric": "validation/loss", "direction": direction}}


def test_the_history_has_every_trial_and_the_objective_at_every_report(store: Store) -> None:
    study = has_study(store)
    for number, values in enumerate([[0.1 + 0.2, 0.5], [], [1 / 3]]):
        has_trial(store, study, number, values)
    trials = {number: store.trials.get(STUDY, number) for number in range(3)}
    seconds = {0: (2.0, 2.0), 2: (2.0,)}
    assert store.trials.history(STUDY) == History(trials, {0: (0.1 + 0.2, 0.5), 2: (1 / 3,)}, seconds=seconds)


def test_a_study_without_trials_has_an_empty_history(store: Store) -> None:
    has_study(store)
    assert store.trials.history(STUDY) == History()


def test_more_than_nine_reports_are_in_order(store: Store) -> None:
    has_trial(store, has_study(store), values=[number / 100 for number in range(12)], until=12)
    assert [report.number for report in store.trials.reports(STUDY, 0)] == list(range(1, 13))
    assert store.trials.history(STUDY).values[0] == tuple(number / 100 for number in range(12))


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [(0, None, [1, 2, 3]), (1, None, [2, 3]), (0, 2, [1, 2]), (1, 1, [2]), (3, None, []), (2**31 - 1, 5, []), (0, 99, [1, 2, 3])],
)
def test_reports_above_a_number_are_read_up_to_a_limit(store: Store, after: int, limit: int | None, expected: list[int]) -> None:
    has_trial(store, has_study(store), values=[0.1, 0.2, 0.3])
    assert [report.number for report in store.trials.reports(STUDY, 0, after, limit)] == expected


def test_the_history_holds_what_each_report_says_of_several_objectives_and_of_outcomes(store: Store) -> None:
    study = has_study(
        store,
        objectives=[
            {"metric": "validation/accuracy", "direction": "maximize"},
            {"metric": "validation/loss", "direction": "minimize"},
        ],
        outcomes=["train/loss <= 2"],
    )
    trial = has_trial(store, study).started(study.created_at)
    store.trials.record(DRIVER, [Change(trial)])
    for number, train in ((1, 1.0), (2, 3.0)):
        report = a_report(number, metrics={"validation/accuracy": 0.5, "validation/loss": 0.25, "train/loss": train})
        counts = study.definition.counts(report.metrics)
        trial = trial.reported(report, study.definition.objective, 0, counts=counts)
        store.trials.record(DRIVER, [Change(trial, report=report)])
    history = store.trials.history(study.id)
    assert history.values[0] == (0.5, 0.5)
    assert history.points[0] == (Point((0.5, 0.25), (1.0,), 0.0), Point((0.5, 0.25), (3.0,), 0.5))
    assert history.point_of(history.trials[0]) == (0.5, 0.25)


def test_the_history_of_one_objective_without_outcomes_holds_its_values_alone(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, values=[0.1, 0.2])
    assert store.trials.history(study.id).points == {}
