"""The mirror of studies that pause, go on after their end, or change: their runs go on, too."""

from datetime import timedelta

import pytest

from service.domain.amending import amended
from service.domain.ports import Change
from service.domain.study import Study, StudyReason
from service.domain.trial import TrialReason
from service.tracking.tracker import RunStatus
from tests.builders import NOW
from tests.unit.test_mirror import World

LATER = NOW + timedelta(hours=2)


@pytest.fixture
def world() -> World:
    return World()


def extend(world: World, study: Study) -> Study:
    """The study with a larger budget, run by another driver that revives what its end stopped."""
    ended = world.store.studies.get(study.id)
    extended = world.store.studies.save(ended.extended(amended(ended.definition, {"budget": {"trials": 9}}), LATER))
    for trial in world.store.trials.history(study.id).trials.values():
        if trial.reason is TrialReason.BUDGET_SPENT:
            world.store.trials.record("driver", [Change(trial.revived())])
    return world.store.studies.save(extended.running(LATER))


def test_the_run_of_a_paused_study_goes_on(world: World) -> None:
    study = world.has_study()
    world.store.studies.save(study.pausing(StudyReason.PAUSE_REQUESTED, NOW))
    world.store.studies.save(world.store.studies.get(study.id).paused(NOW))
    world.mirror.sync_once()
    parent = world.run("intents")
    assert (parent.status, parent.tags["tuneyard.state"]) == (RunStatus.RUNNING, "paused")
    assert parent.tags["tuneyard.reason"] == "pause_requested"


def test_an_extended_study_opens_its_run_again_and_those_of_the_trials_that_go_on(world: World) -> None:
    study = world.has_study()
    for number, reason in enumerate([TrialReason.EPOCHS_DONE, TrialReason.BUDGET_SPENT]):
        world.starts(study, number)
        world.reports(study, number, [0.5])
        world.ends(study, number, reason)
    world.finishes(study)
    world.mirror.sync_once()
    assert world.run("intents").status is RunStatus.FINISHED
    assert world.run("trial-0001").status is RunStatus.KILLED
    extend(world, study)
    world.mirror.sync_once()
    parent, done, revived = (world.run(name) for name in ("intents", "trial-0000", "trial-0001"))
    assert [run.status for run in (parent, done, revived)] == [RunStatus.RUNNING, RunStatus.FINISHED, RunStatus.RUNNING]
    assert (parent.tags["tuneyard.state"], parent.tags["tuneyard.reason"]) == ("running", "")
    assert (revived.tags["tuneyard.state"], revived.tags["tuneyard.reason"]) == ("queued", "")
    assert "trials: 9" in parent.tags["mlflow.note.content"]
    assert len(world.tracker.by_id) == 3


def test_an_extended_study_ends_its_run_again(world: World) -> None:
    study = world.has_study()
    world.finishes(study)
    world.mirror.sync_once()
    extend(world, study)
    world.mirror.sync_once()
    stopping = world.store.studies.get(study.id).stopping(StudyReason.STOP_REQUESTED)
    world.store.studies.save(world.store.studies.save(stopping).ended(LATER))
    world.mirror.sync_once()
    parent = world.run("intents")
    assert (parent.status, parent.ended_at, parent.tags["tuneyard.reason"]) == (RunStatus.KILLED, LATER, "stop_requested")


def test_a_champion_that_has_become_better_is_registered_once_more(world: World) -> None:
    study = world.has_study()
    world.starts(study)
    world.reports(study, 0, [0.5])
    world.ends(study, 0, TrialReason.BUDGET_SPENT)
    world.exports.trials = {0}
    world.finishes(study)
    world.mirror.sync_once()
    first = world.tracker.champions[study.id]
    extend(world, study)
    world.store.trials.record("driver", [Change(world.store.trials.get(study.id, 0).started(LATER))])
    world.reports(study, 0, [0.9])
    world.ends(study, 0)
    world.finishes(study)
    world.tracker.by_id[first.run_id].files.clear()
    world.mirror.sync_once()
    second = world.tracker.champions[study.id]
    assert (first.run_id, first.report, first.tags["tuneyard.value"]) == (second.run_id, 1, "0.5")
    assert (second.report, second.tags["tuneyard.value"]) == (2, "0.9")
    assert "model/model.safetensors" in world.tracker.by_id[second.run_id].files


