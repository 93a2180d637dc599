"""The contract of `ShareStore`."""

from dataclasses import replace
from functools import partial

import pytest

from service.domain.errors import StudyNotFound
from service.domain.ports import Store
from service.domain.share import Share
from service.domain.waiting import Waiting, WaitingCause
from tests.builders import NOW, a_study
from tests.contract.conftest import at_once, end

STUDY = "intents-abc123"
WAITING = Waiting(WaitingCause.SHARE, "It has 1 of the 2 slots it could use.", NOW)


@pytest.fixture
def shared(store: Store) -> Store:
    store.studies.add(a_study())
    return store


def test_a_study_has_no_share_before_it_is_granted_one(shared: Store) -> None:
    assert shared.shares.get(STUDY) is None
    assert shared.shares.all() == {}


def test_what_is_granted_and_what_is_wanted_are_written_apart(shared: Store) -> None:
    shared.shares.grant({STUDY: Share(slots=2, wanted=9, lag=-1.5, waiting=WAITING)})
    assert shared.shares.get(STUDY) == Share(slots=2, wanted=None, lag=-1.5, waiting=WAITING)
    shared.shares.want(STUDY, 3)
    shared.shares.grant({STUDY: Share(slots=1)})
    assert shared.shares.all() == shared.shares.of([STUDY, "other-abc123"]) == {STUDY: Share(slots=1, wanted=3)}
    shared.shares.want(STUDY, None)
    assert shared.shares.get(STUDY) == Share(slots=1)


def test_a_study_may_say_what_it_wants_before_it_is_granted_anything(shared: Store) -> None:
    shared.shares.want(STUDY, 2)
    assert shared.shares.get(STUDY) == Share(slots=0, wanted=2)


def test_a_dropped_share_is_gone(shared: Store) -> None:
    shared.shares.grant({STUDY: Share(slots=2)})
    shared.shares.drop(STUDY)
    shared.shares.drop(STUDY)
    assert shared.shares.get(STUDY) is None


def test_studies_that_are_gone_get_no_share(shared: Store) -> None:
    shared.shares.grant({"gone-abc123": Share(slots=2), STUDY: Share(slots=1)})
    shared.shares.want("gone-abc123", 1)
    assert shared.shares.all() == {STUDY: Share(slots=1)}


def test_a_deleted_studys_share_goes_with_it(shared: Store) -> None:
    shared.shares.grant({STUDY: Share(slots=2)})
    end(shared, STUDY)
    shared.studies.delete(STUDY)
    assert shared.shares.all() == {}


def test_a_driver_sees_its_slots_and_whether_its_study_was_changed(shared: Store) -> None:
    assert shared.shares.poll(STUDY) == (0, 0)
    shared.shares.grant({STUDY: Share(slots=2)})
    assert shared.shares.poll(STUDY) == (0, 2)
    shared.studies.save(shared.studies.get(STUDY).running(NOW))
    assert shared.shares.poll(STUDY) == (1, 2)
    with pytest.raises(StudyNotFound):
        shared.shares.poll("gone-abc123")


def test_slots_that_were_counted_for_another_number_of_trials_on_a_gpu_are_none(shared: Store) -> None:
    shared.shares.grant({STUDY: Share(slots=2)})
    shared.studies.save(replace(shared.studies.get(STUDY), trials_per_gpu=3))
    assert shared.shares.poll(STUDY) == (1, 0)
    shared.shares.grant({STUDY: Share(slots=6, trials_per_gpu=3)})
    assert shared.shares.poll(STUDY) == (1, 6)
    assert shared.shares.get(STUDY) == Share(slots=6, trials_per_gpu=3)


def test_grants_and_wants_at_once_are_all_kept(shared: Store) -> None:
    grants = [partial(shared.shares.grant, {STUDY: Share(slots=2)}) for _ in range(4)]
    wants = [partial(shared.shares.want, STUDY, 1) for _ in range(4)]
    at_once(*grants, *wants)
    assert shared.shares.get(STUDY) == replace(Share(), slots=2, wanted=1)
