"""The contract of a final's runs: stored as trials, and no trials of the search."""

import pytest

from service.domain.errors import StudyEnded, StudyNotFound
from service.domain.ports import Store, TrialTotals
from service.domain.trial import TrialState
from tests.builders import NOW
from tests.contract.conftest import has_study, has_trial

STUDY = "intents-abc123"


def test_a_run_says_which_trial_it_repeats_and_under_which_seed(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0, [0.5])
    run = has_trial(store, study, 1, [0.4], repeats=0, seed=1_674_317_069)
    assert (run.repeats, run.seed) == (0, 1_674_317_069)
    assert store.trials.history(STUDY).trials[1] == run
    assert (store.trials.get(STUDY, 0).repeats, store.trials.get(STUDY, 0).seed) == (None, None)


def test_the_runs_of_a_study_are_found_by_number_and_are_its_own(store: Store) -> None:
    study, other = has_study(store), has_study(store, "other-abc123")
    for number, repeats in enumerate([None, 0, None, 2, 0]):
        has_trial(store, study, number, [0.5], repeats=repeats, seed=repeats)
    has_trial(store, other, 0, repeats=0, seed=1)
    assert [(run.number, run.repeats) for run in store.trials.repeats(STUDY)] == [(1, 0), (3, 2), (4, 0)]
    assert list(store.trials.repeats(has_study(store, "third-abc123").id)) == []


def test_the_runs_of_an_unknown_study_are_not_found(store: Store) -> None:
    with pytest.raises(StudyNotFound):
        store.trials.repeats("nothing-abc123")


def test_a_run_is_never_the_searchs_best_trial(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0, [0.5])
    has_trial(store, study, 1, [0.9], repeats=0, seed=1)
    best = store.trials.best(STUDY)
    assert best is not None
    assert best.number == 0


def test_nothing_is_asked_for_once_the_best_are_trained_again(store: Store) -> None:
    study = store.studies.save(has_study(store).running(NOW))
    has_trial(store, study, 0, [0.5])
    store.trials.request(STUDY, {"learning_rate": 2e-3}, NOW)
    has_trial(store, study, 1, repeats=0, seed=1)
    with pytest.raises(StudyEnded, match="Fork it to search on"):
        store.trials.request(STUDY, {"learning_rate": 3e-3}, NOW)


def test_runs_count_by_their_state_and_their_gpu_time_and_not_as_trials_or_reports(store: Store) -> None:
    study = has_study(store)
    has_trial(store, study, 0, [0.5, 0.6])
    has_trial(store, study, 1, [0.9], repeats=0, seed=1)
    assert store.trials.totals([STUDY]) == {STUDY: TrialTotals(reports=2, gpu_seconds=3.0, trials=1)}
    assert store.trials.counts([STUDY]) == {STUDY: {TrialState.RUNNING: 2}}
