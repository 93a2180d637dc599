"""The contract of `FootprintStore`."""

from dataclasses import replace

from service.domain.ports import Store
from service.domain.stored import Footprint
from tests.builders import NOW
from tests.contract.conftest import end, has_study

STUDY = "intents-abc123"
FOOTPRINT = Footprint(5_000_000_000_000, NOW, "It is more than there may be.", (3, 7))


def test_a_footprint_is_answered_as_it_was_set_and_for_those_asked_about(store: Store) -> None:
    for study_id in (STUDY, "other", "third"):
        has_study(store, study_id)
    store.footprints.set(STUDY, FOOTPRINT)
    store.footprints.set("other", Footprint(1, NOW))
    assert store.footprints.of([STUDY, "third"]) == {STUDY: FOOTPRINT}
    assert store.footprints.of([]) == {}


def test_a_later_footprint_replaces_the_one_before(store: Store) -> None:
    has_study(store)
    for footprint in (FOOTPRINT, replace(FOOTPRINT, bytes=0, detail=None, missing=())):
        store.footprints.set(STUDY, footprint)
        assert store.footprints.of([STUDY]) == {STUDY: footprint}


def test_the_footprint_of_a_study_that_is_gone_is_dropped(store: Store) -> None:
    store.footprints.set(STUDY, FOOTPRINT)
    has_study(store)
    assert store.footprints.of([STUDY]) == {}
    store.footprints.set(STUDY, FOOTPRINT)
    end(store)
    store.studies.delete(STUDY)
    assert store.footprints.of([STUDY]) == {}
