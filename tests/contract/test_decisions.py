"""The contract of what belongs to decisions: the reasons for them, what users ask for, and what a study knows from the start."""

import math
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from search_spaces import Configuration
from service.domain.decision import Decision
from service.domain.errors import (
    ConfigurationKnown,
    IdempotencyConflict,
    StaleWrite,
    StudyEnded,
    StudyNotFound,
    TooManyRequests,
    TrialNotFound,
)
from service.domain.events import Event, EventKind
from service.domain.history import PriorTrial
from service.domain.ports import Change, IdempotencyKey, Store, TrialTotals
from service.domain.study import StudyReason, WarmStart
from service.domain.trial import TrialRequest, TrialState
from tests.builders import NOW, a_report, a_study, a_trial
from tests.contract.conftest import DRIVER, at_once, end, has_study, has_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"
KEY = IdempotencyKey("a-key", "a" * 64)
PROPOSED = Decision(
    "proposed", "tpe", report=3, bracket=0, observations=12, parent=4, incumbent=7, incumbent_value=0.1 + 0.2, rung=0
)
CUT = Decision("cut", "hyperband", report=1, rung=0, value=-1e300, rank=9, among=9, cut=math.inf)
PRIOR = PriorTrial("older-def456", 7, {"learning_rate": 0.1 + 0.2}, (0.5, math.inf, 5e-324), is_whole=True)


def asked(rate: float) -> Configuration:
    return {"learning_rate": rate}


def prior(store: Store, study_id: str = STUDY) -> list[PriorTrial]:
    return list(store.trials.history(study_id).prior)


def test_decisions_are_read_back_as_they_were_made_with_when_and_in_order(store: Store, clock: FakeClock) -> None:
    has_study(store)
    store.trials.record(DRIVER, [Change(a_trial(), decision=PROPOSED)])
    clock.pass_seconds(9)
    store.trials.record(DRIVER, [Change(a_trial()), Change(a_trial(), decision=CUT), Change(a_trial(), decision=PROPOSED)])
    later = NOW + timedelta(seconds=9)
    assert store.trials.decisions(STUDY, 0) == [(NOW, PROPOSED), (later, CUT), (later, PROPOSED)]


def test_a_decision_belongs_to_its_trial(store: Store) -> None:
    study = has_study(store)
    store.trials.record(DRIVER, [Change(a_trial(0), decision=PROPOSED), Change(a_trial(1), decision=CUT)])
    has_trial(store, study, 2)
    assert [[one for _, one in store.trials.decisions(STUDY, number)] for number in range(3)] == [[PROPOSED], [CUT], []]


def test_decisions_of_what_is_not_there_are_not_found(store: Store) -> None:
    with pytest.raises(StudyNotFound):
        store.trials.decisions(STUDY, 0)
    has_study(store)
    with pytest.raises(TrialNotFound):
        store.trials.decisions(STUDY, 0)


def test_a_copy_counts_its_reports_on_from_its_parents(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0, [0.1, 0.2])
    copy = a_trial(1, parent=0, parent_report=2, reports=2, state=TrialState.RUNNING)
    store.trials.record(DRIVER, [Change(copy)])
    assert 1 not in store.trials.history(STUDY).values
    report = a_report(3, 0.3)
    store.trials.record(DRIVER, [Change(copy.reported(report, study.definition.objective, 0), report=report)])
    history = store.trials.history(STUDY)
    assert history.values[0] == (0.1, 0.2)
    assert [math.isnan(value) for value in history.values[1][:2]] == [True, True]
    assert history.values[1][2:] == (0.3,)
    assert store.trials.totals([STUDY]) == {STUDY: TrialTotals(reports=3, gpu_seconds=2.0, trials=2)}
    assert history.spending(study, NOW).epochs == 4  # one of them has trial 0 still to give


def test_what_was_asked_for_comes_in_order_and_is_told(store: Store) -> None:
    has_study(store)
    first = store.trials.request(STUDY, asked(1e-3), NOW)
    second = store.trials.request(STUDY, asked(0.001 + 1e-18), NOW + timedelta(seconds=1))
    assert (first, second.number) == (TrialRequest(1, asked(1e-3), NOW), 2)
    assert store.trials.requests(STUDY) == [first, second]
    assert list(store.trials.history(STUDY).requested) == [first.parameters, second.parameters]
    payload = {"request": 1, "parameters": asked(1e-3)}
    assert store.events.after(STUDY, 1, limit=1) == [Event(EventKind.TRIAL_REQUESTED, STUDY, NOW, payload, 2)]


def test_only_the_requests_after_a_number_are_read_when_asked_so(store: Store) -> None:
    has_study(store)
    first, second, third = (store.trials.request(STUDY, asked(rate), NOW) for rate in (1e-3, 2e-3, 3e-3))
    assert [one.number for one in (first, second, third)] == [1, 2, 3]
    assert store.trials.requests(STUDY, after=1) == [second, third]
    assert store.trials.requests(STUDY, after=3) == []


def test_a_request_is_a_change_of_the_study(store: Store) -> None:
    study = has_study(store)
    store.trials.request(STUDY, asked(1e-3), NOW)
    with pytest.raises(StaleWrite):
        store.studies.save(study.stopping(StudyReason.STOP_REQUESTED))


