"""The contract of what a study's trials have used, added up, and of the forecasts that are kept of it."""

from dataclasses import replace

import pytest

from service.domain.errors import StudyNotFound
from service.domain.forecast import Band
from service.domain.ports import Change, Store
from service.domain.spending import Spent, SpentOn
from service.domain.trial import TrialReason, TrialState
from tests.builders import NOW, a_forecast, a_trial
from tests.contract.conftest import DRIVER, end, has_study, has_trial

STUDY = "intents-abc123"


def test_what_trials_used_is_added_up_by_state_rung_and_final(store: Store) -> None:
    study = has_study(store)
    has_study(store, "other-abc123")
    has_trial(store, store.studies.get("other-abc123"), 0, [0.5])
    for number in (0, 1):
        pruned = has_trial(store, study, number, [0.5, 0.6])  # 2 s a report, on half a GPU
        store.trials.record(DRIVER, [Change(pruned.losing(10.0, 0.5).ended(TrialReason.RUNG_CUT, NOW))])
    has_trial(store, study, 2, [0.5], rung=1)
    has_trial(store, study, 3, [0.5], repeats=0, seed=1)
    assert store.trials.spending(STUDY).parts == [
        SpentOn(TrialState.PRUNED, 0, False, Spent(2, 4, 8.0, 20.0, 14.0)),
        SpentOn(TrialState.RUNNING, 0, True, Spent(1, 1, 2.0, 0.0, 1.0)),
        SpentOn(TrialState.RUNNING, 1, False, Spent(1, 1, 2.0, 0.0, 1.0)),
    ]
    assert store.trials.spending(STUDY).total() == Spent(4, 6, 12.0, 20.0, 16.0)


def test_a_copy_has_used_nothing_of_what_its_parent_trained(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0, reports=5, parent=7, parent_report=3)
    assert store.trials.spending(STUDY).total().reports == 2


def test_a_study_without_trials_has_used_nothing(store: Store) -> None:
    has_study(store)
    assert store.trials.spending(STUDY).total() == Spent()
    assert store.trials.costliest(STUDY, 5) == []


def test_the_costliest_trials_come_first_with_what_they_lost(store: Store) -> None:
    study = has_study(store)
    for number, (seconds, lost) in enumerate([(5.0, 0.0), (1.0, 9.0), (10.0, 0.0), (4.0, 0.0)]):
        store.trials.record(DRIVER, [Change(a_trial(number, STUDY, seconds=seconds, lost_seconds=lost))])
    assert [trial.number for trial in store.trials.costliest(study.id, 3)] == [1, 2, 0]


def test_a_forecast_is_found_as_it_was_kept(store: Store) -> None:
    has_study(store)
    first, second = a_forecast(ended=1, notes=("paused",)), a_forecast(ended=2, bytes=Band(1.0, 2.5, 3.0))
    for forecast in (second, first):
        store.forecasts.add(STUDY, forecast)
    assert store.forecasts.of(STUDY) == [first, second]


def test_of_two_forecasts_after_as_many_trials_the_first_stays(store: Store) -> None:
    has_study(store)
    first = a_forecast()
    store.forecasts.add(STUDY, first)
    store.forecasts.add(STUDY, replace(first, elapsed_seconds=99.0))
    assert store.forecasts.of(STUDY) == [first]


def test_forecasts_go_with_their_study(store: Store) -> None:
    has_study(store)
    store.forecasts.add(STUDY, a_forecast())
    end(store)
    store.studies.delete(STUDY)
    store.forecasts.add(STUDY, a_forecast())
    has_study(store)
    assert store.forecasts.of(STUDY) == []


def test_what_an_unknown_study_used_and_will_use_is_not_found(store: Store) -> None:
    for ask in (store.trials.spending, store.forecasts.of, lambda study_id: store.trials.costliest(study_id, 1)):
        with pytest.raises(StudyNotFound):
            ask("nothing-abc123")
