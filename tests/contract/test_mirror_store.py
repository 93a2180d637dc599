"""The contract of `MirrorStore`."""

from dataclasses import replace
from functools import partial

import pytest

from service.domain.deletion import Deletion, Forgotten
from service.domain.errors import StudyNotFound, StudyStillActive
from service.domain.ports import Change, MirroredTrial, Store
from service.domain.study import StudyReason
from tests.builders import NOW, a_report, a_study, a_trial
from tests.contract.conftest import DRIVER, at_once, end, has_study, has_trial

STUDY = "intents-abc123"
OF_STUDY = -1


def catch_up(store: Store, study_id: str = STUDY) -> None:
    """Mirror all there is of a study."""
    trials = store.trials.history(study_id).trials
    own = MirroredTrial(study_id, OF_STUDY, "", store.studies.get(study_id).version)
    seen = [MirroredTrial(study_id, number, f"run-{number}", trial.version, trial.reports) for number, trial in trials.items()]
    store.mirror.set_mirrored([own, *seen])


def test_a_study_has_no_experiment_until_it_is_given_one(store: Store) -> None:
    has_study(store)
    assert store.mirror.experiment(STUDY) is None
    store.mirror.set_experiment(STUDY, "7")
    assert store.mirror.experiment(STUDY) == "7"


def test_the_experiments_of_several_studies_are_found_at_once(store: Store) -> None:
    for study_id in (STUDY, "other-abc123", "third-abc123"):
        has_study(store, study_id)
    for study_id, experiment in ((STUDY, "7"), ("other-abc123", "8")):
        store.mirror.set_experiment(study_id, experiment)
    assert store.mirror.experiments([STUDY, "third-abc123"]) == {STUDY: "7"}


def test_an_experiment_may_be_given_anew(store: Store) -> None:
    has_study(store)
    for experiment in ("7", "8"):
        store.mirror.set_experiment(STUDY, experiment)
    assert store.mirror.experiment(STUDY) == "8"


def test_the_experiment_of_an_unknown_study_is_ignored(store: Store) -> None:
    store.mirror.set_experiment(STUDY, "7")
    assert store.mirror.experiment(STUDY) is None


def test_progress_is_remembered_by_trial_and_for_the_study_itself(store: Store) -> None:
    has_study(store)
    assert store.mirror.mirrored(STUDY) == {}
    entries = [MirroredTrial(STUDY, OF_STUDY, "", 0), MirroredTrial(STUDY, 0, "run-0", 5, 3), MirroredTrial(STUDY, 12, "run-12")]
    store.mirror.set_mirrored(entries)
    assert store.mirror.mirrored(STUDY) == {entry.number: entry for entry in entries}


def test_new_progress_replaces_the_old_of_the_same_trial_alone(store: Store) -> None:
    has_study(store)
    old, other, new = (
        MirroredTrial(STUDY, number, run, version) for number, run, version in [(0, "a", 1), (1, "b", 1), (0, "c", 2)]
    )
    store.mirror.set_mirrored([old, other])
    store.mirror.set_mirrored([new])
    assert store.mirror.mirrored(STUDY) == {0: new, 1: other}


def test_no_progress_is_nothing_to_remember(store: Store) -> None:
    store.mirror.set_mirrored([])
    assert store.mirror.mirrored(STUDY) == {}


def test_progress_of_several_studies_is_kept_apart(store: Store) -> None:
    for study_id in (STUDY, "other"):
        has_study(store, study_id)
    store.mirror.set_mirrored([MirroredTrial(STUDY, 0, "a"), MirroredTrial("other", 0, "b")])
    assert store.mirror.mirrored(STUDY) == {0: MirroredTrial(STUDY, 0, "a")}
    assert store.mirror.mirrored("other") == {0: MirroredTrial("other", 0, "b")}


def test_progress_of_a_deleted_study_is_ignored_and_that_of_others_is_not(store: Store) -> None:
    for study_id in (STUDY, "other"):
        has_study(store, study_id)
    end(store)
    store.studies.delete(STUDY)
    store.mirror.set_mirrored([MirroredTrial(STUDY, 0, "a"), MirroredTrial("other", 0, "b")])
    assert store.mirror.mirrored(STUDY) == {}
    assert list(store.mirror.mirrored("other")) == [0]


def test_progress_at_the_same_time_as_the_deletion_is_ignored_or_deleted(store: Store) -> None:
    for turn in range(5):
        study_id = f"study-{turn}"
        has_study(store, study_id)
        end(store, study_id)
        outcomes = at_once(
            partial(store.mirror.set_mirrored, [MirroredTrial(study_id, 0, "a")]),
            partial(store.mirror.set_experiment, study_id, "7"),
            partial(store.studies.delete, study_id),
        )
        assert outcomes[:2] == [None] * 2
        assert isinstance(outcomes[2], Deletion)
        assert (store.mirror.mirrored(study_id), store.mirror.experiment(study_id)) == ({}, None)


def test_a_new_study_is_behind_until_it_is_mirrored(store: Store) -> None:
    assert store.mirror.behind() == []
    store.studies.add(a_study())
    assert store.mirror.behind() == [STUDY]
    catch_up(store)
    assert store.mirror.behind() == []


def test_a_study_that_was_saved_is_behind(store: Store) -> None:
    study = has_study(store)
    catch_up(store)
    store.studies.save(study.running(NOW))
    assert store.mirror.behind() == [STUDY]
    catch_up(store)
    assert store.mirror.behind() == []


