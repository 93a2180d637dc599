"""The contract of `DeletionStore`."""

from service.domain.deletion import Deletion, Forgotten
from service.domain.ports import Store
from service.domain.stored import Freed
from tests.builders import NOW
from tests.contract.conftest import end, has_study, has_trial
from tests.fakes import FakeClock

STUDY = "intents-abc123"


def delete(store: Store, study_id: str = STUDY, by: str | None = None) -> Deletion:
    has_study(store, study_id)
    end(store, study_id)
    return store.studies.delete(study_id, by)


def test_a_deletion_counts_what_went_with_the_study(store: Store) -> None:
    study = has_study(store)
    for number, values in enumerate([[0.5], [0.6, 0.7]]):
        has_trial(store, study, number, values)
    end(store)
    attempts = sum(len(store.trials.attempts(STUDY, number)) for number in range(2))
    events = len(store.events.after(STUDY, 0))
    deletion = store.studies.delete(STUDY, "ada")
    assert deletion == Deletion(STUDY, "intents", NOW, "ada", trials=2, attempts=attempts, reports=3, events=events)
    assert store.deletions.recent() == [deletion]


def test_rows_of_other_studies_are_not_counted(store: Store) -> None:
    has_trial(store, has_study(store, "other"), 0, [0.5])
    deletion = delete(store)
    assert (deletion.trials, deletion.reports) == (0, 0)


def test_the_newest_deletions_come_first_and_no_more_than_asked_for(store: Store, clock: FakeClock) -> None:
    for study_id in ("first", "second", "third"):
        delete(store, study_id)
        clock.pass_seconds(1)
    assert [deletion.study_id for deletion in store.deletions.recent(2)] == ["third", "second"]


def test_what_the_disk_got_back_adds_up(store: Store) -> None:
    delete(store)
    store.deletions.freed(STUDY, checkpoints=Freed(2, 5_000_000_000_000))
    store.deletions.freed(STUDY, checkpoints=Freed(1, 1), prepared=Freed(3, 4))
    (deletion,) = store.deletions.recent()
    assert (deletion.checkpoints, deletion.prepared) == (Freed(3, 5_000_000_000_001), Freed(3, 4))


def test_what_the_tracker_had_is_told_once_it_is_gone(store: Store, clock: FakeClock) -> None:
    delete(store)
    assert store.deletions.recent()[0].forgotten is None
    clock.pass_seconds(60)
    store.mirror.set_forgotten(STUDY, Forgotten("7", 3, registered_model=True), clock.now())
    (deletion,) = store.deletions.recent()
    assert (deletion.forgotten, deletion.forgotten_at) == (Forgotten("7", 3, registered_model=True), clock.now())


def test_nothing_is_remembered_of_a_study_that_was_not_deleted(store: Store) -> None:
    has_study(store)
    store.deletions.freed(STUDY, checkpoints=Freed(1, 1))
    store.mirror.set_forgotten(STUDY, Forgotten(), NOW)
    assert store.deletions.recent() == []


def test_a_study_may_bear_the_id_of_a_deleted_one_and_be_deleted_too(store: Store) -> None:
    delete(store, by="ada")
    store.mirror.set_forgotten(STUDY, Forgotten("7", 1), NOW)
    again = delete(store, by="bob")
    assert store.deletions.recent() == [again]
    assert store.mirror.deleted() == [STUDY]