def test_a_study_takes_only_so_many_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.store.requests.MOST_REQUESTS", 1)
    has_study(store)
    store.trials.request(STUDY, asked(1e-3), NOW)
    with pytest.raises(TooManyRequests):
        store.trials.request(STUDY, asked(2e-3), NOW)


def test_a_study_without_requests_has_none_and_an_unknown_one_is_not_found(store: Store) -> None:
    for ask in (partial(store.trials.requests, STUDY), partial(store.trials.request, STUDY, asked(1e-3), NOW)):
        with pytest.raises(StudyNotFound):
            ask()
    has_study(store)
    assert store.trials.requests(STUDY) == []


def test_the_same_key_and_body_ask_for_one_trial_also_when_it_was_tried_since(store: Store) -> None:
    study = has_study(store)
    first = store.trials.request(STUDY, asked(1e-3), NOW, KEY)
    has_trial(store, study, 0)
    end(store)
    assert store.trials.request(STUDY, asked(1e-3), NOW + timedelta(seconds=9), KEY) == first
    assert store.trials.requests(STUDY) == [first]


def test_the_same_key_with_another_body_is_refused_and_asks_for_nothing(store: Store) -> None:
    has_study(store)
    store.trials.request(STUDY, asked(1e-3), NOW, KEY)
    with pytest.raises(IdempotencyConflict, match="every new trial"):
        store.trials.request(STUDY, asked(1e-4), NOW, replace(KEY, body_sha256="b" * 64))
    assert len(store.trials.requests(STUDY)) == 1


def test_a_key_belongs_to_one_study(store: Store) -> None:
    for study_id in (STUDY, "other"):
        has_study(store, study_id)
        assert store.trials.request(study_id, asked(1e-3), NOW, KEY).number == 1


def test_what_was_tried_or_asked_for_cannot_be_asked_for_again(store: Store) -> None:
    study = has_study(store, initial=[asked(1e-4)])
    store.trials.request(STUDY, asked(1e-3), NOW)
    has_trial(store, study, 0, parameters=asked(2e-3))
    before = store.events.after(STUDY, 0)
    for rate in (1e-3, 1e-4, 2e-3):
        with pytest.raises(ConfigurationKnown):
            store.trials.request(STUDY, asked(rate), NOW)
    assert store.events.after(STUDY, 0) == before
    assert store.trials.request(STUDY, asked(3e-3), NOW).number == 2


def test_of_the_same_request_at_the_same_time_one_is_remembered(store: Store) -> None:
    has_study(store)
    outcomes = at_once(*[lambda: store.trials.request(STUDY, asked(1e-3), NOW)] * 3)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["ConfigurationKnown"] * 2 + ["TrialRequest"]


def test_a_study_that_stops_or_has_ended_can_be_asked_for_nothing(store: Store) -> None:
    study = has_study(store)
    stopping = store.studies.save(study.stopping(StudyReason.STOP_REQUESTED))
    for _ in range(2):
        with pytest.raises(StudyEnded, match=r"stopp(ing|ed)"):
            store.trials.request(STUDY, asked(1e-3), NOW)
        if not store.studies.get(STUDY).state.is_end:
            store.studies.save(stopping.ended(NOW))


def test_a_request_needs_no_lease(store: Store) -> None:
    store.studies.add(a_study())
    assert store.trials.request(STUDY, asked(1e-3), NOW).number == 1


def test_a_study_keeps_what_it_knows_of_earlier_ones_in_order(store: Store) -> None:
    known = [PRIOR, replace(PRIOR, number=3, is_whole=False, values=()), replace(PRIOR, study_id="oldest")]
    study = replace(a_study(), warm_start=WarmStart(3, {"out of range": 2}))
    assert store.studies.add(study, prior=known) == study
    assert store.studies.get(STUDY).warm_start == WarmStart(3, {"out of range": 2})
    assert prior(store) == known
    store.studies.add(a_study("other"))
    assert (prior(store, "other"), store.studies.get("other").warm_start) == ([], None)


def test_what_a_study_knows_outlives_the_studies_that_it_came_from(store: Store) -> None:
    has_study(store, PRIOR.study_id)
    end(store, PRIOR.study_id)
    store.studies.add(a_study(), prior=[PRIOR])
    store.studies.delete(PRIOR.study_id)
    assert prior(store) == [PRIOR]


def test_a_repeated_request_for_a_study_stores_what_it_knows_once(store: Store) -> None:
    for _ in range(2):
        store.studies.add(a_study(), KEY, prior=[PRIOR])
    assert prior(store) == [PRIOR]


def test_a_deleted_study_leaves_no_decisions_requests_or_knowledge(store: Store) -> None:
    def left() -> list[int]:
        return [len(store.trials.decisions(STUDY, 0)), len(store.trials.requests(STUDY)), len(prior(store))]

    store.studies.add(a_study(), prior=[PRIOR])
    assert store.leases.acquire(STUDY, DRIVER, NOW, timedelta(days=1))
    store.trials.record(DRIVER, [Change(a_trial(), decision=PROPOSED)])
    store.trials.request(STUDY, asked(1e-4), NOW, KEY)
    end(store)
    assert left() == [1, 1, 1]
    store.studies.delete(STUDY)
    has_trial(store, has_study(store))
    assert left() == [0, 0, 0]