def test_a_study_with_a_new_trial_or_a_new_report_is_behind(store: Store) -> None:
    study = has_study(store)
    catch_up(store)
    trial = has_trial(store, study)
    assert store.mirror.behind() == [STUDY]
    catch_up(store)
    assert store.mirror.behind() == []
    running = trial.started(NOW).reported(a_report(), study.definition.objective, gpus=0)
    store.trials.record(DRIVER, [Change(running, report=a_report())])
    assert store.mirror.behind() == [STUDY]
    catch_up(store)
    assert store.mirror.behind() == []


def test_a_study_is_behind_when_one_of_its_trials_was_never_mirrored(store: Store) -> None:
    study = has_study(store)
    catch_up(store)
    for number in range(3):
        has_trial(store, study, number)
    store.mirror.set_mirrored([MirroredTrial(STUDY, number, "run", 0) for number in (0, 2)])
    assert store.mirror.behind() == [STUDY]


def test_a_run_that_was_only_made_is_still_behind(store: Store) -> None:
    has_trial(store, has_study(store))
    catch_up(store)
    store.mirror.set_mirrored([MirroredTrial(STUDY, 0, "run-0")])
    assert store.mirror.behind() == [STUDY]


def test_a_study_is_named_once_however_much_of_it_is_behind(store: Store) -> None:
    for study_id in ("one", "done", "two"):
        study = has_study(store, study_id)
        for number in range(3):
            has_trial(store, study, number)
    catch_up(store, "done")
    assert sorted(store.mirror.behind()) == ["one", "two"]


def test_the_progress_of_one_study_says_nothing_of_another(store: Store) -> None:
    for study_id in (STUDY, "other"):
        has_study(store, study_id)
        store.trials.record(DRIVER, [Change(a_trial(0, study_id))])
    catch_up(store, "other")
    assert store.mirror.behind() == [STUDY]


def test_a_deleted_study_is_not_behind(store: Store) -> None:
    has_study(store)
    end(store)
    store.studies.delete(STUDY)
    assert store.mirror.behind() == []


def test_of_named_studies_only_those_that_are_behind_are_found(store: Store) -> None:
    for study_id in ("one", "done", "two"):
        has_trial(store, has_study(store, study_id))
    catch_up(store, "done")
    assert store.mirror.behind(["one", "done"]) == ["one"]
    assert store.mirror.behind(["done", "unknown"]) == store.mirror.behind([]) == []
    assert sorted(store.mirror.behind(["two", "one", *(f"unknown-{number}" for number in range(2000))])) == ["one", "two"]


def test_a_studys_mark_stays_while_nothing_happens_and_grows_with_what_does(store: Store) -> None:
    assert store.mirror.marks() == {}
    study = has_study(store)
    has_study(store, "other")
    seen = [store.mirror.marks()]
    has_trial(store, study)
    seen.append(store.mirror.marks())
    store.studies.save(study.stopping(StudyReason.CANCEL_REQUESTED).ended(NOW))
    seen.append(store.mirror.marks())
    catch_up(store)
    assert store.mirror.marks() == seen[-1]
    own = [marks[STUDY] or 0 for marks in seen]
    assert own == sorted(set(own))
    assert [marks["other"] for marks in seen] == [seen[0]["other"]] * 3


def test_a_study_that_a_driver_writes_has_no_mark_to_rely_on(store: Store) -> None:
    study = store.studies.save(has_study(store).running(NOW))
    trial = has_trial(store, study)
    store.trials.record(DRIVER, [Change(replace(trial, until=trial.until + 1))])  # has no event
    assert store.mirror.marks() == {STUDY: None}
    stopping = store.studies.save(study.stopping(StudyReason.BUDGET_SPENT))
    assert store.mirror.marks() == {STUDY: None}
    store.studies.save(stopping.ended(NOW))
    assert store.mirror.marks()[STUDY] is not None


def test_a_deleted_study_has_no_mark(store: Store) -> None:
    has_study(store)
    end(store)
    store.studies.delete(STUDY)
    assert store.mirror.marks() == {}


def test_what_the_tracker_is_thought_to_have_beyond_the_store_is_named(store: Store) -> None:
    study = has_study(store)
    for number in range(3):
        has_trial(store, study, number, [0.5])
    catch_up(store)
    assert store.mirror.ahead() == []
    known = store.mirror.mirrored(STUDY)
    further = [
        replace(known[OF_STUDY], version=99),
        replace(known[0], version=99),
        replace(known[1], reports=2),
        replace(known[2], version=0, reports=0),
    ]
    store.mirror.set_mirrored(further)
    assert sorted(store.mirror.ahead(), key=lambda entry: entry.number) == further[:3]


def test_a_deleted_study_is_named_until_the_tracker_has_forgotten_it(store: Store) -> None:
    for study_id in (STUDY, "other", "kept"):
        has_study(store, study_id)
        end(store, study_id)
    assert store.mirror.deleted() == []
    for study_id in (STUDY, "other"):
        store.studies.delete(study_id)
    assert sorted(store.mirror.deleted()) == sorted([STUDY, "other"])
    store.mirror.set_forgotten("other", Forgotten("7", 3, True), NOW)
    assert store.mirror.deleted() == [STUDY]


def test_a_study_that_never_was_or_could_not_be_deleted_is_not_named_as_deleted(store: Store) -> None:
    has_study(store)
    for study_id, refusal in ((STUDY, StudyStillActive), ("unknown", StudyNotFound)):
        with pytest.raises(refusal):
            store.studies.delete(study_id)
    assert store.mirror.deleted() == []


def test_forgetting_a_study_that_was_not_deleted_changes_nothing(store: Store) -> None:
    has_study(store)
    store.mirror.set_experiment(STUDY, "7")
    store.mirror.set_forgotten(STUDY, Forgotten(), NOW)
    store.mirror.set_forgotten("unknown", Forgotten(), NOW)
    assert (store.mirror.experiment(STUDY), store.mirror.deleted()) == ("7", [])
