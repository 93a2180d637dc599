"""What MLflow holds of a final."""

from dataclasses import replace

import pytest

from service.domain.ports import Change
from service.domain.study import Study
from tests.unit.test_mirror import World


@pytest.fixture
def world() -> World:
    return World()


def runs_again(world: World, study: Study, number: int, repeats: int, accuracy: float) -> None:
    world.starts(study, number)
    begun = world.store.trials.get(study.id, number)
    world.store.trials.record("driver", [Change(replace(begun, repeats=repeats, seed=number))])
    world.reports(study, number, [accuracy])
    world.ends(study, number)


def a_study_with_final(world: World) -> Study:
    """Trial 1 was the best of the search; trial 0 does better when trained again."""
    study = world.has_study(final={"top": 2, "seeds": 2})
    for number, accuracy in enumerate([0.90, 0.99]):
        world.starts(study, number)
        world.reports(study, number, [accuracy])
        world.ends(study, number)
    for number, (repeats, accuracy) in enumerate([(1, 0.80), (0, 0.92), (1, 0.81), (0, 0.93)], start=2):
        runs_again(world, study, number, repeats, accuracy)
    world.exports.trials = {0, 1, 4, 5}
    return study


def test_the_studys_run_names_the_winner_and_the_verdict_once_it_has_ended(world: World) -> None:
    study = a_study_with_final(world)
    world.mirror.sync_once()
    assert "tuneyard.verdict" not in world.run("intents").tags
    world.finishes(study)
    world.mirror.sync_once()
    tags = world.run("intents").tags
    assert tags["tuneyard.winner"] == "0"
    assert tags["tuneyard.verdict"].startswith("Trial 0 wins with validation/accuracy 0.925")


def test_the_winners_best_run_is_the_registered_champion(world: World) -> None:
    study = a_study_with_final(world)
    world.finishes(study)
    world.mirror.sync_once()
    champion = world.tracker.champions[study.id]
    assert world.tracker.by_id[champion.run_id] is world.run("trial-0005")
    assert champion.tags["tuneyard.trial"] == f"{study.id}/5"


def test_a_runs_tags_say_what_it_repeats_and_its_configuration_has_its_seed(world: World) -> None:
    a_study_with_final(world)
    world.mirror.sync_once()
    run = world.run("trial-0003")
    assert (run.tags["tuneyard.repeats"], run.params["seed"]) == ("0", "3")
    assert "tuneyard.repeats" not in world.run("trial-0001").tags


def test_the_curve_of_the_best_is_the_searchs(world: World) -> None:
    a_study_with_final(world)
    world.mirror.sync_once()
    points = {metric.step: metric.value for metric in world.run("intents").metrics if metric.key == "best/validation/accuracy"}
    assert points == {1: 0.90, 2: 0.99}


def test_a_study_without_a_final_says_nothing_of_one(world: World) -> None:
    study = world.has_study()
    world.finishes(study)
    world.mirror.sync_once()
    assert not {"tuneyard.winner", "tuneyard.verdict"} & set(world.run("intents").tags)
