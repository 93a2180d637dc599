"""The contract of `TrackedStore`."""

from dataclasses import replace

from service.domain.ports import MirroredTrial, Store
from tests.builders import a_study
from tests.contract.conftest import end, has_study

STUDY = "intents-abc123"
OF_STUDY = -1


def two_projects(store: Store) -> None:
    """A study of `vision` and one of `speech`, each with an experiment and two runs."""
    for project, experiment in (("vision", "7"), ("speech", "8")):
        store.studies.add(replace(a_study(f"{project}-abc123"), project=project))
        store.mirror.set_experiment(f"{project}-abc123", experiment)
        store.mirror.set_mirrored([MirroredTrial(f"{project}-abc123", number, f"{project}{number}") for number in (OF_STUDY, 0)])


def test_of_the_trackers_ids_those_of_a_project_are_found(store: Store) -> None:
    two_projects(store)
    tracked = store.tracked
    assert tracked.experiments("vision", ["7", "8", "9"]) == {"7"}
    assert tracked.runs("vision", ["vision-1", "vision0", "speech0", "unknown"]) == {"vision-1", "vision0"}
    assert tracked.studies("vision", ["vision-abc123", "speech-abc123", "unknown"]) == {"vision-abc123"}


def test_ids_are_found_whole_and_in_their_letter_case(store: Store) -> None:
    two_projects(store)
    tracked = store.tracked
    assert tracked.experiments("vision", ["07", " 7", "7 ", "7.0", "%", "", "\uff17"]) == frozenset()
    assert tracked.runs("vision", ["VISION0", "vision", "vision%", "'or''='"]) == frozenset()
    assert tracked.studies("Vision", ["vision-abc123"]) == frozenset()


def test_a_project_has_nothing_of_no_ids_and_an_unknown_one_nothing_of_any(store: Store) -> None:
    two_projects(store)
    tracked = store.tracked
    assert tracked.experiments("vision", []) == tracked.runs("vision", []) == frozenset()
    assert tracked.experiments("unknown", ["7", "8"]) == tracked.studies("unknown", ["vision-abc123"]) == frozenset()


def test_an_id_that_studies_of_two_projects_claim_is_nobodys(store: Store) -> None:
    """The tracker was emptied, and gave its first ids to others."""
    two_projects(store)
    store.mirror.set_experiment("speech-abc123", "7")
    store.mirror.set_mirrored([MirroredTrial("speech-abc123", 0, "vision0")])
    for project in ("vision", "speech"):
        assert store.tracked.experiments(project, ["7"]) == store.tracked.runs(project, ["vision0"]) == frozenset()


def test_more_ids_than_a_statement_takes_are_looked_up(store: Store) -> None:
    two_projects(store)
    asked = [*(f"unknown{number}" for number in range(1200)), "vision0"]
    assert store.tracked.runs("vision", asked) == {"vision0"}


def test_what_belonged_to_a_deleted_study_is_nobodys(store: Store) -> None:
    has_study(store)
    store.mirror.set_experiment(STUDY, "7")
    assert store.tracked.experiments("default", ["7"]) == {"7"}
    end(store)
    store.studies.delete(STUDY)
    assert store.tracked.experiments("default", ["7"]) == store.tracked.studies("default", [STUDY]) == frozenset()
