"""The contract of what a running study is told: who asked and what changed, and the trials that are to stop."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from service.domain.amending import amended
from service.domain.errors import StudyEnded, StudyNotFound, TrialNotFound
from service.domain.events import Event, EventKind
from service.domain.ports import Change, Store
from service.domain.study import Study, StudyReason
from service.domain.trial import TrialReason
from tests.builders import NOW, a_trial
from tests.contract.conftest import DRIVER, at_once, has_study, has_trial

STUDY = "intents-abc123"
LATER = NOW + timedelta(hours=1)


def of_kind(store: Store, kind: EventKind) -> list[Event]:
    return [event for event in store.events.after(STUDY, 0) if event.kind is kind]


def test_a_study_is_read_back_with_all_that_a_pause_leaves_in_it(store: Store) -> None:
    study = has_study(store)
    running = store.studies.save(study.running(NOW))
    urgent = store.studies.save(running.pausing(StudyReason.PAUSE_REQUESTED, NOW, is_urgent=True))
    assert store.studies.get(STUDY) == urgent
    paused = store.studies.save(urgent.paused(NOW + timedelta(seconds=0.125)))
    assert store.studies.get(STUDY) == paused
    again = store.studies.save(paused.resumed(LATER))
    going_on = store.studies.save(again.running(LATER + timedelta(seconds=1)))
    assert store.studies.get(STUDY) == going_on
    assert going_on.idle_seconds == 3600.875


def test_the_events_of_a_change_say_who_asked_and_what_is_another_now(store: Store) -> None:
    study = store.studies.save(has_study(store).running(NOW))
    changed = study.changed(amended(study.definition, {"budget": {"trials": 2, "target": 0.5}}), LATER)
    saved = store.studies.save(changed, by="ada")
    assert store.studies.get(STUDY) == saved
    assert saved.amended_at == LATER
    (event,) = of_kind(store, EventKind.STUDY_CHANGED)
    changes = {"budget.trials": {"from": 4, "to": 2}, "budget.target": {"from": None, "to": 0.5}}
    assert event.payload == {"changed": changes, "by": "ada"}
    assert len(of_kind(store, EventKind.STUDY_STATE)) == 1, "its state is the same"


def test_a_move_says_who_asked_and_one_of_the_service_itself_does_not(store: Store) -> None:
    running = store.studies.save(has_study(store).running(NOW))
    store.studies.save(running.stopping(StudyReason.STOP_REQUESTED), by="ada")
    first, second = of_kind(store, EventKind.STUDY_STATE)
    assert ("by" in first.payload, second.payload["by"]) == (False, "ada")


def test_who_posted_a_study_and_who_asked_for_a_trial_is_told(store: Store) -> None:
    study = has_study(store)
    store.studies.add(replace(study, id="other-abc123", created_by="ada"))
    assert store.events.after("other-abc123", 0)[0].payload["by"] == "ada"
    assert store.studies.get("other-abc123").created_by == "ada"
    store.trials.request(STUDY, {"learning_rate": 1e-3}, NOW, by="grace")
    assert of_kind(store, EventKind.TRIAL_REQUESTED)[0].payload["by"] == "grace"


def test_a_trial_is_asked_to_stop_once_whoever_asks_again(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0), has_trial(store, study, 1)
    assert store.trials.stops(STUDY) == frozenset()
    for by in ("ada", "grace"):
        assert store.trials.ask_to_stop(STUDY, 1, NOW, by=by) == store.trials.get(STUDY, 1)
    assert store.trials.stops(STUDY) == store.trials.history(STUDY).stops == {1}
    assert [event.payload for event in of_kind(store, EventKind.TRIAL_STOP_REQUESTED)] == [{"trial": 1, "by": "ada"}]


def test_a_stop_is_a_change_of_the_study_and_the_same_one_again_is_none(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0)
    store.trials.ask_to_stop(STUDY, 0, NOW)
    store.trials.ask_to_stop(STUDY, 0, NOW)
    assert store.studies.get(STUDY).version == study.version + 1


def test_two_who_ask_at_once_leave_one_stop(store: Store) -> None:
    has_trial(store, has_study(store), 0)
    at_once(*[partial(store.trials.ask_to_stop, STUDY, 0, NOW)] * 3)
    assert len(of_kind(store, EventKind.TRIAL_STOP_REQUESTED)) == 1


def test_a_trial_that_has_ended_is_not_asked(store: Store) -> None:
    trial = has_trial(store, has_study(store), 0)
    store.trials.record(DRIVER, [Change(trial.ended(TrialReason.STOP_REQUESTED, NOW))])
    store.trials.ask_to_stop(STUDY, 0, NOW)
    assert store.trials.stops(STUDY) == frozenset()


def test_what_is_not_there_cannot_be_asked_to_stop(store: Store) -> None:
    for ask in (partial(store.trials.ask_to_stop, "nowhere", 0, NOW), partial(store.trials.stops, "nowhere")):
        with pytest.raises(StudyNotFound):
            ask()
    has_study(store)
    with pytest.raises(TrialNotFound):
        store.trials.ask_to_stop(STUDY, 0, NOW)


def test_a_final_that_began_before_the_budget_grew_does_not_keep_trials_from_being_asked_for(store: Store) -> None:
    study = has_study(store, final={"top": 1})
    has_trial(store, study, 0, [0.5])
    store.trials.record(DRIVER, [Change(a_trial(1, repeats=0, seed=5))])
    with pytest.raises(StudyEnded):
        store.trials.request(STUDY, {"learning_rate": 2e-3}, NOW)
    larger = amended(study.definition, {"budget": {"trials": 9}})
    grown: Study = store.studies.save(store.studies.get(STUDY).extended(larger, LATER))
    assert grown.amended_at == LATER
    assert store.trials.request(STUDY, {"learning_rate": 2e-3}, LATER).number == 1
