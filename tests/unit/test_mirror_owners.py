"""What the mirror says of whose an experiment and a registered model are."""

from dataclasses import replace
from datetime import timedelta

from service.domain.access import PROJECT_TAG
from service.domain.study import Study
from service.store.memory import memory_store
from tests.builders import NOW, a_study
from tests.unit.test_mirror import World


def has_champion(world: World, project: str) -> Study:
    """A study of the project that has ended with a best trial, mirrored."""
    study = world.store.studies.add(replace(a_study(f"{project}-abc123"), project=project))
    world.store.studies.save(study.running(NOW))
    world.store.leases.acquire(study.id, "driver", NOW, timedelta(days=1))
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    return study


def owners(world: World, study: Study) -> list[str | None]:
    """What the experiment and the registered model of the study say."""
    return [world.tracker.studies[study.id][1].get(PROJECT_TAG), world.tracker.champions[study.id].tags.get(PROJECT_TAG)]


def forget_owners(world: World, study: Study) -> None:
    """As a version before projects had written it."""
    experiment_id, tags = world.tracker.studies[study.id]
    world.tracker.studies[study.id] = (experiment_id, {key: tags[key] for key in tags if key != PROJECT_TAG})
    champion = world.tracker.champions[study.id]
    world.tracker.champions[study.id] = replace(
        champion, tags={key: value for key, value in champion.tags.items() if key != PROJECT_TAG}
    )


def test_experiments_and_models_say_whose_they_are() -> None:
    world = World()
    assert owners(world, has_champion(world, "vision")) == ["vision", "vision"]


def test_what_does_not_say_whose_it_is_is_tagged_at_the_mirrors_start() -> None:
    world = World()
    study = has_champion(world, "vision")
    forget_owners(world, study)
    world.mirror.sync_once()
    assert owners(world, study) == [None, None]
    world.new_mirror().sync_once()
    assert owners(world, study) == ["vision", "vision"]


def test_a_study_of_another_store_stays_without_an_owner() -> None:
    world = World()
    study = has_champion(world, "vision")
    forget_owners(world, study)
    world.new_mirror(memory_store()).sync_once()
    assert owners(world, study) == [None, None]