def test_a_mirror_that_starts_after_an_extension_opens_the_runs_as_well(world: World) -> None:
    study = world.has_study()
    world.finishes(study)
    world.mirror.sync_once()
    extend(world, study)
    world.new_mirror().sync_once()
    assert world.run("intents").status is RunStatus.RUNNING


def test_a_budget_that_changed_is_no_reason_to_refuse_a_run_that_is_mirrored_anew(world: World) -> None:
    study = world.has_study()
    world.mirror.sync_once()
    (seen,) = world.store.mirror.mirrored(study.id).values()
    world.store.studies.save(study.changed(amended(study.definition, {"budget": {"trials": 9}}), LATER))
    world.store.mirror.set_mirrored([type(seen)(seen.study_id, seen.number, seen.run_id)])  # as if nothing was known of it
    world.new_mirror().sync_once()
    parent = world.run("intents")
    assert parent.params["budget.trials"] == "4", "a parameter of a run does not change"
    assert "trials: 9" in parent.tags["mlflow.note.content"]
    assert not world.store.mirror.behind()


def has_revived_study(world: World) -> Study:
    """Three trials, of which the second, which its study's end stopped, goes on after an extension."""
    study = world.has_study()
    reasons = [TrialReason.EPOCHS_DONE, TrialReason.BUDGET_SPENT, TrialReason.EPOCHS_DONE]
    for number, (accuracy, reason) in enumerate(zip([0.6, 0.7, 0.8], reasons, strict=True)):
        world.starts(study, number)
        world.reports(study, number, [accuracy])
        world.ends(study, number, reason)
    world.finishes(study)
    world.mirror.sync_once()
    extend(world, study)
    world.mirror.sync_once()
    world.store.trials.record("driver", [Change(world.store.trials.get(study.id, 1).started(LATER))])
    return study


def ends_later(world: World, study: Study, number: int, accuracy: float) -> None:
    world.reports(study, number, [accuracy])
    ended = world.store.trials.get(study.id, number).ended(TrialReason.EPOCHS_DONE, LATER + timedelta(minutes=number))
    world.store.trials.record("driver", [Change(ended)])


def test_points_of_the_best_curve_are_not_drawn_again_with_other_values_while_revived_trials_go_on(world: World) -> None:
    study = has_revived_study(world)
    drawn = [(1, 0.6), (2, 0.7), (3, 0.8)]
    assert world.run("intents").curve("best/validation/accuracy") == drawn
    ends_later(world, study, 1, 0.9)
    world.mirror.sync_once()
    assert world.run("intents").curve("best/validation/accuracy") == drawn
    world.starts(study, 3)
    ends_later(world, study, 3, 0.5)
    world.mirror.sync_once()
    assert world.run("intents").curve("best/validation/accuracy") == [*drawn, (4, 0.9)]


def test_what_only_a_revived_trial_found_is_told_at_the_last_point_of_the_best_curve(world: World) -> None:
    study = has_revived_study(world)
    ends_later(world, study, 1, 0.9)
    world.finishes(study)
    for _ in range(2):
        world.mirror.sync_once()
    last = max(
        (metric for metric in world.run("intents").metrics if metric.key.startswith("best/")), key=lambda one: (one.step, one.at)
    )
    assert (last.step, last.value) == (3, 0.9)
    assert len(world.run("intents").curve("best/validation/accuracy")) == 4
    assert not world.store.mirror.behind()


def test_which_runs_were_opened_again_is_not_kept_in_mind_once_their_study_has_ended(world: World) -> None:
    study = has_revived_study(world)
    world.mirror.sync_once()
    assert world.mirror._reopened
    ends_later(world, study, 1, 0.9)
    world.finishes(study)
    world.mirror.sync_once()
    assert not world.mirror._reopened
